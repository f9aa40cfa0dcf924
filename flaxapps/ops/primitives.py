"""Numeric primitives of the layers, on images of shape (batch, height, width, channels).

`lax.platform_dependent` chooses the CPU forms when a program is lowered, so that exports hold those of each platform.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxapps.ops import cpu_gradients
from flaxapps.ops import cpu_matmul as cpu_products
from flaxapps.ops import cpu_windows as cpu
from flaxapps.ops.cpu_windows import at_least_float32 as at_least_float32

Pair = tuple[int, int]


def float32_at_least(x: jax.Array) -> jax.Array:
    """Widens half precision and whole numbers; other dtypes stay."""
    return at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def fusion_barrier(x: jax.Array) -> jax.Array:
    """An optimization barrier after half-precision products on CPU; the identity elsewhere.

    jax 0.12 miscompiles the fusion of bias, relu and pooling into a bfloat16 convolution: results are NaN or wrong.
    """
    if not cpu.is_half(x):
        return x
    result: jax.Array = lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)
    return result


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1), groups: int = 1
) -> jax.Array:
    """Convolves with a kernel of shape (height, width, input channels / groups, filters), in the dtype of `x`.

    `padding` is Keras's: "valid", or TensorFlow's "same" with the larger half at the end.
    """
    if groups == x.shape[-1] > 1:
        return depthwise_convolution(x, kernel.reshape(*kernel.shape[:2], groups, -1), strides, padding, dilation)
    default = _lax_convolution(strides, padding, dilation, groups)
    kernel = kernel.astype(x.dtype)
    faster = None
    if groups == 1:
        faster = cpu_products.faster_convolution(default, x, kernel, strides, padding, dilation)
    if faster is None:
        return default(x, kernel)
    result: jax.Array = lax.platform_dependent(x, kernel, cpu=faster, default=default)
    return result


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1)
) -> jax.Array:
    """Convolves every channel on its own, with a kernel of shape (height, width, channels, multiplier)."""
    height, width, channels, multiplier = kernel.shape

    def default(x: jax.Array, kernel: jax.Array) -> jax.Array:
        grouped = kernel.astype(x.dtype).reshape(height, width, 1, channels * multiplier)
        return _lax_convolution(strides, padding, dilation, channels)(x, grouped)

    if height * width > cpu.LARGEST_KERNEL:
        return default(x, kernel)

    def shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        form = cpu_gradients.depthwise_convolution if multiplier == 1 else cpu.depthwise_convolution
        return form(x, kernel.astype(x.dtype), strides=strides, padding=padding, dilation=dilation)

    result: jax.Array = lax.platform_dependent(x, kernel, cpu=shifts, default=default)
    return result


def _lax_convolution(strides: Pair, padding: str, dilation: Pair, groups: int) -> Callable[..., jax.Array]:
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product of (..., inputs) and (inputs, units), in the dtype of `x`."""
    product: jax.Array = lax.platform_dependent(
        x, kernel.astype(x.dtype), cpu=cpu_products.multiply, default=jnp.matmul
    )
    return product


def max_pool(x: jax.Array, window: Pair, strides: Pair, padding: str) -> jax.Array:
    """Maximum over windows; "same" pads with the smallest value."""
    return _reduce_window(x, lowest(x), lax.max, window, strides, padding)


def lowest(x: jax.Array) -> Any:
    """The smallest value of the dtype of `x`, as this dtype: `lax.reduce_window` would make Python's integers int32."""
    return -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype.type(np.iinfo(x.dtype).min)


def average_pool(x: jax.Array, window: Pair, strides: Pair, padding: str) -> jax.Array:
    """Mean over windows; the padding of "same" is not counted, as in TensorFlow."""
    total = _reduce_window(x, 0.0, lax.add, window, strides, padding)
    if padding == "valid":
        return total / (window[0] * window[1])
    inside = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / _reduce_window(inside, 0.0, lax.add, window, strides, padding)


def _reduce_window(
    x: jax.Array, start: float, combine: Callable[..., jax.Array], window: Pair, strides: Pair, padding: str
) -> jax.Array:
    def default(x: jax.Array) -> jax.Array:
        result: jax.Array = lax.reduce_window(x, start, combine, (1, *window, 1), (1, *strides, 1), padding.upper())
        return result

    if math.prod(window) > cpu.LARGEST_WINDOW:
        return default(x)

    def shifts(x: jax.Array) -> jax.Array:
        return cpu.reduce_window(x, start, combine, window, strides, padding)

    result: jax.Array = lax.platform_dependent(x, cpu=shifts, default=default)
    return result
