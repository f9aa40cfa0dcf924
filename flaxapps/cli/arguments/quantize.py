"""Arguments and help text of `flaxapps quantize`."""

from typing import Any

from flaxapps.cli.arguments.choices import CALIBRATIONS
from flaxapps.cli.arguments.shared import add_photos, add_weights

EXAMPLES = """examples:
  flaxapps quantize resnet50 photos/ --output resnet50_int8.npz
  flaxapps quantize mine/ photos/ --held-out other_photos/ --largest-change 0.05 --output mine_int8.npz
  flaxapps quantize xception photos/ --keep-float block6_sepconv3 --calibration minmax --output xception_int8.npz

Then:
  flaxapps predict more_photos/ --model resnet50_int8.npz

The photos should be like those you will predict; a few dozen are enough, without labels. Without --held-out, every
fourth photo is used for the report only.
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps quantize` to its parser."""
    command.add_argument(
        "model",
        metavar="NAME|FILE.keras|DIR",
        help="a network, a Keras model, or a folder of `flaxapps finetune`",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="photos to measure ranges on")
    command.add_argument("--output", required=True, metavar="FILE.npz", help="file to write")
    add_weights(command)
    command.add_argument("--held-out", nargs="+", metavar="IMAGE_OR_FOLDER", help="other photos, for the report")
    command.add_argument(
        "--calibration",
        choices=CALIBRATIONS,
        default="mse",
        help="mse: ranges with the smallest mean squared error; minmax: the full range of the values "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--keep-float", nargs="+", default=[], metavar="LAYER", help="layers to keep in float32; outer/inner if nested"
    )
    command.add_argument(
        "--largest-change",
        type=float,
        metavar="P",
        help="keep layers in float32 until no probability of a held-out photo changes by more, such as 0.05",
    )
    command.add_argument(
        "--agreement",
        type=float,
        metavar="SHARE",
        help="keep layers in float32 until this share of the held-out photos keeps its class, such as 0.99",
    )
    add_photos(command)
