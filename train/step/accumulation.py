"""A step over a batch that is computed in parts, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulate_parts(
    differentiate: Callable[..., tuple[Any, Any, Any]], start: Any, batch: Any, key: jax.Array, parts: int
) -> tuple[Any, Any, Any]:
    """Computes a batch in parts, one after the other.

    Args:
        differentiate: A function of (statistics, part, key) that returns gradients, statistics and sums.
        start: Gradients of zeros, and the statistics before the first part.
        batch: A tree of arrays (batch, ...).
        key: Random key of the step; each part has its own.
        parts: Number of parts.

    Returns:
        Gradients and sums over all parts, and the statistics after the last.

    Raises:
        ValueError: The batch cannot be split into equal parts.
    """

    def add_part(carry: Any, numbered: Any) -> tuple[Any, Any]:
        gradients, statistics = carry
        number, part = numbered
        more, statistics, sums = differentiate(statistics, part, jax.random.fold_in(key, number))
        return (jax.tree.map(jnp.add, gradients, more), statistics), sums

    numbered = (jnp.arange(parts, dtype=jnp.int32), jax.tree.map(lambda array: _split(array, parts), batch))
    (gradients, statistics), sums = jax.lax.scan(add_part, start, numbered)
    return gradients, statistics, jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), sums)


def _split(array: jax.Array, parts: int) -> jax.Array:
    if parts < 1 or array.shape[0] % parts:
        raise ValueError(f"A batch of {array.shape[0]} cannot be split into accumulate={parts} equal parts")
    # Every parts-th example, so that each part of a sharded batch has examples on all devices.
    return jnp.swapaxes(array.reshape(array.shape[0] // parts, parts, *array.shape[1:]), 0, 1)
