"""Activation functions under Keras's names.

Trap: a name does not mean what it means elsewhere. Keras's "gelu" is the exact one, "leaky_relu" has slope 0.2, "silu"
is "swish", "hard_silu" is "hard_swish". "hard_sigmoid" is relu6(x + 3) / 6 as of Keras 3 (Keras 2: clip(x / 5 + 0.5)).

Functions keep the dtype of `x`; "softmax" alone returns half precision as float32.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from flaxapps import ops
from flaxapps.recording import Layer, Weights

Activation = str | Callable[[jax.Array], jax.Array] | Layer
Axes = int | tuple[int, ...]


def softmax(x: jax.Array, axis: Axes = -1) -> jax.Array:
    """Softmax over an axis or several; half precision is computed and returned in float32."""
    return jax.nn.softmax(ops.at_least_float32(x), axis=axis)


def log_softmax(x: jax.Array) -> jax.Array:
    """Logarithm of the softmax over the last axis, computed in float32 at least."""
    return jax.nn.log_softmax(ops.at_least_float32(x), axis=-1).astype(x.dtype)


def sparsemax(x: jax.Array) -> jax.Array:
    """Keras's sparsemax over the last axis, computed in float32 at least.

    Trap: not the projection onto the simplex of the paper (Martins and Astudillo 2016). Keras 3.15 adds up all partial
    sums of the support where the paper takes the last one, so that rows with a larger support do not sum to 1.
    """
    values = ops.at_least_float32(x)
    descending = -jnp.sort(-values, axis=-1)
    partial_sums = jnp.cumsum(descending, -1)
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=values.dtype)
    support = descending - (partial_sums - 1) / rank > 0
    size = jnp.sum(support, -1, keepdims=True, dtype=values.dtype)
    threshold = (jnp.sum(jnp.where(support, partial_sums, 0.0), -1, keepdims=True) - 1) / size
    return jnp.maximum(values - threshold, 0.0).astype(x.dtype)


def relu(
    x: jax.Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> jax.Array:
    """`x` above the threshold, capped at `max_value`; negative_slope * (x - threshold) elsewhere.

    The common cases are jax.nn's functions, which agree with Keras on infinities and on the gradient at zero.
    """
    if threshold == 0 and max_value is None:
        return jax.nn.leaky_relu(x, negative_slope) if negative_slope else jax.nn.relu(x)
    if threshold == 0 and not negative_slope:
        return jax.nn.relu6(x) if max_value == 6 else jnp.clip(jax.nn.relu(x), 0.0, max_value)
    above = x if max_value is None else jnp.minimum(x, max_value)
    below = negative_slope * (x - threshold) if negative_slope else 0.0
    return jnp.where(x > threshold, above, below)


def hard_shrink(x: jax.Array) -> jax.Array:
    """Zero between -0.5 and 0.5, the identity elsewhere."""
    return jnp.where(jnp.abs(x) > 0.5, x, 0.0)


def soft_shrink(x: jax.Array) -> jax.Array:
    """Zero between -0.5 and 0.5, the identity moved by 0.5 towards zero elsewhere."""
    return jnp.where(x > 0.5, x - 0.5, jnp.where(x < -0.5, x + 0.5, 0.0))


# "threshold" is missing on purpose: in Keras too it has no defaults and cannot be called by name.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "softmax": softmax,
        "tanh": jnp.tanh,
        "celu": jax.nn.celu,
        "elu": jax.nn.elu,
        "exponential": jnp.exp,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
        "glu": jax.nn.glu,
        "hard_shrink": hard_shrink,
        "hard_sigmoid": jax.nn.hard_sigmoid,
        "hard_silu": jax.nn.hard_silu,
        "hard_swish": jax.nn.hard_silu,
        "hard_tanh": jax.nn.hard_tanh,
        "leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
        "log_sigmoid": jax.nn.log_sigmoid,
        "log_softmax": log_softmax,
        "mish": jax.nn.mish,
        "relu6": jax.nn.relu6,
        "selu": jax.nn.selu,
        "silu": jax.nn.silu,
        "soft_shrink": soft_shrink,
        "softplus": jax.nn.softplus,
        "softsign": jax.nn.soft_sign,
        "sparse_plus": jax.nn.sparse_plus,
        "sparse_sigmoid": jax.nn.sparse_sigmoid,
        "sparsemax": sparsemax,
        "squareplus": jax.nn.squareplus,
        "swish": jax.nn.silu,
        "tanh_shrink": lambda x: x - jnp.tanh(x),
    }
)


def get_activation(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """The function of a Keras activation name, or of a layer without weights; other callables are returned as they are.

    Raises:
        ValueError: No activation has this name.
    """
    if isinstance(activation, Layer):
        return functools.partial(activation.call, {})
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {activation!r}. Known: {', '.join(ACTIVATIONS)}, or give a function.")
    return ACTIVATIONS[activation]


def bias_and_activation(x: jax.Array, weights: Weights, activation: Activation | None) -> jax.Array:
    """Ends a layer: adds the bias where there is one, then applies the activation."""
    x = ops.end_of_product(x)
    if "bias" in weights:
        x = x + weights["bias"].astype(x.dtype)
    return get_activation(activation or "linear")(x)
