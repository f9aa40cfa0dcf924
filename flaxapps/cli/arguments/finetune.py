"""Arguments and help text of `flaxapps finetune`."""

from typing import Any

from flaxapps.cli.arguments.choices import MODES
from flaxapps.cli.arguments.shared import add_distributed, add_on_error, add_preprocess, add_resizing
from flaxapps.cli.arguments.training import SWITCH, add_recipe, add_training

DESCRIPTION = """Fine-tunes a network on your own classes, in the two phases that Keras documents: first a new head on
the frozen network (RMSprop), then, with --freeze-until, also the layers after that one (SGD with momentum 0.9)."""
EXAMPLES = """examples:
  flaxapps finetune flowers/ --model xception --output flowers_xception/
      flowers/ has a folder for each class; a fifth of the photos is held out for validation

  flaxapps finetune flowers/ --model inception_v3 --freeze-until mixed8 --epochs 10 20 --output mine/
      the top two inception blocks train as well; --freeze-until 249 means the same, by Keras's index

  flaxapps finetune train.csv --validation val.csv --model mine.keras --features block4_pool --head 0 --output mine2/
      from a Keras model of your own, on the features of one of its layers, without a hidden layer

  flaxapps finetune flowers/ --model resnet50 --epochs 0 10 --freeze-until 0 --flip --random-crop 0.7 --output all/
      only the second phase, on all layers, with augmentation

  flaxapps finetune pets/ --model resnet50 --output pets_resnet50/
      pets/ has train/ and val/ (or valid/, validation/), as Kaggle and ImageNet have them

  flaxapps finetune flowers/ --model convnext_tiny --recipe convnext --batch-size 32 --ema 0.999 --output mine3/
      a published recipe, with a smaller batch and an average of the parameters; --print-recipe shows it

  flaxapps finetune flowers/ --model resnet50 --find-rate --output mine4/
      a range test: the loss over the learning rate in mine4/rates.png, and the rate it suggests

  flaxapps finetune --resume --output mine/
      resumes a run that was interrupted or killed

files in --output:
  best.keras         the model of the epoch with the smallest validation loss, for Keras and
                     `flaxapps predict PHOTOS --model DIR`, `flaxapps evaluate DATA --model DIR`
  last.keras         the model of the last epoch, which is the only one without validation photos
  class_names.json   its classes in the order of its outputs; recipe.json: its preprocessing
  history.csv        loss and accuracy of every epoch; curves.png and confusion.png: pictures
  mistakes.png       the misclassified photos of which the model was most certain
  arguments.json     all settings, with those of the recipe
  head/ top/         Orbax checkpoints of each phase, until the run is finished
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps finetune` to its parser."""
    command.description = DESCRIPTION
    command.add_argument(
        "data", nargs="?", metavar="DATA", help="a folder of class folders, or a CSV of path and label"
    )
    command.add_argument(
        "--model",
        metavar="NAME|FILE.keras",
        help="a network of `flaxapps list`, or the file of a Keras model",
    )
    command.add_argument("--output", metavar="DIR", help="a folder for the results")
    command.add_argument("--resume", action="store_true", help="resume the run in DIR, with its arguments")
    command.add_argument("--overwrite", action="store_true", help="delete what an earlier run wrote to DIR, and start")

    group = command.add_argument_group("network")
    group.add_argument(
        "--weights",
        metavar="imagenet|none|FILE",
        help="weights to start from (default: imagenet, or those of the file)",
    )
    group.add_argument("--features", metavar="LAYER", help="layer to put the head on (default: the last feature map)")
    group.add_argument("--head", type=int, metavar="N", help="hidden units, 0 for no hidden layer (default: 1024)")
    group.add_argument("--dropout", type=float, metavar="SHARE", help="before the last layer (default: 0)")
    group.add_argument(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the photos (default: the network's)",
    )
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="compute dtype; parameters stay float32")

    add_recipe(command)
    group = command.add_argument_group("training")
    group.add_argument(
        "--freeze-until",
        metavar="LAYER|INDEX",
        help="add a second phase, which trains the layers after this one; OUTER/INNER in a nested model",
    )
    group.add_argument(
        "--freeze-as-saved",
        action="store_true",
        help="add a second phase, which freezes the layers that are frozen in the model file",
    )
    group.add_argument("--freeze-batchnorm", action=SWITCH, help="keep BatchNormalization frozen in the second phase")
    group.add_argument("--epochs", nargs="+", type=int, metavar="N", help="epochs of each phase (default: 5)")
    group.add_argument(
        "--steps", type=int, metavar="N", help="steps of the last phase in place of epochs, rounded up to whole epochs"
    )
    group.add_argument(
        "--learning-rate", nargs="+", type=float, metavar="X", help="largest rate of each phase (default: 1e-3 1e-4)"
    )
    group.add_argument(
        "--find-rate", action="store_true", help="test learning rates on the first phase, plot the loss, and exit"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="photos in a step (default: 32)")
    group.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without improvement, such as 10")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers (default: %(default)s)")
    group.add_argument(
        "--cache-features",
        choices=("auto", "always", "no"),
        default="auto",
        help="compute the frozen layers once, not in every epoch: auto does so in the first phase, always in both; "
        "impossible with augmentation",
    )
    group.add_argument(
        "--optimize-frozen",
        choices=MODES,
        help="speed up frozen layers whose features are not cached, as `flaxapps predict --optimize` does",
    )
    group.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="also save a checkpoint every N steps, not only after an epoch",
    )
    group.add_argument(
        "--keep-checkpoints", action="store_true", help="keep the checkpoints and models of each phase at the end"
    )
    group.add_argument("--tensorboard", action="store_true", help="write event files to DIR/tensorboard")

    group = command.add_argument_group("devices")
    group.add_argument(
        "--mesh", type=mesh_sizes, metavar="data=N,model=M", help="shard large dense layers over M devices"
    )
    group.add_argument("--shard-optimizer", action="store_true", help="shard the optimizer's arrays over the N devices")
    group.add_argument(
        "--describe", action="store_true", help="print the memory and operations of a step on each device, and exit"
    )
    add_distributed(command)

    group = command.add_argument_group("photos")
    group.add_argument("--validation", metavar="DATA", help="photos to validate on, in place of a split")
    group.add_argument(
        "--validation-split",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share to validate on (default: %(default)s)",
    )
    add_resizing(group)
    add_preprocess(group, "auto")
    add_on_error(group)
    group.add_argument("--workers", type=int, default=0, metavar="N", help="decoding processes (default: threads)")
    add_training(command)


def mesh_sizes(text: str) -> dict[str, int]:
    """Parses the number of devices along each axis.

    >>> mesh_sizes("data=4,model=2")
    {'data': 4, 'model': 2}

    Raises:
        ValueError: The text is not of the form "data=4,model=2"; argparse reports it.
    """
    return {name: int(size) for name, size in (part.split("=") for part in text.split(","))}
