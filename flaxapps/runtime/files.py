"""Paths on local disk or in a bucket (gs://, s3://), and atomic writes.

Bucket packages (`etils.epath` and fsspec's) are imported only when such a path is used.
"""

import atexit
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from weight_port import atomic

BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}  # URL scheme -> fsspec package


def as_path(place: str | os.PathLike[str]) -> Path:
    """Converts a string to a path; one in a bucket has pathlib's methods too.

    >>> as_path("photos/cat.jpg").name
    'cat.jpg'

    Args:
        place: A string or a path.

    Raises:
        ImportError: The path is in a bucket, and a package for buckets is not installed; the message names it.
    """
    if not in_bucket(place):
        return Path(place)
    text = os.fspath(place)
    scheme = text.partition("://")[0]
    needed = ["etils", "fsspec", BUCKETS[scheme]]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ImportError(f"{text} is in a bucket, which needs {', '.join(missing)}: pip install {' '.join(needed)}")
    from etils import epath

    path: Any = epath.Path(text)  # has pathlib's methods, but is not typed as its subclass
    return path  # type: ignore[no-any-return]  # see above


def in_bucket(place: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket.

    >>> in_bucket("gs://mine/photos"), in_bucket("photos")
    (True, False)
    """
    scheme, mark, _ = os.fspath(place).partition("://")
    return bool(mark) and scheme in BUCKETS


def path_in(folder: str | os.PathLike[str], name: str) -> str:
    """Joins a folder and a name, unless the name is an absolute path or in a bucket.

    >>> path_in("gs://mine/photos", "cup/1.jpg"), path_in("photos", "gs://mine/1.jpg")
    ('gs://mine/photos/cup/1.jpg', 'gs://mine/1.jpg')
    """
    return name if in_bucket(name) else os.path.join(folder, name)


def local_file(place: str | os.PathLike[str]) -> str:
    """Returns a local path of a file: its own, or that of a temporary copy if the file is in a bucket.

    A file is copied once, and again when it has changed. Copies are deleted when Python exits.

    Args:
        place: A file. A local one need not exist.

    Raises:
        OSError: The file cannot be read from its bucket.
        ImportError: As `as_path`.
    """
    text = os.fspath(place)
    if not in_bucket(text):
        return text
    as_path(text)  # raises ImportError if a package is missing
    import fsspec

    system, name = fsspec.url_to_fs(text)
    system.invalidate_cache()
    return _copy(text, system.ukey(name))


@functools.cache
def _copy(place: str, version: str) -> str:
    path = as_path(place)
    folder = tempfile.mkdtemp(prefix="flaxapps-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder, path.name)
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return str(copy)


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Writes a file atomically: it is created or replaced when the context ends without an exception.

    Args:
        path: The file. Devices and pipes are written directly.
        mode: "w" for UTF-8 text or "wb" for bytes.

    Raises:
        OSError: The file cannot be written; a missing or read-only folder raises on entering.
        ImportError: As `as_path`.
    """
    if in_bucket(path):
        with _into_bucket(as_path(path), mode) as stream:
            yield stream
        return
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    direct = os.path.exists(path) and not os.path.isfile(path)
    with nullcontext(path) if direct else atomic.replacing(path) as written, open(written, mode, **options) as stream:
        yield stream


@contextmanager
def _into_bucket(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Buffers the contents and uploads them at the end; buckets create objects atomically."""
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
