"""On-device checksums that detect corrupted checkpoints."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

PATHS_SHOWN = 5


def sealed(record: Mapping[str, Any], arrays: Any) -> dict[str, Any]:
    """Adds checksums to a record, for `check_seal`.

    Args:
        record: Values that JSON round-trips exactly.
        arrays: A tree of arrays.

    Returns:
        The record with "checksums" of the arrays and a "sha256" of the record with these.
    """
    whole = {**record, "checksums": checksums_of(arrays)}
    return whole | {"sha256": _sha256(whole)}


def check_seal(record: Mapping[str, Any], arrays: Any) -> None:
    """Verifies a record and arrays that were read from files.

    Args:
        record: The result of `sealed`, read from a file.
        arrays: The tree of arrays, read from files.

    Raises:
        ValueError: The record or an array differs from what was saved; some arrays are named.
        KeyError: The record has no checksums.
    """
    if _sha256({name: value for name, value in record.items() if name != "sha256"}) != record["sha256"]:
        raise ValueError("its position is not what was saved")
    saved, found = record["checksums"], checksums_of(arrays)
    changed = [path for path in saved if saved[path] != found.get(path)]
    if changed:
        raise ValueError(f"{len(changed)} arrays are not what was saved: {', '.join(changed[:PATHS_SHOWN])}")


def checksums_of(tree: Any) -> dict[str, int]:
    """Computes a 32-bit checksum of each array of a tree, by its path.

    A change within one 32-bit word always changes the checksum. Other changes go unnoticed once in four billion.

    >>> checksums_of({"bias": jnp.zeros(2, jnp.float32)}) == checksums_of({"bias": jnp.array([0, 1e-45], jnp.float32)})
    False

    Args:
        tree: A tree of arrays on any devices; only the checksums are fetched.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get([_checksum(leaf) for _, leaf in leaves])
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {path: int(value) for path, value in zip(paths, sums, strict=True)}


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """Sums the words of an array, each mixed with its index. Integer sums are exact in any order."""
    words = _words(array).ravel()
    place = jnp.arange(words.size, dtype=jnp.uint32)
    mixed = words ^ (place * jnp.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of MurmurHash3, a bijection
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _words(array: jax.Array) -> jax.Array:
    """Returns the bits of each number as uint32; two words per 64-bit number."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
