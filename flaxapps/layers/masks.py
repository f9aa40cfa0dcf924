"""Masks in the calls of layers, and attention scores under them."""

import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Shape
from flaxapps.ops.cpu_windows import is_half


def named(given: Sequence[str], names: Sequence[str], values: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """The inputs of a call by Keras's argument names.

    Args:
        given: Names of the inputs; empty if they are the first of `names`.
        names: All tensor arguments, in Keras's order.
        values: The inputs.
    """
    return dict(zip(given or names, values, strict=False))


def named_shapes(given: Sequence[str], names: Sequence[str], shapes: Sequence[Shape], kind: str) -> dict[str, Shape]:
    """The input shapes of an attention layer by name. The key's defaults to the value's.

    Raises:
        ValueError: There is no query or no value, or there are more inputs than names.
    """
    found = dict(zip(given or names, shapes, strict=False))
    if not {"query", "value"} <= set(found) or len(found) < len(shapes):
        raise ValueError(f"{kind} is called on query, value, and optionally key and masks, got {list(shapes)}")
    return {"key": found["value"], **found}


def pairs_mask(
    given: Mapping[str, jax.Array], steps: tuple[int, int], causal: bool = False, window: int | None = None
) -> jax.Array | None:
    """Mask of the value steps that each query step attends to, or None for all.

    Args:
        given: Masks by Keras's names: query_mask (batch, T), value_mask and key_mask (batch, S), and attention_mask,
            whose last axes are (T, S).
        steps: T and S.
        causal: Whether a step attends to itself and earlier steps only.
        window: Attend to steps closer than this.
    """
    masks: list[jax.Array] = []
    if "query_mask" in given:
        masks.append(given["query_mask"].astype(bool)[..., :, None])
    masks += [given[name].astype(bool)[..., None, :] for name in ("value_mask", "key_mask") if name in given]
    distance = jnp.arange(steps[0])[None, :, None] - jnp.arange(steps[1])[None, None, :]
    if causal:
        masks.append(distance >= 0)
    if window is not None:
        masks.append(jnp.abs(distance) < window)
    if "attention_mask" in given:
        masks.append(given["attention_mask"].astype(bool))
    if not masks:
        return None
    combined = masks[0]
    for mask in masks[1:]:
        combined = combined & mask
    return combined


def masked_softmax(x: jax.Array, mask: jax.Array, axes: int | Sequence[int], zero: bool) -> jax.Array:
    """Softmax over the unmasked values, as in Keras 3.15.

    Args:
        x: In float32 at least.
        mask: Booleans that broadcast to `x`.
        axes: Axes of the softmax.
        zero: Whether masked values get exactly zero. Otherwise fully masked rows get equal weights.
    """
    kept = jax.nn.softmax(jnp.where(mask, x, -1e9), axes if isinstance(axes, int) else tuple(axes))
    return jnp.where(mask, kept, 0.0) if zero else kept


class Equation(NamedTuple):
    """Einsum letters of the axes of attention.

    Attributes:
        query: Axes of the projected query.
        key: Axes of the projected key; the attended axes have separate letters.
        scores: Axes of the scores.
        attended: Number of attended axes.
    """

    query: str
    key: str
    scores: str
    attended: int


def equation(rank: int, axes: int | Sequence[int] | None) -> Equation:
    """Name the axes of projected queries, keys and values.

    Args:
        rank: Their number of axes: batch, others, heads, and size.
        axes: The axes to attend over; None for all between the batch and the heads.
    """
    chosen = range(1, rank - 2) if axes is None else [axes] if isinstance(axes, int) else axes
    attended = {axis % (rank - 1) if axis < 0 else axis for axis in chosen}
    of_query = string.ascii_lowercase[: rank - 1] + "z"
    of_key = "".join(letter.upper() if axis in attended else letter for axis, letter in enumerate(of_query))
    kept = "".join(letter for axis, letter in enumerate(of_query[:-1]) if axis not in attended)
    pairs = [(of_query[axis], of_key[axis]) for axis in sorted(attended)]
    scores = kept + "".join(pair[0] for pair in pairs) + "".join(pair[1] for pair in pairs)
    return Equation(of_query, of_key, scores, len(pairs))


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    axes: int | Sequence[int] | None,
    mask: jax.Array | None = None,
    zero: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Sum values weighted by the softmax of products of queries and keys.

    Args:
        query: (batch, ..., heads, size), already scaled.
        key: Like the query; lengths along `axes` can differ.
        value: Like the key; the size can differ.
        axes: The axes to attend over; None for all between the batch and the heads.
        mask: Pairs to use; None for all. Missing dimensions are inserted before the pairs, for the heads.
        zero: Whether fully masked rows get zero weights instead of equal ones.

    Returns:
        The result, and the attention weights.
    """
    letters = equation(query.ndim, axes)
    # Products of large values overflow half precision.
    wide = jnp.float32 if is_half(query) else query.dtype
    scores = jnp.einsum(f"{letters.query},{letters.key}->{letters.scores}", query, key, preferred_element_type=wide)
    over = tuple(range(-letters.attended, 0))
    if mask is None:
        shares = jax.nn.softmax(scores, over)
    else:
        while mask.ndim < scores.ndim:
            mask = jnp.expand_dims(mask, -2 * letters.attended - 1)
        shares = masked_softmax(scores, mask, over, zero)
    shares = shares.astype(value.dtype)
    return jnp.einsum(f"{letters.scores},{letters.key[:-1]}y->{letters.query[:-1]}y", shares, value), shares
