"""Folders that hold the parts of a data set, `train/` and `val/`, as Kaggle and ImageNet have them."""

import os
from pathlib import Path
from typing import NamedTuple

from flaxapps.runtime.files import as_path

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "dev")
TEST = ("test", "testing")


class Parts(NamedTuple):
    """The parts of a data set in one folder; None for those that are not there."""

    training: Path
    validation: Path | None
    test: Path | None

    @property
    def names(self) -> str:
        """Names of the folders, for messages: "train, val and test"."""
        *first, last = [path.name for path in self if path is not None]
        return f"{', '.join(first)} and {last}" if first else last


def find_parts(folder: str | os.PathLike[str]) -> Parts | None:
    """Finds the parts of a data set: folders of such names, a training part among them, and no other folders.

    Args:
        folder: A folder that may hold parts, or classes.

    Returns:
        The parts; None if the folder holds something else, such as classes.
    """
    place = as_path(folder)
    if not place.is_dir():
        return None
    folders = {path.name.lower(): path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")}
    training, validation, test = (
        next((folders.pop(name) for name in names if name in folders), None) for names in (TRAINING, VALIDATION, TEST)
    )
    return None if training is None or folders else Parts(training, validation, test)
