"""Files that are replaced as a whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a temporary path whose file replaces `path` at the end; after an error, `path` is unchanged.

    Args:
        path: The file to replace or create. Symbolic links are followed.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    target = os.path.realpath(path)
    with scratch_file(target) as part:
        yield part
        if os.path.exists(target):
            shutil.copymode(target, part)
        with open(part, "r+b") as file:  # otherwise a power failure after the renaming could leave an empty file
            os.fsync(file.fileno())
        replace(part, target)


@contextmanager
def scratch_file(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of a temporary file beside `path`, which is removed at the end.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    folder, name = os.path.split(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "No such folder", folder)
    # Random, as process ids are not unique across containers or machines that share a disk.
    part = os.path.join(folder, f".{name[:64]}.{secrets.token_hex(6)}.part")
    try:
        yield part
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def replace(part: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename `part` to `target`, so that the renaming itself survives a power failure."""
    os.replace(part, target)
    with suppress(OSError):  # not every system can open folders
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
