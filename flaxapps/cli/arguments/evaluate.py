"""Arguments and help text of `flaxapps evaluate`."""

from typing import Any

from flaxapps.cli.arguments.shared import FORMATS, add_distributed, add_format, add_model, add_output, add_photos

EXAMPLES = """examples:
  flaxapps evaluate photos_by_class/ --model mine/           # a folder that flaxapps finetune wrote
  flaxapps evaluate table.csv --model mine.keras --labels names.txt --preprocess tf --format csv --output by_class.csv

To reproduce the published accuracies on ImageNet (folders are matched by their wnids, n01440764 and so on):
  flaxapps evaluate ILSVRC2012_val/ --model resnet50 --resize 256
  flaxapps evaluate ILSVRC2012_img_val/ --truth devkit/data/ILSVRC2012_validation_ground_truth.txt \\
      --model inception_v3 --resize 342

DATA is a folder with a folder for each class, a CSV file with the columns path and label, or, with --truth, a folder
of photos. Photos that cannot be read are skipped, and make the exit code 1. With two labels, the
network may have a single output, which is the probability of the second label. Photos in a table may have several
labels, "cat;dog" or a row for each. If the network ends in a sigmoid, each label is then counted by itself.
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps evaluate` to its parser."""
    command.add_argument("data", metavar="DATA", help="labelled photos, see below")
    add_model(command)
    command.add_argument(
        "--truth",
        metavar="FILE",
        help="labels of a folder of photos: a CSV file such as Kaggle's LOC_val_solution.csv, lines of NAME LABEL, or "
        "one label per line, such as the ground truth of ILSVRC2012's development kit with its meta.mat beside it",
    )
    add_format(
        command,
        FORMATS,
        "csv and jsonl have a line for each class; json and npz have everything (default: table, worst classes first)",
    )
    add_output(command)
    add_photos(command)
    add_distributed(command)
