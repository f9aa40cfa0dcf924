"""Predictions as files: a table, CSV, JSON lines, or NumPy's .npz for outputs of any shape."""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.reports import name_predictions, write_predictions

FORMATS = ("csv", "jsonl", "npz", "table")


@dataclass(frozen=True)
class PredictedFile:
    """How predictions are written to a file, read, and joined.

    Attributes:
        form: One of FORMATS. "npz" holds `files`, the photos, and `outputs`, (photos, ...) float32.
        labels: Names of the classes; None for ImageNet's or numbers. Not for "npz".
        top: How many classes of each photo. Not for "npz".
    """

    form: str
    labels: Sequence[str] | None = None
    top: int = 5

    @property
    def is_binary(self) -> bool:
        """Whether it holds no text."""
        return self.form == "npz"

    def write(self, stream: IO[Any], files: Sequence[Path], outputs: NDArray[Any]) -> None:
        """Writes predictions.

        Args:
            stream: Where to.
            files: The photos.
            outputs: (photos, ...): scores of classes, apart from "npz".
        """
        if self.form == "npz":
            _write_npz(stream, list(map(str, files)), outputs.shape[1:], iter([outputs]))
        else:
            write_predictions(stream, self.form, files, name_predictions(outputs, self.labels, self.top))

    def files_in(self, path: Path) -> list[str]:
        """The photos in a written file, in order.

        Raises:
            ValueError: It is damaged.
        """
        try:
            if self.form == "npz":
                with path.open("rb") as contents, np.load(contents) as arrays:
                    files = [str(file) for file in arrays["files"]]
                    if len(arrays["outputs"]) != len(files):
                        raise ValueError(f"{len(arrays['outputs'])} outputs of {len(files)} photos")
                    return files
            with _open_text(path) as stream:
                if self.form == "jsonl":
                    return [json.loads(line)["file"] for line in stream]
                rows = csv.reader(stream)
                next(rows)
                return list(dict.fromkeys(row[0] for row in rows))
        except (ValueError, KeyError, IndexError, StopIteration, EOFError, csv.Error, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def join(self, stream: IO[Any], paths: Sequence[Path]) -> None:
        """Writes what several files hold as one.

        Args:
            stream: Where to.
            paths: The files, in the order wanted.
        """
        if self.form == "npz":
            self._join_npz(stream, paths)
            return
        if self.form == "csv":
            stream.write(max(map(_first_line, paths), key=len))  # a file of no photos does not know all columns
        for path in paths:
            with _open_text(path) as part:
                if self.form == "csv":
                    part.readline()
                shutil.copyfileobj(part, stream)

    def _join_npz(self, stream: IO[bytes], paths: Sequence[Path]) -> None:
        names = [name for path in paths for name in self.files_in(path)]

        def outputs() -> Iterator[NDArray[Any]]:
            for path in paths:
                with path.open("rb") as part, np.load(part) as arrays:
                    if len(arrays["files"]):
                        yield arrays["outputs"]

        shape = next((rows.shape[1:] for rows in outputs()), (0,))
        _write_npz(stream, names, shape, outputs())


def _open_text(path: Path) -> IO[str]:
    return io.TextIOWrapper(path.open("rb"), encoding="utf-8", errors="surrogateescape", newline="")


def _first_line(path: Path) -> str:
    with _open_text(path) as stream:
        return stream.readline()


def _write_npz(
    stream: IO[bytes], names: Sequence[str], shape: tuple[int, ...], outputs: Iterable[NDArray[Any]]
) -> None:
    """What numpy.savez writes, without having all outputs in memory together."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), *shape)}
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open("files.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.array(names, np.str_), allow_pickle=False)
        with archive.open("outputs.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(member, header)
            for rows in outputs:
                member.write(np.ascontiguousarray(rows, "<f4").data)
