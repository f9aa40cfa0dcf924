"""Arithmetic on quantized tensors: int8 values q that stand for the real numbers (q - zero_point) * scale.

On CPUs, XLA has fast products of int8 by int8, summed in int32. Those of uint8 by int8 are up to five times slower, so
tensors without negative numbers are int8 too, with zero point -128.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxapps.ops import cpu_windows as cpu

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
LOWEST, HIGHEST = -128, 127
# Sums of int8 products stay in int32 up to this number of terms.
MOST_TERMS = 2**31 // 128**2 - 1
# For a single row XLA widens the whole matrix to int32 first. With four, one photo of MobileNetV3Large, whose
# squeeze-and-excite has such products, takes 8.1 instead of 10.3 ms.
LEAST_ROWS = 4
# Adding 1.5 * 2**23 to a float32 below 2**22 rounds it, half to even, into the last bits of the result.
_ROUNDING = np.float32(1.5 * 2**23)
_ROUNDING_BITS = np.int32(_ROUNDING.view(np.int32))


def quantize(x: jax.Array, scale: jax.Array, zero_point: int) -> jax.Array:
    """Rounds real numbers to int8; those outside the range become its ends.

    XLA's CPU code for this is twice as fast as for `round`, and it is as exact.

    Args:
        x: Real numbers.
        scale: Float32, the step between two values.
        zero_point: The int8 value of 0.
    """
    steps = x.astype(jnp.float32) * (1 / scale) + zero_point
    rounded = jnp.clip(steps, LOWEST, HIGHEST) + _ROUNDING
    return (lax.bitcast_convert_type(rounded, jnp.int32) - _ROUNDING_BITS).astype(jnp.int8)


def dequantize(x: jax.Array, scale: jax.Array, zero_point: int) -> jax.Array:
    """Converts int8 values to the float32 numbers that they stand for."""
    return (x.astype(jnp.float32) - zero_point) * scale


def multiply(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Product of int8 (..., inputs) and int8 (inputs, units), as float32."""
    numbers = (((1,), (0,)), ((), ()))

    def whole(x: jax.Array, matrix: jax.Array) -> jax.Array:
        rows = x.shape[0]
        if rows == 1:
            # The barrier hides from XLA that the rows are equal.
            x = lax.optimization_barrier(jnp.broadcast_to(x, (LEAST_ROWS, x.shape[1])))
        product = lax.dot_general(x, matrix, numbers, preferred_element_type=jnp.int32)
        return product[:rows].astype(jnp.float32)

    def default(x: jax.Array, matrix: jax.Array) -> jax.Array:
        return lax.dot_general(x.astype(jnp.float32), matrix.astype(jnp.float32), numbers)

    rows: jax.Array = lax.platform_dependent(x.reshape(-1, x.shape[-1]), matrix, cpu=whole, default=default)
    return rows.reshape(*x.shape[:-1], -1)


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair, zero_point: int
) -> jax.Array:
    """Convolves int8 images with an int8 kernel (height, width, channels, filters), as float32.

    On platforms other than CPUs it is a float32 convolution of the same whole numbers. They are exact in the formats
    in which GPUs and TPUs multiply (TF32, bfloat16), and not every GPU library has int8 convolutions.

    Args:
        x: Images; padded with `zero_point`, which stands for 0.
        kernel: The kernel.
        strides: As for `primitives.convolution`.
        padding: "valid" or "same".
        dilation: As for `primitives.convolution`.
        zero_point: The int8 value of 0.
    """
    if kernel.shape[:2] == (1, 1):
        return multiply(lax.slice(x, (0, 0, 0, 0), x.shape, (1, *strides, 1)), kernel[0, 0])
    height, width = kernel.shape[:2]
    x = pad(x, window_padding(x, (height, width), strides, padding, dilation), zero_point)

    def convolve(x: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            strides,
            "VALID",
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=dtype,
        )

    def whole(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, jnp.int32).astype(jnp.float32)

    def default(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), jnp.float32)

    result: jax.Array = lax.platform_dependent(x, kernel, cpu=whole, default=default)
    return result


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair, zero_point: int
) -> jax.Array:
    """Convolves every channel of int8 images with a float32 kernel (height, width, channels, multiplier).

    A depthwise convolution is bound by memory, not by products: int8 images take a quarter of it, an int8 kernel would
    save nothing.
    """
    height, width = kernel.shape[:2]
    size = height, width
    x = pad(x, window_padding(x, size, strides, padding, dilation), zero_point)

    def shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        places = kernel.reshape(math.prod(size), 1, 1, 1, *kernel.shape[2:])
        slices = cpu.window_slices(x, 0.0, size, strides, "valid", dilation)
        wide = (each.astype(jnp.float32) for each in slices)
        if kernel.shape[3] == 1:
            return cpu.sum_up(each * place[..., 0] for each, place in zip(wide, places, strict=True))
        total = cpu.sum_up(each[..., None] * place for each, place in zip(wide, places, strict=True))
        return total.reshape(*total.shape[:3], -1)

    def default(x: jax.Array, kernel: jax.Array) -> jax.Array:
        channels, multiplier = kernel.shape[2:]
        return lax.conv_general_dilated(
            x.astype(jnp.float32),
            kernel.reshape(*size, 1, channels * multiplier),
            strides,
            "VALID",
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )

    if math.prod(size) > cpu.LARGEST_KERNEL:
        return default(x, kernel)
    result: jax.Array = lax.platform_dependent(x, kernel, cpu=shifts, default=default)
    return result


def average_pool(x: jax.Array, window: Pair, strides: Pair, padding: str, zero_point: int) -> jax.Array:
    """Mean over windows of int8 images, rounded to int8 of the same scale; the padding of "same" is not counted."""
    pads = window_padding(x, window, strides, padding, (1, 1))
    inside = jnp.ones((1, *x.shape[1:3], 1), jnp.float32)
    totals = []
    for values, fill in ((x, zero_point), (inside, 0)):
        slices = cpu.window_slices(pad(values, pads, fill), 0.0, window, strides, "valid")
        totals.append(cpu.sum_up(each.astype(jnp.float32) - fill for each in slices))
    return quantize(totals[0] / totals[1], jnp.float32(1), zero_point)


def window_padding(x: jax.Array, window: Pair, strides: Pair, padding: str, dilation: Pair) -> Pads:
    """Returns the pixels that "valid" or "same" add before and after, in each direction."""
    span = [rate * (length - 1) + 1 for length, rate in zip(window, dilation, strict=True)]
    down, across = lax.padtype_to_pads(x.shape[1:3], span, strides, padding.upper())
    return down, across


def pad(x: jax.Array, pads: Pads, fill: int) -> jax.Array:
    """Pads images with a value."""
    if not any(map(any, pads)):
        return x
    result: jax.Array = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *((*each, 0) for each in pads), (0, 0, 0)])
    return result
