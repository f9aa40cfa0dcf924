"""Class names: reading and writing files of them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flaxapps.runtime.files import as_path, replacing

FILE_NAME = "class_names.json"


def class_names_file(model: str | os.PathLike[str]) -> Path:
    """Returns the file of the class names of a saved model: in its folder, or beside its file.

    >>> class_names_file("out/best.keras").as_posix()
    'out/best.class_names.json'
    """
    path = as_path(model)
    return path / FILE_NAME if path.is_dir() else path.with_suffix(f".{FILE_NAME}")


def save_class_names(model: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """Writes class names in the order of the model's outputs, for `flaxapps predict --labels`.

    Args:
        model: The folder or file that the model is saved in.
        names: Names of the classes.

    Returns:
        The file.

    Raises:
        OSError: The file cannot be written.
    """
    path = class_names_file(model)
    with replacing(path) as stream:
        json.dump(list(names), stream, indent=1, ensure_ascii=False)
    return path


def load_class_names(model: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Reads the file of `save_class_names`.

    Args:
        model: The folder or file that the model is saved in.

    Returns:
        The names in the order of the model's outputs; None if there is no such file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a list of names.
    """
    path = class_names_file(model)
    return tuple(read_labels(path)) if path.exists() else None


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Reads class names in the order of a model's outputs.

    Args:
        path: A `.json` file with a list of names or an object of index to name; any other file has a name per line.

    Raises:
        ValueError: The file is not valid UTF-8 or JSON, or not a list of names.
    """
    try:
        text = as_path(path).read_bytes().decode("utf-8-sig")
        if as_path(path).suffix.lower() != ".json":
            return [line.strip() for line in text.rstrip().split("\n")]
        content = json.loads(text)
        if isinstance(content, Mapping):
            content = [content[str(index)] for index in range(len(content))]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a list of labels: {type(error).__name__}: {error}") from error
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ValueError(f"{path} should hold a list of names, or an object of index to name")
    return content
