"""Pictures are written whole for every shape of history and matrix; colours show what they should."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxapps.train.figures import TRAINING, VALIDATION, write_confusion, write_curves, write_mistakes


def colours(path: Path) -> set[str]:
    with Image.open(path) as picture:
        found = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in found}


def test_curves_of_training_and_validation(tmp_path: Path):
    history = {"loss": [2.0, 1.0], "accuracy": [0.5, 0.75]}
    write_curves({"head": history}, tmp_path / "one.png")
    assert TRAINING in colours(tmp_path / "one.png")
    assert VALIDATION not in colours(tmp_path / "one.png")
    both = history | {"val_loss": [2.0, 1.5], "val_accuracy": [0.5, 0.6]}
    write_curves({"head": both, "top": both, "no epoch": {}}, tmp_path / "two.png")
    assert {TRAINING, VALIDATION} <= colours(tmp_path / "two.png")


@pytest.mark.parametrize("classes", [2, 21, 61])
def test_confusion_of_few_and_many_classes(classes: int, tmp_path: Path):
    names = [f"a class with a rather long name, number {number}" for number in range(classes)]
    matrix = np.eye(classes, dtype=np.int64)
    matrix[0] = 0  # a class without examples
    write_confusion(matrix, names, tmp_path / "matrix.png", "Validation")
    with Image.open(tmp_path / "matrix.png") as picture:
        picture.load()
        assert 400 < picture.width < 2500
    assert "#08306b" in colours(tmp_path / "matrix.png")  # the end of the scale: all of a class


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        write_curves({"head": {"loss": [1.0]}}, tmp_path / "nowhere" / "curves.png")


@pytest.mark.parametrize(("count", "channels"), [(1, 3), (8, 1)])
def test_a_sheet_of_photos(count: int, channels: int, tmp_path: Path):
    photos = [np.full((9, 10, channels), 200 if channels == 1 else [40, 60, 200], np.uint8)] * count
    write_mistakes(photos, [f"{number}.png\ncat, 90%\nis dog" for number in range(count)], tmp_path / "sheet.png", "x")
    assert ("#c8c8c8" if channels == 1 else "#283cc8") in colours(tmp_path / "sheet.png")
