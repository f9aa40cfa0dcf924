"""The options of `flaxapps predict`."""

from typing import Any

from flaxapps.options import add_model, add_reading, positive

EXAMPLES = """examples:
  flaxapps predict cat.jpg --model resnet50
  flaxapps predict photos/ more/dog.png --model xception --top 1 --format csv --output labels.csv
  flaxapps predict photos/ --model mine.keras --labels names.txt --preprocess tf --format jsonl
  flaxapps predict photos/ --model vgg16 --weights vgg16_finetuned.weights.h5
  flaxapps predict photos/ --model mine/           # a folder that flaxapps finetune wrote
  flaxapps predict photos/ --model resnet50 --layer avg_pool --format npz --output features.npz

Very many photos, by one process or several, which go on where they were after any interruption:
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/ --process-id 0 --num-processes 2 &
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/ --process-id 1 --num-processes 2 &
Each writes files of its own in out/parts/ and then does what the others have not; the last one joins all of them to
out/predictions.csv. The same command again, on any number of processes, does what is missing.

The exit code is 1 where a photo could not be read; the others are predicted all the same.
"""


def add_predict(command: Any) -> None:
    """Options of `flaxapps predict`."""
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="folders are searched at any depth")
    add_model(command)
    command.add_argument("--top", type=positive, default=5, metavar="N", help="classes for each photo (default: 5)")
    command.add_argument(
        "--format",
        choices=("table", "csv", "jsonl", "npz"),
        default="table",
        help="scores are the network's own output: probabilities, or logits where it has no softmax; npz has the "
        "arrays `files` and `outputs`, of any shape (default: table)",
    )
    command.add_argument("--layer", metavar="NAME", help="the output of this layer, in place of the last; for npz")
    command.add_argument(
        "--dtype", metavar="DTYPE", help="what to compute in, such as bfloat16 (default: the model's own)"
    )
    command.add_argument(
        "--draft",
        action="store_true",
        help="decode large JPEG files at reduced size, never below twice the model's: faster, and a few levels off; "
        "needs an --interpolation that averages",
    )
    command.add_argument(
        "--on-error", choices=("skip", "raise"), default="skip", help="at photos that cannot be read (default: skip)"
    )
    command.add_argument("--describe", action="store_true", help="also what a batch takes: operations and memory")
    add_reading(command, "nearest")
    group = command.add_argument_group("very many photos")
    group.add_argument("--output-folder", metavar="DIR", help="files in parts, made by any number of processes")
    group.add_argument("--part-size", type=positive, metavar="N", help="photos in a file (default: 32 to 1024)")
    group.add_argument("--no-join", action="store_true", help="leave the parts as they are")
    group.add_argument(
        "--distributed", action="store_true", help="TPU, Slurm or Open MPI say which process this is; for a TPU slice"
    )
    group.add_argument("--process-id", type=int, default=0, metavar="K", help="number of this process, from 0")
    group.add_argument("--num-processes", type=positive, default=1, metavar="N", help="how many there are (default: 1)")
