"""Checksums of arrays, computed where the arrays are, and the seal that tells a checkpoint from what was saved."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

PATHS_SHOWN = 5


def sealed(record: Mapping[str, Any], arrays: Any) -> dict[str, Any]:
    """A record that says what it and a tree of arrays are, for `check_seal`.

    Args:
        record: Values that JSON keeps to the last bit.
        arrays: A tree.

    Returns:
        The record with "checksums" of the arrays and a "sha256" of all of it.
    """
    whole = {**record, "checksums": checksums_of(arrays)}
    return whole | {"sha256": _sha256(whole)}


def check_seal(record: Mapping[str, Any], arrays: Any) -> None:
    """Compares what was read with what was saved.

    Args:
        record: What `sealed` returned, read from a file.
        arrays: The tree, read from files.

    Raises:
        ValueError: The record or an array is not what was saved; some are named.
        KeyError: It is no such record.
    """
    if _sha256({name: value for name, value in record.items() if name != "sha256"}) != record["sha256"]:
        raise ValueError("its position is not what was saved")
    saved, found = record["checksums"], checksums_of(arrays)
    changed = [path for path in saved if saved[path] != found.get(path)]
    if changed:
        raise ValueError(f"{len(changed)} arrays are not what was saved: {', '.join(changed[:PATHS_SHOWN])}")


def checksums_of(tree: Any) -> dict[str, int]:
    """A checksum of 32 bits for each array of a tree, by its path.

    Any change within one 32-bit word of an array changes its checksum, and others do but for one in four billion.

    >>> checksums_of({"bias": jnp.zeros(2, jnp.float32)}) == checksums_of({"bias": jnp.array([0, 1e-45], jnp.float32)})
    False

    Args:
        tree: Of arrays, on any devices; they are not fetched.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get([_checksum(leaf) for _, leaf in leaves])
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {path: int(value) for path, value in zip(paths, sums, strict=True)}


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """The sum of the words of an array, each mixed with its place; exact, so the same in any order of adding."""
    words = _words(array).ravel()
    place = jnp.arange(words.size, dtype=jnp.uint32)
    mixed = words ^ (place * jnp.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of MurmurHash3, a bijection
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _words(array: jax.Array) -> jax.Array:
    """The bits of each number, uint32; two words for a number of 64 bits."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
