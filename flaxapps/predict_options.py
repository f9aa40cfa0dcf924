"""The options of `flaxapps predict`."""

from typing import Any

from flaxapps.options import add_model, add_reading, positive

EXAMPLES = """examples:
  flaxapps predict cat.jpg --model resnet50
  flaxapps predict photos/ more/dog.png --model xception --top 1 --format csv --output labels.csv
  flaxapps predict photos/ --model mine.keras --labels names.txt --preprocess tf --format jsonl
  flaxapps predict photos/ --model vgg16 --weights vgg16_finetuned.weights.h5
  flaxapps predict photos/ --model mine/           # a folder that flaxapps finetune wrote

The exit code is 1 where a photo could not be read; the others are predicted all the same.
"""


def add_predict(command: Any) -> None:
    """Options of `flaxapps predict`."""
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="folders are searched at any depth")
    add_model(command)
    command.add_argument("--top", type=positive, default=5, metavar="N", help="classes for each photo (default: 5)")
    command.add_argument(
        "--format",
        choices=("table", "csv", "jsonl"),
        default="table",
        help="scores are the network's own output: probabilities, or logits where it has no softmax (default: table)",
    )
    command.add_argument(
        "--dtype", metavar="DTYPE", help="what to compute in, such as bfloat16 (default: the model's own)"
    )
    command.add_argument(
        "--draft",
        action="store_true",
        help="decode large JPEG files at reduced size, never below twice the model's: faster, and a few levels off; "
        "needs an --interpolation that averages",
    )
    command.add_argument("--describe", action="store_true", help="also what a batch takes: operations and memory")
    add_reading(command, "nearest")
