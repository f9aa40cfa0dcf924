"""File formats of predictions: table, CSV, JSON lines, and NumPy's .npz for outputs of any shape."""

import csv
import io
import json
import math
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.applications.imagenet_utils import class_names, decode_predictions
from flaxapps.runtime.console import new_table, open_console


class Prediction(NamedTuple):
    """One class of one photo.

    Attributes:
        label: Name of the class.
        score: The network's own output for it: a probability if the network ends in a softmax.
        wordnet_id: Such as "n02124075"; None if the classes are not ImageNet's.
    """

    label: str
    score: float
    wordnet_id: str | None = None


def name_predictions(scores: NDArray[Any], labels: Sequence[str] | None, top: int) -> list[list[Prediction]]:
    """Names the best classes of each photo.

    Args:
        scores: One row per photo.
        labels: Names of the classes; None takes ImageNet's for 1000 classes, else class_0, class_1, ...
        top: Largest number of classes.

    Returns:
        A list for each photo, best first.
    """
    count = scores.shape[1]
    top = min(top, count)
    if labels is None and count == len(class_names()):
        decoded = decode_predictions(scores, top)
        return [[Prediction(label, _number(score), wnid) for wnid, label, score in row] for row in decoded]
    labels = labels or [f"class_{index}" for index in range(count)]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(labels[index], _number(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]


def _number(score: np.floating[Any]) -> float:
    return float(str(score))  # float() alone would print float32's 0.1 as 0.10000000149


def _write_table(stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> None:
    table = new_table()
    table.add_column("photo", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for file, best in zip(files, predictions, strict=True):
        for rank, prediction in enumerate(best):
            last = rank == len(best) - 1 and len(best) > 1
            style = None if rank else "bold"
            table.add_row(
                "" if rank else str(file), prediction.label, f"{prediction.score:.4f}", style=style, end_section=last
            )
    if files:
        open_console(stream).print(table)


def _write_csv(
    stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]], header: bool
) -> None:
    imagenet = any(prediction.wordnet_id for best in predictions for prediction in best)
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(["file", "rank", *(["wnid"] if imagenet else []), "label", "score"])
    for file, best in zip(files, predictions, strict=True):
        for rank, (label, score, wordnet_id) in enumerate(best, start=1):
            writer.writerow([file, rank, *([wordnet_id] if imagenet else []), label, score])


def _write_json(stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> None:
    stream.write(json.dumps(list(_json_entries(files, predictions)), indent=1) + "\n")


def _write_json_lines(stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> None:
    stream.writelines(json.dumps(entry) + "\n" for entry in _json_entries(files, predictions))


def _json_entries(files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> Iterator[dict[str, Any]]:
    for file, best in zip(files, predictions, strict=True):
        entries = []
        for label, score, wordnet_id in best:
            entry = {"label": label, "score": score if math.isfinite(score) else None}  # JSON has no NaN
            entries.append(entry | ({"wnid": wordnet_id} if wordnet_id else {}))
        yield {"file": str(file), "predictions": entries}


@dataclass(frozen=True)
class PredictedFile:
    """A file format, with methods to write files, to read them and to join them.

    Attributes:
        form: "table", "csv", "json", "jsonl" or "npz". The last holds `files`, the photos, and `outputs`, float32,
            (photos, ...).
        labels: Names of the classes; None takes ImageNet's or numbers. Not used by "npz".
        top: Number of classes for each photo. Not used by "npz".
    """

    form: str
    labels: Sequence[str] | None = None
    top: int = 5

    @property
    def is_binary(self) -> bool:
        """Whether the format is binary, not text."""
        return self.form == "npz"

    def write(self, stream: IO[Any], files: Sequence[Path], outputs: NDArray[Any], *, header: bool = True) -> None:
        """Writes predictions.

        Args:
            stream: Output.
            files: The photos.
            outputs: (photos, ...); scores of classes (photos, classes) except for "npz".
            header: Whether a CSV file begins here, with the names of its columns.
        """
        if self.form == "npz":
            _write_npz(stream, list(map(str, files)), outputs.shape[1:], iter([outputs]))
            return
        named = name_predictions(outputs, self.labels, self.top)
        if self.form == "csv":
            _write_csv(stream, files, named, header)
        else:
            {"table": _write_table, "json": _write_json, "jsonl": _write_json_lines}[self.form](stream, files, named)

    def files_in(self, path: Path) -> list[str]:
        """Returns the photos in a written file, in order.

        Raises:
            ValueError: The file is damaged.
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
        """Joins several files to one."""
        if self.form == "npz":
            self._join_npz(stream, paths)
            return
        if self.form == "csv":
            stream.write(max(map(_first_line, paths), key=len))  # without photos a header lacks the wnid column
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
    """Writes the format of numpy.savez, without holding all outputs in memory."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), *shape)}
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open("files.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.array(names, np.str_), allow_pickle=False)
        with archive.open("outputs.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(member, header)
            for rows in outputs:
                member.write(np.ascontiguousarray(rows, "<f4").data)
