"""The primitives behind the layers, on images of shape (batch, height, width, channels)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1), groups: int = 1
) -> jax.Array:
    """Convolves with a kernel of shape (height, width, input channels / groups, filters), in the dtype of `x`.

    `padding` is Keras's: "valid", or TensorFlow's "same" with the larger half at the end.
    """
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        strides,
        padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1)
) -> jax.Array:
    """Convolves every channel on its own, with a kernel of shape (height, width, channels, multiplier)."""
    height, width, channels, multiplier = kernel.shape
    grouped = kernel.reshape(height, width, 1, channels * multiplier)
    return convolution(x, grouped, strides, padding, dilation, groups=channels)


def max_pool(x: jax.Array, window: Pair, strides: Pair, padding: str) -> jax.Array:
    """Maximum over windows; the padding of "same" never wins."""
    return _reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def average_pool(x: jax.Array, window: Pair, strides: Pair, padding: str) -> jax.Array:
    """Mean over windows; with "same" the mean of the pixels that are there, as in TensorFlow."""
    total = _reduce_window(x, 0.0, lax.add, window, strides, padding)
    if padding == "valid":
        return total / (window[0] * window[1])
    inside = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / _reduce_window(inside, 0.0, lax.add, window, strides, padding)


def _reduce_window(
    x: jax.Array, start: float, combine: Callable[..., jax.Array], window: Pair, strides: Pair, padding: str
) -> jax.Array:
    result: jax.Array = lax.reduce_window(x, start, combine, (1, *window, 1), (1, *strides, 1), padding.upper())
    return result
