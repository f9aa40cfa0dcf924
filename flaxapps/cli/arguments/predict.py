"""Arguments and help text of `flaxapps predict`."""

from typing import Any

from flaxapps.cli.arguments.shared import (
    FORMATS,
    add_format,
    add_layer,
    add_model,
    add_output,
    add_photos,
    add_softmax,
    positive,
)

EXAMPLES = """examples:
  flaxapps predict cat.jpg --model resnet50
  flaxapps predict photos/ more/dog.png --model xception --top 1 --format csv --output labels.csv
  flaxapps predict photos/ --model mine.keras --labels names.txt --preprocess tf --format jsonl
  flaxapps predict photos/ --model vgg16 --weights vgg16_finetuned.weights.h5
  flaxapps predict photos/ --model mine/           # a folder that flaxapps finetune wrote
  flaxapps predict photos/ --model resnet50 --layer avg_pool --format npz --output features.npz
  flaxapps predict photos/ --model logits.keras --softmax --preprocess tf --top 1
  flaxapps predict photos/ --model resnet50 --resize 256 --dtype bfloat16 --device gpu

Very many photos, with one process or several, resumable after any interruption:
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/ --process-id 0 --num-processes 2 &
  flaxapps predict photos/ --model resnet50 --format csv --output-folder out/ --process-id 1 --num-processes 2 &
Each process writes its own shards to out/shards/, then those that others have not written. The last one joins all
shards into out/predictions.csv. To resume, run the same command again, with any number of processes.

Photos that cannot be read are skipped, and make the exit code 1.
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps predict` to its parser."""
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="folders are searched recursively")
    add_model(command)
    command.add_argument("--top", type=positive, default=5, metavar="N", help="classes for each photo (default: 5)")
    add_format(
        command,
        FORMATS,
        "scores are the network's own output: probabilities, or logits without a softmax; npz has the arrays `files` "
        "and `outputs`, of any shape (default: table)",
    )
    add_layer(command)
    add_softmax(command)
    command.add_argument(
        "--draft",
        action="store_true",
        help="decode large JPEG files at reduced size, at least twice the model's: faster, but pixels differ by "
        "a few levels; needs an --interpolation that averages",
    )
    command.add_argument("--describe", action="store_true", help="also show operations and memory of one batch")
    add_output(command)
    add_photos(command)
    group = command.add_argument_group("very many photos")
    group.add_argument("--output-folder", metavar="DIR", help="write shards, with any number of processes")
    group.add_argument(
        "--shard-size", "--part-size", type=positive, metavar="N", help="photos in a shard (default: 32 to 1024)"
    )
    group.add_argument("--no-join", action="store_true", help="do not join the shards into one file")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="take the index and number of processes from a TPU, Slurm or Open MPI job",
    )
    group.add_argument("--process-id", type=int, default=0, metavar="K", help="index of this process, from 0")
    group.add_argument(
        "--num-processes", type=positive, default=1, metavar="N", help="number of processes (default: 1)"
    )
