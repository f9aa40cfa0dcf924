"""Settings of a training: given on the command line, by a recipe, or the default, in this order."""

import argparse
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

RATES = (1e-3, 1e-4)  # of RMSprop for the head and of SGD for the top, as Keras documents the two phases
# What a recipe may set. On the command line all of these are None unless they are given.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "head": 1024, "dropout": 0.0, "freeze_until": None, "freeze_batchnorm": False, "epochs": [5], "steps": None,
        "learning_rate": list(RATES), "batch_size": 32, "patience": 0,
        "optimizer": None, "schedule": "constant", "decay_at": [0.3, 0.6, 0.9], "warmup": 0.0, "weight_decay": 0.0,
        "layer_decay": 1.0, "clip": 0.0, "ema": 0.0, "label_smoothing": 0.0, "class_weights": None,
        "flip": False, "random_crop": 0.0, "brightness": 0.0, "contrast": 0.0, "rotation": 0.0, "randaugment": None,
        "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0,
    }
)  # fmt: skip # kept on few lines on purpose
FOLDER = files(__package__) / "recipes"


def list_recipes() -> list[str]:
    """Returns the names of the recipes."""
    return sorted(file.name.removesuffix(".json") for file in FOLDER.iterdir() if file.name.endswith(".json"))


def load_recipe(name: str) -> dict[str, Any]:
    """Reads a recipe: its source, a note, and the arguments it sets, of which some may depend on the number of photos.

    Args:
        name: A name of `list_recipes`.

    Raises:
        ValueError: There is no such recipe.
    """
    if name not in list_recipes():
        raise ValueError(f"There is no recipe {name!r}: give one of {', '.join(list_recipes())}")
    recipe: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return recipe


def complete(arguments: argparse.Namespace, count_photos: Callable[[argparse.Namespace], int]) -> None:
    """Sets the arguments that were not given: from the recipe, if there is one, or else to their defaults.

    Args:
        arguments: Parsed arguments, which are changed.
        count_photos: Returns the number of photos to train on; called only if the recipe depends on it.

    Raises:
        ValueError: There is no such recipe, or it depends on photos that cannot be read.
    """
    recipe = load_recipe(arguments.recipe) if arguments.recipe else {"arguments": {}}
    chosen = dict(recipe["arguments"])
    if recipe.get("by_photos"):
        chosen |= _of_size(recipe["by_photos"], count_photos(arguments))
    if arguments.epochs is not None:
        chosen.pop("steps", None)  # the explicit length wins over the other way to say it
    for name, default in DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, chosen.get(name, default))


def print_recipe(arguments: argparse.Namespace) -> None:
    """Prints the recipe as JSON, with what is given on the command line in place of what it says."""
    given = {name: value for name in DEFAULTS if (value := getattr(arguments, name)) is not None}
    recipe = load_recipe(arguments.recipe) if arguments.recipe else {"arguments": dict(DEFAULTS)}
    for part in (recipe, *recipe.get("by_photos", ())):
        part["arguments"] = {name: given.get(name, value) for name, value in part["arguments"].items()}
    recipe["arguments"] |= given
    print(json.dumps(recipe, indent=1))


def _of_size(sizes: list[dict[str, Any]], photos: int) -> dict[str, Any]:
    """Returns the arguments of the first entry that the number of photos is below."""
    return next(entry["arguments"] for entry in sizes if photos < entry.get("below", float("inf")))
