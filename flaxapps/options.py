"""Options that several commands of `flaxapps` have, and those of `evaluate` and `export`."""

import argparse
from typing import Any

from flaxapps.distributed import add_distributed

PREPROCESSING = ("auto", "caffe", "tf", "torch", "none")
EVALUATE_EXAMPLES = """examples:
  flaxapps evaluate photos_by_class/ --model mine/           # a folder that flaxapps finetune wrote
  flaxapps evaluate table.csv --model mine.keras --labels names.txt --preprocess tf --format csv --output by_class.csv

The published accuracies, by those who have ImageNet (folders are matched by their wnids, n01440764 and so on):
  flaxapps evaluate ILSVRC2012_val/ --model resnet50 --resize 256
  flaxapps evaluate ILSVRC2012_img_val/ --truth devkit/data/ILSVRC2012_validation_ground_truth.txt \\
      --model inception_v3 --resize 342

DATA is a folder with a folder for each class, a CSV file with the columns path and label, or, with --truth, a folder
of photos. The exit code is 1 where a photo could not be read; the others are evaluated all the same.
"""
SUMMARY_EXAMPLES = """examples:
  flaxapps summary vgg16
  flaxapps summary inception_v3 --no-top --input-shape 200 300
  flaxapps summary mine.keras
"""
PLOT_EXAMPLES = """examples:
  flaxapps plot resnet50 --output resnet50.svg
  flaxapps plot inception_v3 --no-top --full --output layers.svg
  flaxapps plot mine.keras --output mine.svg
"""
EXPORT_EXAMPLES = """examples:
  flaxapps export resnet50 --output resnet50.stablehlo
  flaxapps export xception --no-top --input-shape 150 150 --output features.stablehlo
  flaxapps export mine.keras --dtype uint8 --preprocess tf --weights-beside --output mine.stablehlo

What is written runs with JAX alone:
  import pathlib, jax, jax.export
  network = jax.export.deserialize(bytearray(pathlib.Path("resnet50.stablehlo").read_bytes()))
  scores = jax.jit(network.call)(photos)
or with flaxapps.load_exported("resnet50.stablehlo"), which checks the arrays.
"""


def add_evaluate(command: Any) -> None:
    """Options of `flaxapps evaluate`."""
    command.add_argument("data", metavar="DATA", help="labelled photos, see below")
    add_model(command)
    command.add_argument(
        "--truth",
        metavar="FILE",
        help="labels of a folder of photos: a CSV file such as Kaggle's LOC_val_solution.csv, lines of NAME LABEL, or "
        "a label per line, such as the ground truth of ILSVRC2012's development kit with its meta.mat beside it",
    )
    command.add_argument(
        "--resize", type=positive, metavar="N", help="bring the shorter side to N pixels, then cut out the centre"
    )
    command.add_argument(
        "--crop", type=positive, metavar="N", help="how much is cut out, for models that take any size"
    )
    command.add_argument(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="csv has a line for each class, json everything (default: table, worst classes first)",
    )
    add_reading(command, "bilinear")
    add_distributed(command)


def add_export(command: Any) -> None:
    """Options of `flaxapps export`."""
    add_architecture(command)
    command.add_argument("--output", required=True, metavar="FILE.stablehlo", help="what is written")
    command.add_argument("--weights", metavar="FILE", help="weights to use in place of the published or stored ones")
    command.add_argument("--weights-beside", action="store_true", help="weights in an .npz file beside, not inside")
    command.add_argument("--dtype", default="float32", help="of the images, such as uint8 (default: %(default)s)")
    command.add_argument(
        "--preprocess", choices=PREPROCESSING, default="none", help="done to the images first (default: none)"
    )
    command.add_argument(
        "--platforms",
        nargs="+",
        choices=("cpu", "cuda", "rocm", "tpu"),
        default=["cpu", "cuda", "tpu"],
        metavar="PLATFORM",
        help="cpu, cuda, rocm, tpu (default: %(default)s)",
    )


def add_model(command: Any) -> None:
    """Options that say which model predicts."""
    command.add_argument(
        "--model",
        required=True,
        metavar="NAME|FILE.keras|DIR",
        help="a network of `flaxapps list`, a Keras model, or a folder of `flaxapps finetune`",
    )
    command.add_argument("--weights", metavar="FILE", help="weights to use in place of the published or stored ones")


def add_reading(command: Any, interpolation: str) -> None:
    """Options on photos and on what is made of them; `interpolation` is the default."""
    from flaxapps.image import INTERPOLATIONS

    command.add_argument("--output", metavar="FILE", help="in place of the terminal; written as a whole or not at all")
    command.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="photos at a time (default: 32; on a CPU 4 for each core, up to 32)",
    )
    add_size(command, "--size", "photo size for models that take any")
    command.add_argument(
        "--interpolation", choices=INTERPOLATIONS, help=f"default: {interpolation}, or what the model was trained with"
    )
    command.add_argument(
        "--preprocess",
        choices=PREPROCESSING,
        default="auto",
        help="auto: what the published network that the model is, or holds, was trained with (default)",
    )
    command.add_argument(
        "--exact", action="store_true", help="many photos too with Keras's numbers to 1e-5, in place of 1e-4 but faster"
    )
    command.add_argument("--labels", metavar="FILE", help="names of the classes: one a line, or JSON")


def add_architecture(command: Any) -> None:
    """Options that say which network is looked at, without its weights."""
    command.add_argument("model", metavar="NAME|FILE.keras", help="a network of `flaxapps list`, or a Keras model")
    command.add_argument("--no-top", action="store_true", help="without the classifier")
    add_size(command, "--input-shape", "image size, in place of the network's own")


def add_size(command: Any, option: str, help: str) -> None:
    """An option of a height and a width, in pixels."""
    command.add_argument(option, nargs=2, type=positive, metavar=("HEIGHT", "WIDTH"), help=help)


def positive(text: str) -> int:
    """A number from 1 on.

    Raises:
        ArgumentTypeError, ValueError: It is none; argparse tells it.
    """
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("should be at least 1")
    return number


positive.__name__ = "number"  # argparse says "invalid number value: 'x'"
