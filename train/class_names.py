"""The names of a model's classes, kept beside the model."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from flaxapps.paths import as_path
from flaxapps.reports import read_labels, replacing

FILE_NAME = "class_names.json"


def class_names_file(model: str | os.PathLike[str]) -> Path:
    """Where the class names of a saved model are: in its folder, or beside its file.

    >>> class_names_file("out/best.keras").as_posix()
    'out/best.class_names.json'
    """
    path = as_path(model)
    return path / FILE_NAME if path.is_dir() else path.with_suffix(f".{FILE_NAME}")


def save_class_names(model: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """Writes the names in the order of the model's outputs; `flaxapps predict --labels` takes the file.

    Args:
        model: The folder or file that the model is saved in.
        names: Of the classes.

    Returns:
        The file.

    Raises:
        OSError: It cannot be written.
    """
    path = class_names_file(model)
    with replacing(path) as stream:
        json.dump(list(names), stream, indent=1, ensure_ascii=False)
    return path


def load_class_names(model: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Reads what `save_class_names` wrote.

    Args:
        model: Path of the model's file.

    Returns:
        The names in the order of the model's outputs; None where nothing was written.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no list of names.
    """
    path = class_names_file(model)
    return tuple(read_labels(path)) if path.exists() else None
