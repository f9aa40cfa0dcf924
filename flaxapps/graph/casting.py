"""Casts of a layer's inputs to the dtype it computes in."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Layer


def cast_floats(layer: Layer, inputs: Iterable[jax.Array]) -> tuple[jax.Array, ...]:
    """The inputs of a layer in the dtype that it computes in; as in Keras, whole numbers stay."""
    dtype = layer.dtype
    if not dtype or not layer.autocast:
        return tuple(inputs)
    return tuple(each.astype(dtype) if jnp.issubdtype(each.dtype, jnp.floating) else each for each in inputs)


def cast_whole(layer: Layer, owned: bool, inputs: Iterable[jax.Array]) -> tuple[jax.Array, ...]:
    """The inputs of a layer, whole numbers as floats unless it computes with them.

    Keras promotes integers, such as photos in uint8, to the dtype of the weights; cast to the dtype of the input,
    weights would be cut to integers.
    """
    if not ((owned and not layer.takes_integers) or layer.makes_floats or layer.as_floats):
        return tuple(inputs)
    dtype = layer.dtype or jnp.float32
    return tuple(each if jnp.issubdtype(each.dtype, jnp.floating) else each.astype(dtype) for each in inputs)
