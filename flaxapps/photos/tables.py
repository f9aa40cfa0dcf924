"""CSV files of labelled photos: a row per photo, with its path and its label."""

import csv
import os
from typing import NamedTuple

from flaxapps.runtime.console import listed
from flaxapps.runtime.files import as_path, local_file

PATH_COLUMNS = ("path", "file", "filename", "image", "imageid")
LABEL_COLUMNS = ("label", "class", "wnid", "predictionstring")


class Row(NamedTuple):
    """A photo in a table.

    Attributes:
        line: Number of its line, from 1.
        file: Its path, as the table gives it.
        label: Its label.
    """

    line: int
    file: str
    label: str


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Reads a table; from Kaggle's bounding boxes (PredictionString), the class of the first.

    Args:
        path: The CSV file, in UTF-8. With a header, a column of `PATH_COLUMNS` and one of `LABEL_COLUMNS` are read, in
            any case; without one there must be just two columns.

    Raises:
        OSError: The file does not exist or cannot be read.
        ValueError: The file is no such table, or rows lack a path or a label; all such lines are named.
    """
    table = as_path(path)
    try:
        with open(local_file(table), encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a CSV file in UTF-8: {error}") from error
    header = [cell.lower() for cell in lines[0][1]] if lines else []
    file = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    label = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    if file is not None and label is not None:
        lines = lines[1:]
    elif lines and len(header) != 2:
        raise ValueError(
            f"{table} should hold just two columns, path and label, or begin with column names, one of "
            f"{', '.join(PATH_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}; "
            f"its first line is {','.join(lines[0][1])!r}"
        )
    else:
        file, label = 0, 1
    if not lines:
        raise ValueError(f"{table} lists no photos")
    wanted = max(file, label)
    short = [f"line {line}" for line, cells in lines if len(cells) <= wanted or not (cells[file] and cells[label])]
    if short:
        raise ValueError(f"{table} has rows without a path or a label: {listed(short, '; ')}")
    boxes = header[label] == "predictionstring"
    return [Row(line, cells[file], cells[label].split()[0] if boxes else cells[label]) for line, cells in lines]
