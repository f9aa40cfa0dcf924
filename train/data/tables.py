"""Labelled images listed in a CSV file."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flaxapps.photos.tables import Row, read_rows
from flaxapps.runtime.console import listed
from flaxapps.runtime.files import as_path, path_in
from flaxapps.train.data.image_files import ImageDataset, image_options, in_threads
from flaxapps.train.data.splits import split_indices


def image_table(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | int,
    class_names: Sequence[str] | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int = 0,
    label_mode: str = "int",
    color_mode: str = "rgb",
    interpolation: str = "bilinear",
    on_error: str = "raise",
    workers: int = 0,
    antialias: bool = True,
    orientation: bool = True,
    crop_to_aspect_ratio: bool = False,
) -> ImageDataset:
    """Reads labelled images listed in a CSV file.

    Args:
        path: The CSV file, with a row per image: its path, absolute or relative to the CSV's folder, and its label.
            With a header, the columns "path" (or file, filename, image) and "label" (or class) are read; without one,
            there must be just these two.
        image_size: (height, width) in pixels; one number for both.
        class_names: Labels of the file, in the order of the class indices. None sorts them, numerically if all are
            numbers.
        validation_split: Fraction of the images to hold out, between 0 and 1. A photo in several rows (oversampling)
            is on one side with all of them.
        subset: Subset of the split to read, "training" or "validation".
        seed: Seed of the split.
        label_mode: "int", or "categorical" for one-hot labels.
        color_mode: "rgb", "grayscale" or "rgba".
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        on_error: "raise" an error that names the unreadable images, or "skip" them with a warning.
        workers: Decoding processes; 0 decodes in threads.
        antialias: Whether images that shrink are averaged, by Pillow, as in torchvision and timm. False takes the
            pixels of Keras's `image_dataset_from_directory`, in float32.
        orientation: Whether images are turned upright by their EXIF orientation. Keras does not.
        crop_to_aspect_ratio: Whether to crop the largest centred box of the target's proportions before resizing, as in
            Keras. Otherwise proportions are not kept.

    Returns:
        A `Dataset` of images, uint8 (float32 for greyscale, and without antialias), and their labels, decoded when they
        are read.

    Raises:
        OSError: The CSV file does not exist or cannot be read.
        ValueError: Rows are incomplete, name missing files (unless these are skipped), give one file two labels, or a
            label that is not in `class_names`; all such lines are listed. Or there is only one class, or an argument is
            out of range.
    """
    options = image_options(
        image_size,
        label_mode=label_mode,
        color_mode=color_mode,
        interpolation=interpolation,
        on_error=on_error,
        workers=workers,
        antialias=antialias,
        orientation=orientation,
        crop_to_aspect_ratio=crop_to_aspect_ratio,
    )
    table = as_path(path)
    rows = read_rows(table)
    names = _sorted_labels(rows) if class_names is None else list(class_names)
    _check_rows(table, rows, names, missing_too=on_error == "raise")
    if len(names) == 1 and class_names is None:
        raise ValueError(f"{table} has one class only, {names[0]!r}: a classifier needs two")
    index_of = {name: index for index, name in enumerate(names)}
    chosen = _split_by_photo([row.file for row in rows], validation_split, subset, seed)
    labels = np.array([index_of[rows[index].label] for index in chosen], np.int32)
    return ImageDataset(table.parent, [rows[index].file for index in chosen], labels, names, options)


def _split_by_photo(
    files: list[str], validation_split: float | None, subset: str | None, seed: int
) -> NDArray[np.int64]:
    """As `split_indices`; all rows of a photo go to one side, where it counts once."""
    names = [os.path.normpath(file) for file in files]
    place = {name: index for index, name in enumerate(dict.fromkeys(names))}
    chosen = np.isin([place[name] for name in names], split_indices(len(place), validation_split, subset, seed))
    return np.flatnonzero(chosen)


def _sorted_labels(rows: list[Row]) -> list[str]:
    labels = {row.label for row in rows}
    return (
        sorted(labels, key=lambda label: (int(label), label))
        if all(label.isdecimal() for label in labels)
        else sorted(labels)
    )


def _check_rows(table: Path, rows: list[Row], names: list[str], missing_too: bool) -> None:
    first: dict[str, Row] = {}
    known, problems = set(names), []
    for row in rows:
        earlier = first.setdefault(row.file, row)
        if row.label not in known:
            problems.append(f"line {row.line}: {row.label!r} is not among the class_names")
        if earlier.label != row.label:
            problems.append(
                f"line {row.line}: {row.file} is {row.label!r} here, {earlier.label!r} in line {earlier.line}"
            )
    if missing_too:
        problems += _missing(table.parent, list(first.values()))
    if len(known) < len(names):
        problems.append(f"class_names should be distinct, got {names}")
    if problems:
        raise ValueError(f"{table}: {listed(problems, '; ')}")


def _missing(folder: Path, rows: list[Row]) -> list[str]:
    paths = [path_in(folder, row.file) for row in rows]
    there = in_threads(lambda index: as_path(paths[index]).exists(), len(rows))
    return [
        f"line {row.line}: there is no file {path}"
        for row, path, found in zip(rows, paths, there, strict=True)
        if not found
    ]
