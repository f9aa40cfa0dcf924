"""Images listed in a CSV file with their classes."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flaxapps.paths import as_path, local_file, path_in
from train.images import ImageDataset, image_options, in_threads
from train.splits import split_indices

COLUMNS = ("path", "label")
PROBLEMS_SHOWN = 10


class _Row(NamedTuple):
    line: int
    file: str
    label: str


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
) -> ImageDataset:
    """Labelled images from a CSV file.

    Args:
        path: The file: a row per image with its path, relative to the CSV's folder or absolute, and its label. With a
            header the columns "path" and "label" are taken, wherever they are; without one there are just these two.
        image_size: (height, width) in pixels; one number for both.
        class_names: Labels of the file, in the order of the class indices. None sorts them, as numbers where all are.
        validation_split: Share of the images to set aside, between 0 and 1.
        subset: Which part of a split to read, "training" or "validation".
        seed: Of the split.
        label_mode: "int", or "categorical" for one-hot labels.
        color_mode: "rgb", "grayscale" or "rgba".
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos", those of Pillow.
        on_error: "raise" an error that names the images that cannot be read, or "skip" and count them.
        workers: Processes that decode; 0 decodes in threads.

    Returns:
        A `Dataset` of images, uint8 (grey ones float32), and their labels; decoded when they are read.

    Raises:
        OSError: The CSV is not there, or cannot be read.
        ValueError: Rows are incomplete, name files that are not there (unless they are to be skipped), give one file
            two labels, or a label that `class_names` lacks; all are told, with their lines. Or there is one class
            only, or an argument is out of range.
    """
    options = image_options(
        image_size,
        label_mode=label_mode,
        color_mode=color_mode,
        interpolation=interpolation,
        on_error=on_error,
        workers=workers,
    )
    table = as_path(path)
    rows = _read_rows(table)
    names = _sorted_labels(rows) if class_names is None else list(class_names)
    _check_rows(table, rows, names, missing_too=on_error == "raise")
    if len(names) == 1 and class_names is None:
        raise ValueError(f"{table} has one class only, {names[0]!r}: a classifier needs two")
    index_of = {name: index for index, name in enumerate(names)}
    chosen = split_indices(len(rows), validation_split, subset, seed)
    labels = np.array([index_of[rows[index].label] for index in chosen], np.int32)
    return ImageDataset(table.parent, [rows[index].file for index in chosen], labels, names, options)


def _read_rows(table: Path) -> list[_Row]:
    try:
        with open(local_file(table), encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is no CSV file in UTF-8: {error}") from error
    header = [cell.lower() for cell in lines[0][1]] if lines else []
    columns = [0, 1]
    if set(COLUMNS) <= set(header):
        columns = [header.index(name) for name in COLUMNS]
        lines = lines[1:]
    elif lines and len(header) != 2:
        raise ValueError(
            f"{table} should begin with a header that has the columns path and label, or hold just these two; "
            f"its first line is {','.join(lines[0][1])!r}"
        )
    if not lines:
        raise ValueError(f"{table} lists no images")
    short = [
        f"line {line}" for line, cells in lines if len(cells) <= max(columns) or not all(cells[i] for i in columns)
    ]
    if short:
        raise ValueError(f"{table} has rows without a path or a label: {_shown(short)}")
    return [_Row(line, cells[columns[0]], cells[columns[1]]) for line, cells in lines]


def _sorted_labels(rows: list[_Row]) -> list[str]:
    labels = {row.label for row in rows}
    return (
        sorted(labels, key=lambda label: (int(label), label))
        if all(label.isdecimal() for label in labels)
        else sorted(labels)
    )


def _check_rows(table: Path, rows: list[_Row], names: list[str], missing_too: bool) -> None:
    first: dict[str, _Row] = {}
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
        problems.append(f"class_names has a name twice: {names}")
    if problems:
        raise ValueError(f"{table}: {_shown(problems)}")


def _missing(folder: Path, rows: list[_Row]) -> list[str]:
    paths = [path_in(folder, row.file) for row in rows]
    there = in_threads(lambda index: as_path(paths[index]).exists(), len(rows))
    return [
        f"line {row.line}: there is no file {path}"
        for row, path, found in zip(rows, paths, there, strict=True)
        if not found
    ]


def _shown(problems: list[str]) -> str:
    more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
    return "; ".join(problems[:PROBLEMS_SHOWN] + more)
