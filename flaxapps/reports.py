"""What the command line prints: tables, and predictions as a table, CSV or JSON lines."""

import csv
import io
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from flaxapps.decoding import class_names, decode_predictions
from flaxapps.distributed import is_first
from flaxapps.paths import as_path, in_bucket
from weight_port import WeightError

if TYPE_CHECKING:
    from flaxapps.compilation import Costs

ENTRIES_SHOWN = 10  # of each list in an error about weights
WIDTH_OF_FILES = 140  # columns; a file or a pipe has no width of its own


class Prediction(NamedTuple):
    """One class of one photo.

    Attributes:
        label: Name of the class.
        score: The network's own output for it: a probability where it ends in softmax.
        wordnet_id: Such as "n02124075"; None for classes that are not ImageNet's.
    """

    label: str
    score: float
    wordnet_id: str | None = None


def open_console(stream: IO[str] | None = None) -> Console:
    """A rich console that prints text as it is, on `stream` or else on stdout; of several processes the first."""
    stream = stream or sys.stdout
    # Without a width rich takes a pipe for a terminal of 80 columns.
    width = None if stream.isatty() else WIDTH_OF_FILES
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False, quiet=not is_first())


def open_progress() -> Progress:
    """A progress bar on stderr, which shows only where that is a terminal; lines for stderr go to its console."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    return Progress(console=console, transient=True, disable=not (sys.stderr.isatty() and is_first()))


def new_table(caption: str | None = None) -> Table:
    """An empty table in the style of all the tables here."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that comes into being, or replaces another, when the context ends without an exception.

    Args:
        path: The file. Devices and pipes are written directly.
        mode: "w" for UTF-8 text or "wb" for bytes.

    Raises:
        OSError: The file cannot be written; known on entering.
        ImportError: The path is in a bucket, and what that needs is not there.
    """
    if in_bucket(path):
        with _into_bucket(as_path(path), mode) as stream:
            yield stream
        return
    target = Path(path).resolve()  # what a link points to is replaced, not the link
    options = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    direct = target.exists() and not target.is_file()
    # Processes in containers, or on several machines with one disk, may have the same number: it has to be random.
    written = target if direct else target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(written, mode, **options) as stream:  # type: ignore[call-overload]  # of a mode that varies
            yield stream
            if not direct:  # or a loss of power could leave a file of this name without its contents
                stream.flush()
                os.fsync(stream.fileno())
        if not direct:
            os.replace(written, target)
    finally:
        if not direct:
            written.unlink(missing_ok=True)


@contextmanager
def _into_bucket(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Collects what is written, and sends it at the end: an object of a bucket is there as a whole or not at all."""
    with tempfile.TemporaryFile() as collected:
        if "b" in mode:
            yield collected
        else:
            text = io.TextIOWrapper(collected, encoding="utf-8", errors="surrogateescape", newline="")
            yield text
            text.flush()
            text.detach()
        collected.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(collected, target)


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Reads class names in the order of a model's outputs.

    Args:
        path: A `.json` file with a list of names or an object of index to name; any other file has a name per line.

    Raises:
        ValueError: It is no such file.
    """
    try:
        text = as_path(path).read_bytes().decode("utf-8-sig")
        if as_path(path).suffix.lower() != ".json":
            return [line.strip() for line in text.rstrip().split("\n")]
        content = json.loads(text)
        if isinstance(content, Mapping):
            content = [content[str(index)] for index in range(len(content))]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no list of labels: {type(error).__name__}: {error}") from error
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ValueError(f"{path} should hold a list of names, or an object of index to name")
    return content


def name_predictions(scores: NDArray[Any], labels: Sequence[str] | None, top: int) -> list[list[Prediction]]:
    """Names the best classes of each photo.

    Args:
        scores: One row per photo.
        labels: Names of the classes; None for ImageNet's where there are 1000, else class_0, class_1, ...
        top: How many classes at most.

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


def write_predictions(
    stream: IO[str], form: str, files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]
) -> None:
    """Writes predictions.

    Args:
        stream: Where to.
        form: "table", "csv" (a line for each class) or "jsonl" (an object for each photo).
        files: The photos.
        predictions: The classes of each.
    """
    {"table": _write_table, "csv": _write_csv, "jsonl": _write_json_lines}[form](stream, files, predictions)


def write_costs(stream: IO[str], costs: "Costs", batch_size: int) -> None:
    """Writes what a batch takes, as a table."""
    table = new_table(caption="as XLA estimates it for the default device")
    table.add_column(f"a batch of {batch_size}")
    table.add_column("", justify="right")
    table.add_row("operations", f"{costs.flops / 1e9:.3g} GFLOP")
    sizes = {
        "weights": costs.weight_bytes,
        "images": costs.input_bytes,
        "outputs": costs.output_bytes,
        "intermediate values": costs.temporary_bytes,
        "program": costs.code_bytes,
        "memory of the device": costs.device_bytes,
    }
    for name, size in sizes.items():
        if size:
            table.add_row(name, f"{size / 1e6:.3g} MB")
    open_console(stream).print(table)


def describe_error(error: Exception) -> str:
    """One line on an error; a few more on weights that do not fit."""
    if isinstance(error, WeightError):
        lines = [error.message]
        for heading in ("missing", "unexpected", "misshapen"):
            entries = getattr(error, heading)
            lines += [f"{heading} ({len(entries)}):"] if entries else []
            lines += [f"  {entry}" for entry in entries[:ENTRIES_SHOWN]]
            lines += [f"  and {len(entries) - ENTRIES_SHOWN} more"] if len(entries) > ENTRIES_SHOWN else []
        return "\n".join(lines)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError | ImportError):
        message = f"unexpected {type(error).__name__}: {message} (--debug shows where it comes from)"
    return " ".join([message, *getattr(error, "__notes__", [])])


def _number(score: np.floating[Any]) -> float:
    return float(str(score))  # 0.1 rather than 0.10000000149, which is what float() makes of float32's 0.1


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


def _write_csv(stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> None:
    imagenet = any(prediction.wordnet_id for best in predictions for prediction in best)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "rank", *(["wnid"] if imagenet else []), "label", "score"])
    for file, best in zip(files, predictions, strict=True):
        for rank, (label, score, wordnet_id) in enumerate(best, start=1):
            writer.writerow([file, rank, *([wordnet_id] if imagenet else []), label, score])


def _write_json_lines(stream: IO[str], files: Sequence[Path], predictions: Sequence[Sequence[Prediction]]) -> None:
    for file, best in zip(files, predictions, strict=True):
        entries = []
        for label, score, wordnet_id in best:
            entry = {"label": label, "score": score if math.isfinite(score) else None}  # JSON knows no NaN
            entries.append(entry | ({"wnid": wordnet_id} if wordnet_id else {}))
        stream.write(json.dumps({"file": str(file), "predictions": entries}) + "\n")
