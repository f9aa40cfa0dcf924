"""Options that several commands have."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from flaxapps.cli.arguments.choices import INTERPOLATIONS, MODES, PRECISIONS

FORMATS = ("table", "csv", "json", "jsonl", "npz")
ROW_FORMATS = FORMATS[:-1]
PREPROCESSING = ("auto", "caffe", "tf", "torch", "rescale", "none")


def add_model(command: Any) -> None:
    """Adds the options that choose a model."""
    command.add_argument(
        "--model",
        required=True,
        metavar="NAME|FILE.keras|DIR",
        help="a network of `flaxapps list`, a Keras model, a file of `flaxapps quantize`, or a folder of `flaxapps "
        "finetune`",
    )
    add_weights(command)


def add_weights(command: Any) -> None:
    """Adds the option for other weights."""
    command.add_argument("--weights", metavar="FILE", help="weights to use in place of the published or stored ones")


def add_output(command: Any) -> None:
    """Adds the options of a network that computes, and the file it is written to."""
    command.add_argument("--output", metavar="FILE", help="file to write, atomically (default: the terminal)")
    command.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="photos at a time (default: 32; on a CPU 4 for each core, up to 32)",
    )
    command.add_argument(
        "--optimize",
        choices=MODES,
        help="default: within 1e-5 of Keras; fast: within 1e-4, compiles longer (default: fast for many photos)",
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bfloat16 is faster on CPUs with AVX-512 BF16 or AMX, and changes outputs by about half a percent "
        "(default: float32)",
    )
    command.add_argument("--exact", action="store_const", const="default", dest="optimize", help=argparse.SUPPRESS)
    add_dtype(command)


def add_dtype(command: Any) -> None:
    """Adds the option for the compute dtype."""
    command.add_argument("--dtype", metavar="DTYPE", help="compute dtype, such as bfloat16 (default: the model's own)")


def add_format(command: Any, formats: Sequence[str], help: str = "default: %(default)s") -> None:
    """Adds the option for the format of the output; `formats` are some of `FORMATS`."""
    command.add_argument("--format", choices=formats, default="table", help=help)


def add_layer(command: Any) -> None:
    """Adds the option that ends a network at a layer; `flaxapps.transforms.cut` does it."""
    command.add_argument(
        "--layer", metavar="NAME", help="end the network at this layer; OUTER/INNER for one of a nested model"
    )


def add_softmax(command: Any) -> None:
    """Adds the option for probabilities in place of logits; `flaxapps.transforms.logits` does it."""
    command.add_argument("--softmax", action="store_true", help="return probabilities from a model that ends in logits")


def add_photos(command: Any) -> None:
    """Adds the options for reading photos, preprocessing and class names."""
    add_size(command, "--size", "photo size, for models that take any size")
    command.add_argument(
        "--resize", type=positive, metavar="N", help="resize the shorter side to N pixels, then crop the centre"
    )
    command.add_argument("--crop", type=positive, metavar="N", help="size of the crop, for models that take any size")
    add_resizing(command)
    add_on_error(command)
    add_preprocess(command, "auto")
    command.add_argument("--labels", metavar="FILE", help="class names: one per line, or JSON")


def add_on_error(command: Any) -> None:
    """Adds the option for photos that cannot be read."""
    command.add_argument(
        "--on-error",
        choices=("skip", "raise"),
        default="skip",
        help="leave out and name photos that cannot be read, or stop at the first one (default: skip)",
    )


def add_preprocess(command: Any, default: str) -> None:
    """Adds the option for the preprocessing."""
    command.add_argument(
        "--preprocess",
        choices=PREPROCESSING,
        default=default,
        help="auto: as the published network that the model is or contains; rescale: divide by 255 "
        "(default: %(default)s)",
    )


def add_device(command: Any) -> None:
    """Adds the option that chooses the kind of device."""
    command.add_argument(
        "--device", choices=("cpu", "gpu", "tpu"), help="compute on these devices only (default: those that JAX finds)"
    )


def add_resizing(command: Any) -> None:
    """Adds the options for the size and orientation of photos; `given_resizing` reads them."""
    command.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        metavar="NAME",
        help=f"{', '.join(INTERPOLATIONS)} (default: bilinear, or what the model was trained with)",
    )
    command.add_argument(
        "--antialias",
        action=argparse.BooleanOptionalAction,
        help="average pixels when a photo shrinks (default, or as in training); --no-antialias takes single pixels, as "
        "Keras's datasets do",
    )
    command.add_argument(
        "--orientation",
        action=argparse.BooleanOptionalAction,
        help="turn photos upright by their EXIF orientation (default, or as in training); Keras does not",
    )


def add_architecture(command: Any) -> None:
    """Adds the options that choose an architecture, without weights."""
    command.add_argument(
        "model",
        metavar="NAME|FILE.keras|DIR",
        help="a network of `flaxapps list`, a Keras model, or a folder of `flaxapps finetune`",
    )
    command.add_argument("--no-top", action="store_true", help="leave out the classifier")
    add_size(command, "--input-shape", "image size, in place of the default")


def add_size(command: Any, option: str, help: str) -> None:
    """Adds an option that takes a height and a width, in pixels."""
    command.add_argument(option, nargs=2, type=positive, metavar=("HEIGHT", "WIDTH"), help=help)


def at_least(least: int, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """Returns a function that parses a number.

    Args:
        least: The smallest number that it accepts.
        kind: `int` or `float`.
    """

    def parse(text: str) -> float:
        if not (number := kind(text)) >= least:  # nor is NaN
            raise argparse.ArgumentTypeError(f"should be at least {least}")
        return number

    parse.__name__ = "number"  # argparse says "invalid number value: 'x'"
    return parse


positive = at_least(1)


def add_distributed(command: Any) -> None:
    """Adds the options of a multi-process run."""
    group = command.add_argument_group("several processes", "Run the same command in each, on one or more machines.")
    group.add_argument("--distributed", action="store_true", help="take the settings of a TPU, Slurm or Open MPI job")
    group.add_argument("--coordinator", metavar="ADDRESS:PORT", help="address of process 0; give the two below with it")
    group.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")
