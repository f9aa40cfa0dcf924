"""The command `finetune` of `flaxapps`: its arguments and what it says of itself."""

import argparse
import json
from typing import Any

from flaxapps.config import keep_compilations
from flaxapps.distributed import add_distributed, join_processes
from flaxapps.image import INTERPOLATIONS
from flaxapps.options import PREPROCESSING
from flaxapps.paths import as_path
from train.planning import ARGUMENTS_FILE, DEFAULT_RATES

DESCRIPTION = """Trains a network for classes of your own, in the two phases that Keras documents: first a new head on
the frozen network (RMSprop), then, with --freeze-until, the layers behind that one too (SGD with momentum 0.9)."""
EXAMPLES = """examples:
  flaxapps finetune flowers/ --model xception --output flowers_xception/
      flowers/ has a folder for each class; a fifth of the photos is kept for validation

  flaxapps finetune flowers/ --model inception_v3 --freeze-until mixed8 --epochs 10 20 --output mine/
      the top two inception blocks train as well; --freeze-until 249 says the same, by Keras's index

  flaxapps finetune train.csv --validation val.csv --model mine.keras --features block4_pool --head 0 --output mine2/
      from a Keras model of your own, on the features of one of its layers, without a hidden layer

  flaxapps finetune flowers/ --model resnet50 --epochs 0 10 --freeze-until 0 --flip --random-crop 0.7 --output all/
      the second phase alone, all layers, with augmentation

  flaxapps finetune --resume --output mine/
      goes on where a run was stopped, by Ctrl-C, SIGTERM or worse

what comes out, in --output:
  model.keras        the model: `flaxapps predict PHOTOS --model DIR`, `flaxapps evaluate DATA --model DIR`, Keras
  class_names.json   its classes in the order of its outputs; recipe.json: how it takes photos
  history.csv        loss and accuracy of every epoch; curves.png and confusion.png: pictures
  head/ top/         Orbax checkpoints of each phase; head.keras, top.keras: the model at its end
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps finetune` to its parser."""
    command.description = DESCRIPTION
    command.epilog = EXAMPLES
    command.add_argument(
        "data", nargs="?", metavar="DATA", help="a folder of class folders, or a CSV of path and label"
    )
    command.add_argument("--model", metavar="NAME|FILE.keras", help="a network of `flaxapps list`, or a Keras model")
    command.add_argument("--output", required=True, metavar="DIR", help="a folder for what comes out")
    command.add_argument("--resume", action="store_true", help="go on with the run in DIR, whose arguments are known")

    group = command.add_argument_group("network")
    group.add_argument("--weights", metavar="imagenet|none|FILE", help="default: imagenet, or those of the file")
    group.add_argument("--features", metavar="LAYER", help="what the head is put on (default: the last feature map)")
    group.add_argument("--head", type=int, default=1024, metavar="N", help="hidden layer, 0 for none (default: 1024)")
    group.add_argument("--dropout", type=float, default=0.0, metavar="SHARE", help="before the classes (default: 0)")
    group.add_argument("--image-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="default: the network's")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="to compute in; parameters stay float32")

    group = command.add_argument_group("training")
    group.add_argument("--freeze-until", metavar="LAYER|INDEX", help="adds the second phase; OUTER/INNER goes inside")
    group.add_argument("--epochs", nargs="+", type=int, default=[5], metavar="N", help="of each phase (default: 5)")
    group.add_argument(
        "--learning-rate", nargs="+", type=float, default=list(DEFAULT_RATES), metavar="X", help="default: 1e-3 1e-4"
    )
    group.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: %(default)s")
    group.add_argument("--patience", type=int, default=0, metavar="N", help="stop after N epochs that brought nothing")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    group.add_argument(
        "--cache-features",
        choices=("auto", "always", "no"),
        default="auto",
        help="compute the frozen layers once: auto in the first phase, always in both; never with augmentation",
    )
    group.add_argument(
        "--optimize-frozen",
        choices=("exact", "fast"),
        help="make frozen layers that are not computed once faster: as `flaxapps predict --exact`, or as without it",
    )
    group.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="as well as at the end of every epoch")
    group.add_argument("--tensorboard", action="store_true", help="write event files to DIR/tensorboard")

    group = command.add_argument_group("devices")
    group.add_argument("--mesh", type=mesh_sizes, metavar="data=N,model=M", help="M devices share large dense layers")
    group.add_argument(
        "--shard-optimizer", action="store_true", help="each device keeps a part of the optimizer's arrays"
    )
    group.add_argument("--describe", action="store_true", help="say what a step takes on each device, and end")
    add_distributed(command)

    group = command.add_argument_group("photos")
    group.add_argument("--validation", metavar="DATA", help="photos to validate on, in place of a split")
    group.add_argument("--validation-split", type=float, default=0.2, metavar="SHARE", help="default: %(default)s")
    group.add_argument("--interpolation", choices=INTERPOLATIONS, default="bilinear", help="default: bilinear")
    group.add_argument("--preprocess", choices=PREPROCESSING, default="auto")
    group.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="at photos that cannot be read")
    group.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes to decode with (default: threads)"
    )
    group.add_argument("--flip", action="store_true", help="augmentation: left to right, every second photo")
    group.add_argument("--random-crop", type=float, metavar="SHARE", help="augmentation: at least this much of a photo")
    group.add_argument("--brightness", type=float, metavar="X", help="augmentation: up to this share brighter, darker")
    group.add_argument("--contrast", type=float, metavar="X", help="augmentation: up to this share more or less")


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps finetune`.

    Raises:
        ValueError: DATA or --model is missing, or as `train.finetuning.finetune` says.
    """
    if arguments.resume:
        _take_over(arguments)
    missing = [name for name, value in (("DATA", arguments.data), ("--model", arguments.model)) if value is None]
    if missing:
        raise ValueError(f"finetune needs {' and '.join(missing)}")
    from train.finetuning import finetune

    join_processes(arguments, preemption=True)
    keep_compilations()
    return finetune(arguments)


def mesh_sizes(text: str) -> dict[str, int]:
    """Devices along each axis.

    >>> mesh_sizes("data=4,model=2")
    {'data': 4, 'model': 2}

    Raises:
        ValueError: It is no such text; argparse tells it.
    """
    return {name: int(size) for name, size in (part.split("=") for part in text.split(","))}


def _take_over(arguments: argparse.Namespace) -> None:
    """Fills arguments that were left at their defaults from the run that is resumed."""
    file = as_path(arguments.output) / ARGUMENTS_FILE
    if not file.is_file():
        return  # a run that was stopped before it began
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, value in json.loads(file.read_text(encoding="utf-8")).items():
        if getattr(arguments, name) == parser.get_default(name):
            setattr(arguments, name, value)
