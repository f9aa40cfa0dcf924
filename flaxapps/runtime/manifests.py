"""Manifests: name-to-text descriptions of datasets and runs, with fingerprints, a diff, reading and writing."""

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.runtime.files import as_path, replacing

ENTRIES_SHOWN = 10


def fingerprint_of(manifest: Mapping[str, str]) -> str:
    """Returns the SHA-256 of a manifest and its order, as 64 hexadecimal digits.

    >>> fingerprint_of({"file a.png": "class 0, 100 bytes"})[:8]
    '81c7d0ae'
    """
    digest = hashlib.sha256()
    for name, text in manifest.items():
        digest.update(f"{name}\0{text}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def difference(saved: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Lists the changes between two manifests, one line each.

    >>> difference({"file a.png": "class 0, 100 bytes"}, {"file a.png": "class 1, 100 bytes"})
    ['file a.png: was class 0, 100 bytes, is class 1, 100 bytes']

    Returns:
        At most ten lines each for removed, new and changed entries, and the number of further ones.
    """
    gone = [f"{name}: was {text}, is gone" for name, text in saved.items() if name not in current]
    new = [f"{name}: is new, {text}" for name, text in current.items() if name not in saved]
    changed = [
        f"{name}: was {text}, is {current[name]}"
        for name, text in saved.items()
        if name in current and current[name] != text
    ]
    lines = [line for group in (gone, new, changed) for line in _shortened(group)]
    if not lines and list(saved) != list(current):
        lines.append("the same entries are there in another order")
    return lines


def array_summary(array: NDArray[Any], limit: int | None = None) -> str:
    """Describes an array by dtype, shape and the SHA-256 of its rows.

    Args:
        array: (rows, ...).
        limit: Upper bound of the bytes that are hashed, of evenly spaced rows; None hashes all.
    """
    step = 1 if limit is None else min(len(array), max(1, -(-array.nbytes // limit)))
    digest = hashlib.sha256()
    for example in array[::step]:
        digest.update(np.ascontiguousarray(example).data)
    part = "" if step == 1 else f" of image 0, {step}, {2 * step}, ..."
    return f"{array.dtype} {array.shape}, SHA-256{part} {digest.hexdigest()}"


def write_manifest(path: str | os.PathLike[str], manifest: Mapping[str, str]) -> None:
    """Writes a manifest as gzipped JSON, atomically. The bytes depend on the manifest only.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path, "wb") as stream:
        stream.write(gzip.compress(json.dumps(manifest).encode(), compresslevel=1, mtime=0))


def read_manifest(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the file of `write_manifest`.

    Raises:
        OSError: The file does not exist or cannot be read.
        ValueError: The file is not a manifest.
    """
    try:
        manifest = json.loads(gzip.decompress(as_path(path).read_bytes()))
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a manifest: {error}") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} is not a manifest: expected a JSON object, got a {type(manifest).__name__}")
    return manifest


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= ENTRIES_SHOWN:
        return lines
    return [*lines[:ENTRIES_SHOWN], f"and {len(lines) - ENTRIES_SHOWN} more like these"]
