"""Photos decoded batch by batch in the layout of a model."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flaxapps.image import ImageError
from flaxapps.model import Model
from flaxapps.photos.photo import CHANNELS, PhotoFormat, Resizing, read_photo

Result = TypeVar("Result")
PLAIN = Resizing()
Unreadable = Callable[[Path, Exception], None]


def photo_format(model: Model) -> PhotoFormat:
    """Returns the photo format of a model.

    Raises:
        ValueError: The model has several inputs, or its input is not an image of 1, 3 or 4 channels.
    """
    shape = model.input_shape
    if isinstance(shape, tuple) and len(shape) == 4 and model.input.shape[-1] in CHANNELS.values():
        _, height, width, channels = model.input.shape
        return PhotoFormat(height, width, channels, channels_first=shape != model.input.shape)
    raise ValueError(f"{model.name!r} does not take single images of 1, 3 or 4 channels: its input is {shape}")


def read_photos(
    paths: Iterable[Path],
    form: PhotoFormat,
    resizing: Resizing = PLAIN,
    *,
    batch_size: int = 32,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Path], NDArray[Any]]]:
    """Decodes and resizes photos on a thread pool, prefetching one batch.

    Args:
        paths: Image files; an iterator is read two batches ahead.
        form: The target size and layout.
        resizing: How photos get there.
        batch_size: Photos in a batch; as many again are prefetched.
        unreadable: Called with each file that cannot be read, which is then left out; None raises the error.

    Yields:
        Files and their photos, from 0 to 255, of dtype `resizing.dtype(form.channels)`. Batches are not empty.

    Raises:
        ImageError, OSError: A photo cannot be read and `unreadable` is None.
        ValueError: `form` has a free size, or options of `resizing` do not go together.
    """
    if form.height is None or form.width is None:
        raise ValueError(f"Photos in a batch need a fixed height and width, got {form.height} x {form.width}")
    resizing.check()

    def read(path: Path) -> NDArray[Any] | Exception:
        try:
            return read_photo(path, form, resizing)
        except (ImageError, OSError) as error:
            return error

    files: list[Path] = []
    photos: list[NDArray[Any]] = []
    for path, result in _ahead(read, paths, batch_size):
        if not isinstance(result, Exception):
            files.append(path)
            photos.append(result)
        elif unreadable is None:
            raise result
        else:
            unreadable(path, result)
        if len(files) == batch_size:
            yield files, np.stack(photos)
            files, photos = [], []
    if files:
        yield files, np.stack(photos)


def _ahead(read: Callable[[Path], Result], paths: Iterable[Path], count: int) -> Iterator[tuple[Path, Result]]:
    """Yields the result of `read` for each path, in order, prefetching up to `count` results on threads."""
    threads = ThreadPoolExecutor(os.cpu_count())  # Pillow releases the GIL while it decodes
    waiting: deque[tuple[Path, Future[Result]]] = deque()
    try:
        for path in paths:
            waiting.append((path, threads.submit(read, path)))
            if len(waiting) > count:
                first, future = waiting.popleft()
                yield first, future.result()
        for path, future in waiting:
            yield path, future.result()
    finally:
        threads.shutdown(cancel_futures=True)
