"""Where a text becomes a path: on this machine, or in a bucket, gs:// or s3://, through `etils.epath`.

Nothing of the latter is required: the packages are asked for when such a path is given.
"""

import atexit
import functools
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}  # what reads and writes each


def as_path(place: str | os.PathLike[str]) -> Path:
    """The path that a text stands for; one in a bucket has pathlib's methods too.

    >>> as_path("photos/cat.jpg").name
    'cat.jpg'

    Args:
        place: A text or a path.

    Raises:
        ImportError: It is in a bucket, and a package that this needs is not there; says which.
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

    path: Any = epath.Path(text)  # made like pathlib's, but not typed as its subclass
    return path  # type: ignore[no-any-return]  # see above


def in_bucket(place: str | os.PathLike[str]) -> bool:
    """Whether a path is one of a bucket.

    >>> in_bucket("gs://mine/photos"), in_bucket("photos")
    (True, False)
    """
    scheme, mark, _ = os.fspath(place).partition("://")
    return bool(mark) and scheme in BUCKETS


def path_in(folder: str | os.PathLike[str], name: str) -> str:
    """The path of a file that is named as seen from a folder, or wholly.

    >>> path_in("gs://mine/photos", "cup/1.jpg"), path_in("photos", "gs://mine/1.jpg")
    ('gs://mine/photos/cup/1.jpg', 'gs://mine/1.jpg')
    """
    return name if in_bucket(name) else os.path.join(folder, name)


def local_file(place: str | os.PathLike[str]) -> str:
    """The path of a file on this machine: its own, or that of a copy, which lasts as long as Python.

    A file is copied once, and again when it has changed.

    Args:
        place: A file. What is on this machine need not be there.

    Raises:
        OSError: It cannot be read from its bucket.
        ImportError: As `as_path`.
    """
    text = os.fspath(place)
    if not in_bucket(text):
        return text
    as_path(text)  # raises where a package is missing
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
