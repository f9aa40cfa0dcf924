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


def local_file(place: str | os.PathLike[str]) -> str:
    """The path of a file on this machine: its own, or that of a copy, which is made once and lasts as long as Python.

    Args:
        place: A file. What is on this machine need not be there.

    Raises:
        OSError: It cannot be read from its bucket.
        ImportError: As `as_path`.
    """
    return _copy(os.fspath(place)) if in_bucket(place) else os.fspath(place)


@functools.cache
def _copy(place: str) -> str:
    path = as_path(place)
    folder = tempfile.mkdtemp(prefix="flaxapps-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder, path.name)
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return str(copy)
