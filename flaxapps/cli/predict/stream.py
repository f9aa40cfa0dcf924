"""Streaming prediction: yields, per photo, its output or the error that prevented it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.inference.predict import predict_batches
from flaxapps.model import Model
from flaxapps.photos.photo import PhotoFormat, Resizing
from flaxapps.photos.reading import read_photos

Outcome = tuple[Path, NDArray[Any] | Exception]


def predict_stream(
    model: Model,
    variables: Mapping[str, Any],
    paths: Iterable[Path],
    form: PhotoFormat,
    resizing: Resizing,
    *,
    batch_size: int,
    preprocess: str | bool,
) -> Iterator[Outcome]:
    """Yields, for every photo, its output or the error that prevented it, in the order of `paths`.

    Photos are decoded in the background; `paths` is read about two batches ahead.
    """
    asked: deque[Path] = deque()
    read: deque[Path] = deque()
    errors: dict[Path, Exception] = {}

    def noted() -> Iterator[Path]:
        for path in paths:
            asked.append(path)
            yield path

    def photos() -> Iterator[NDArray[Any]]:
        for files, arrays in read_photos(noted(), form, resizing, batch_size=batch_size, unreadable=errors.__setitem__):
            read.extend(files)
            yield arrays

    for (rows,) in predict_batches(model, variables, photos(), batch_size=batch_size, preprocess=preprocess):
        for row in rows:
            file = read.popleft()
            while (path := asked.popleft()) != file:
                yield path, errors[path]
            yield file, row
    for path in asked:
        yield path, errors[path]


def readable(outcomes: Sequence[Outcome], columns: int = 0) -> tuple[list[Path], NDArray[Any]]:
    """Returns the photos that could be read, and their stacked outputs.

    Args:
        outcomes: The outcomes of all photos.
        columns: Second dimension of the empty outputs if no photo could be read.
    """
    read = [(path, row) for path, row in outcomes if not isinstance(row, Exception)]
    rows = [row for _, row in read]
    return [path for path, _ in read], np.stack(rows) if rows else np.zeros((0, columns), np.float32)
