"""Depthwise convolution and pooling as sums and maxima of shifted images, for CPUs, where XLA's own loops are slow."""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
# Pixels; every window offset is one more operation to compile and one more pass over the image.
LARGEST_WINDOW = 25  # of pooling
LARGEST_KERNEL = 49  # of depthwise convolutions: for one of 7x7, lax takes twenty times as long


def is_half(x: jax.Array) -> bool:
    """Whether an array is float16 or bfloat16."""
    return x.dtype in (jnp.float16, jnp.bfloat16)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Widens half precision; other dtypes stay."""
    return x.astype(jnp.float32) if is_half(x) else x


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1)
) -> jax.Array:
    """Sums over the window offsets of the kernel; half precision is accumulated in float32."""
    height, width, channels, multiplier = kernel.shape
    wide = at_least_float32(kernel.astype(x.dtype)).reshape(height * width, 1, 1, 1, channels, multiplier)
    shifts = map(at_least_float32, window_slices(x, 0.0, (height, width), strides, padding, dilation))
    if multiplier == 1:
        return sum_up(shift * place[..., 0] for shift, place in zip(shifts, wide, strict=True)).astype(x.dtype)
    total = sum_up(shift[..., None] * place for shift, place in zip(shifts, wide, strict=True))
    return total.reshape(*total.shape[:3], channels * multiplier).astype(x.dtype)


def reduce_window(
    x: jax.Array, start: float, combine: Callable[..., jax.Array], window: Pair, strides: Pair, padding: str
) -> jax.Array:
    """Computes `lax.reduce_window`; half precision is accumulated in float32.

    The gradient of a maximum is shared between equal pixels. That of lax goes to the first of them.
    """

    def combined(slices: Iterator[jax.Array]) -> jax.Array:
        return functools.reduce(combine, slices).astype(x.dtype)

    def reduce(x: jax.Array) -> jax.Array:
        return combined(map(at_least_float32, window_slices(x, start, window, strides, padding)))

    if not is_half(x):
        return reduce(x)

    def reduce_wide(x: jax.Array) -> jax.Array:
        return combined(window_slices(at_least_float32(x), start, window, strides, padding))

    # Widened before the window, the gradient is a sum of padded float32 images: rounded once, and twice as fast.
    result = jax.custom_jvp(reduce)
    result.defjvp(lambda primals, tangents: jax.jvp(reduce_wide, primals, tangents))
    return result(x)


def sum_up(parts: Iterator[jax.Array]) -> jax.Array:
    """Sums in order, without a zero to start from."""
    return functools.reduce(lax.add, parts)


def joined_windows(x: jax.Array, window: Pair, strides: Pair, padding: str, dilation: Pair = (1, 1)) -> jax.Array:
    """Joins the pixels of every window along the channels, padded with zeros (im2col)."""
    return jnp.concatenate(list(window_slices(x, 0.0, window, strides, padding, dilation)), axis=-1)


def window_slices(
    x: jax.Array, fill: float, window: Pair, strides: Pair, padding: str, dilation: Pair = (1, 1)
) -> Iterator[jax.Array]:
    """Yields one strided slice of `x` per window offset, in row-major order."""
    span = [rate * (length - 1) + 1 for length, rate in zip(window, dilation, strict=True)]
    pads = lax.padtype_to_pads(x.shape[1:3], span, strides, padding.upper())
    if any(map(any, pads)):
        x = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    if math.prod(window) > 1:
        # Without it XLA recomputes the producer of `x` (such as a relu) for every slice.
        x = lax.optimization_barrier(x)
    last = [
        (size - length) // stride * stride for size, length, stride in zip(x.shape[1:3], span, strides, strict=True)
    ]
    for row in range(0, span[0], dilation[0]):
        for column in range(0, span[1], dilation[1]):
            end = (x.shape[0], row + last[0] + 1, column + last[1] + 1, x.shape[3])
            yield lax.slice(x, (0, row, column, 0), end, (1, *strides, 1))
