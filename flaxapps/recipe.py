"""What a folder of `flaxapps finetune` says of its model beside the weights: classes, preprocessing, resizing."""

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from flaxapps.paths import as_path
from flaxapps.reports import read_labels, replacing

MODEL_FILE = "model.keras"
RECIPE_FILE = "recipe.json"
CLASS_NAMES_FILE = "class_names.json"


class Recipe(NamedTuple):
    """How photos become predictions of a model.

    Attributes:
        model: A network or a file, as --model takes them.
        class_names: Names of the outputs, in their order; None where nobody knows.
        preprocess: "caffe", "tf", "torch" or "none"; "auto" asks the model.
        interpolation: Of the photos when they are resized; None where nobody knows.
    """

    model: str
    class_names: Sequence[str] | None = None
    preprocess: str = "auto"
    interpolation: str | None = None


def read_recipe(model: str | os.PathLike[str]) -> Recipe:
    """The recipe in a folder that `flaxapps finetune` wrote; of anything else just its name.

    Raises:
        ValueError: A folder has no recipe, or one that cannot be understood.
    """
    folder = as_path(model)
    if not folder.is_dir():
        return Recipe(os.fspath(model))
    file = folder / RECIPE_FILE
    if not file.exists():
        raise ValueError(f"{folder} is no folder of a finished `flaxapps finetune`: it has no {RECIPE_FILE}")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        preprocess, interpolation = entries["preprocess"], entries["interpolation"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no recipe: {type(error).__name__}: {error}") from error
    return Recipe(str(folder / MODEL_FILE), read_labels(folder / CLASS_NAMES_FILE), preprocess, interpolation)


def write_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Writes the recipe of the model in `folder`: its class names, and the rest of it last."""
    with replacing(as_path(folder) / CLASS_NAMES_FILE) as stream:
        stream.write(json.dumps(list(recipe.class_names or ()), indent=1, ensure_ascii=False) + "\n")
    with replacing(as_path(folder) / RECIPE_FILE) as stream:
        entries = {"preprocess": recipe.preprocess, "interpolation": recipe.interpolation}
        stream.write(json.dumps(entries, indent=1) + "\n")
