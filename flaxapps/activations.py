"""Activation functions under Keras's names."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from flaxapps import ops
from flaxapps.graph import Weights

Activation = str | Callable[[jax.Array], jax.Array]


def softmax(x: jax.Array) -> jax.Array:
    """Softmax over the last axis; half precision is computed and returned in float32."""
    return jax.nn.softmax(ops.at_least_float32(x), axis=-1)


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "softmax": softmax,
        "tanh": jnp.tanh,
    }
)


def get_activation(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """The function of a Keras activation name; callables are returned as they are.

    Raises:
        ValueError: No activation has this name.
    """
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {activation!r}. Known: {', '.join(ACTIVATIONS)}, or give a function.")
    return ACTIVATIONS[activation]


def bias_and_activation(x: jax.Array, weights: Weights, activation: Activation | None) -> jax.Array:
    """Ends a layer: adds the bias where there is one, then applies the activation."""
    if "bias" in weights:
        x = x + weights["bias"].astype(x.dtype)
    return get_activation(activation or "linear")(x)
