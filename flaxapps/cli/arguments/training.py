"""Options of `flaxapps finetune` for how it trains. A recipe may set them; None means that one is not given."""

import argparse
from typing import Any

from flaxapps.cli.arguments.choices import CLASS_WEIGHTS, OPTIMIZERS, SCHEDULES
from flaxapps.cli.finetune.settings import list_recipes

SWITCH = argparse.BooleanOptionalAction


def add_recipe(command: Any) -> None:
    """Adds the options that choose and print a recipe."""
    group = command.add_argument_group("recipe", "Options that you give override the recipe, for example --mixup 0.")
    group.add_argument(
        "--recipe", metavar="NAME", choices=list_recipes(), help=f"published settings: {', '.join(list_recipes())}"
    )
    group.add_argument("--print-recipe", action="store_true", help="print these settings and their source, and exit")


def add_training(command: Any) -> None:
    """Adds the options of the optimizer, the loss and the random changes of photos."""
    group = command.add_argument_group("optimizer")
    group.add_argument("--optimizer", choices=OPTIMIZERS, help="default: rmsprop for the head, then sgd (momentum 0.9)")
    group.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate, in each phase (default: constant)")
    group.add_argument(
        "--warmup",
        type=float,
        metavar="N",
        help="steps in which the rate grows from 0; a number below 1 is a share of all steps",
    )
    group.add_argument(
        "--decay-at",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="where --schedule staircase divides the rate by 10 (default: 0.3 0.6 0.9 of the steps)",
    )
    group.add_argument(
        "--weight-decay", type=float, metavar="X", help="decay of kernels; biases and normalization layers have none"
    )
    group.add_argument("--clip", type=float, metavar="NORM", help="largest norm of the gradients")
    group.add_argument(
        "--layer-decay",
        type=float,
        metavar="X",
        help="layer-wise rates: each twelfth of the layers has the rate of the next one, times this",
    )
    group.add_argument(
        "--ema", type=float, metavar="DECAY", help="keep and save a moving average of the parameters, such as 0.999"
    )

    group = command.add_argument_group("loss")
    group.add_argument(
        "--label-smoothing",
        type=float,
        metavar="SHARE",
        help="share of each label that is spread over all classes, such as 0.1",
    )
    group.add_argument("--class-weights", choices=CLASS_WEIGHTS, help="weight each class by how rare it is")

    group = command.add_argument_group("augmentation", "Random changes of photos in training.")
    group.add_argument("--flip", action=SWITCH, help="mirror half of the photos")
    group.add_argument(
        "--random-crop", type=float, metavar="SHARE", help="crop to a random box of at least this share of the photo"
    )
    group.add_argument(
        "--rotation", type=float, metavar="TURN", help="rotate by up to this share of a full turn, such as 0.1"
    )
    group.add_argument("--brightness", type=float, metavar="X", help="change the brightness by up to this share")
    group.add_argument("--contrast", type=float, metavar="X", help="change the contrast by up to this share")
    group.add_argument(
        "--randaugment", nargs=2, type=float, metavar=("N", "M"), help="N random operations of magnitude M, such as 2 9"
    )
    group.add_argument(
        "--random-erasing",
        type=float,
        metavar="SHARE",
        help="cover a random box with noise, in this share of the photos",
    )
    group.add_argument("--mixup", type=float, metavar="ALPHA", help="mix two photos and their labels, such as 0.2")
    group.add_argument("--cutmix", type=float, metavar="ALPHA", help="paste a box of another photo, such as 1.0")
