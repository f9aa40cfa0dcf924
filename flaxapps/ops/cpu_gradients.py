"""Gradients of products in the form that is fastest on CPUs; see docs/guides/speed.md.

XLA multiplies bfloat16 matrices twice as fast as float32 ones, also with the second one transposed. The gradient of a
kernel needs the first one transposed: that product is slower than in float32, and so is a transposition of its own.
Products with identity matrices, which are exact, transpose faster than both.

JAX's gradients of a depthwise convolution in shifts are sums of padded images, and a reduction for each place of the
kernel. One convolution with the turned kernel, and one reduction for all places, take up to a tenth of the time.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from flaxapps.ops import cpu_windows as cpu
from flaxapps.ops.bilinear import bilinear

Pair = tuple[int, int]
LEAST_ROWS = 256  # with fewer there is nothing to gain
BLOCK = 128  # columns that one identity matrix transposes: each costs as many products as it has
MOST_SUMS = 25  # of one reduction


def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return x @ matrix


def _times_transposed(x: jax.Array, y: jax.Array) -> jax.Array:
    """Product of (..., size) and (rows, size)."""
    result: jax.Array = lax.dot_general(x, y, (((x.ndim - 1,), (1,)), ((), ())))
    return result


def _gradient_of_factor(change: jax.Array, shape: tuple[int, ...], matrix: jax.Array) -> jax.Array:
    return _times_transposed(change, matrix)


def _gradient_of_matrix(change: jax.Array, x: jax.Array, shape: Pair) -> jax.Array:
    """Transposes the narrower factor, and then the product if need be."""
    inputs, units = shape
    rows, changes = x.reshape(-1, inputs), change.reshape(-1, units)
    if not isinstance(len(rows), int) or len(rows) < LEAST_ROWS:  # symbolic in exports
        result: jax.Array = lax.dot_general(rows, changes, (((0,), (0,)), ((), ())))
        return result
    if units <= inputs:
        return _transposed(_transposed(changes) @ rows)
    return _transposed(rows) @ changes


def _transposed(x: jax.Array) -> jax.Array:
    """Transposes a matrix as products with identity matrices."""
    columns = x.shape[1]
    size = -(-columns // -(-columns // BLOCK))
    sizes = [min(size, columns - start) for start in range(0, columns, size)]
    identity = jnp.eye(size, dtype=x.dtype)
    parts = zip(sizes, lax.split(x, sizes, 1), strict=True)
    return jnp.concatenate([_times_transposed(identity[:width, :width], part) for width, part in parts], axis=0)


bfloat16_product = bilinear("bfloat16_product", _product, _gradient_of_factor, _gradient_of_matrix)
"""Matrix product of (..., inputs) and (inputs, units), both bfloat16."""


def _gradient_of_images(
    change: jax.Array, shape: tuple[int, ...], kernel: jax.Array, *, strides: Pair, padding: str, dilation: Pair
) -> jax.Array:
    """Convolves the gradient, with zeros between its pixels for strides, with the turned kernel."""
    spans = [rate * (length - 1) + 1 for length, rate in zip(kernel.shape[:2], dilation, strict=True)]
    pads = lax.padtype_to_pads(shape[1:3], spans, strides, padding.upper())
    around = []
    for axis in range(2):
        start, step = spans[axis] - 1 - pads[axis][0], strides[axis]
        long = step * (change.shape[axis + 1] - 1) + 1  # with the zeros between
        around.append((start, shape[axis + 1] + spans[axis] - 1 - start - long, step - 1))
    wide = lax.pad(change, jnp.zeros((), change.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    return cpu.depthwise_convolution(wide, kernel[::-1, ::-1], (1, 1), "valid", dilation)


def _gradient_of_kernel(
    change: jax.Array, x: jax.Array, shape: tuple[int, ...], *, strides: Pair, padding: str, dilation: Pair
) -> jax.Array:
    """Sums over the pixels of every image, for several places of the kernel at once; then over the images."""
    wide = cpu.at_least_float32(change)
    slices = cpu.window_slices(x, 0.0, (shape[0], shape[1]), strides, padding, dilation)
    products = [cpu.at_least_float32(each) * wide for each in slices]
    sums = [part for start in range(0, len(products), MOST_SUMS) for part in _sums(products[start : start + MOST_SUMS])]
    return jnp.stack([each.sum(0) for each in sums]).reshape(shape).astype(x.dtype)


def _sums(images: Sequence[jax.Array]) -> list[jax.Array]:
    zeros = [jnp.zeros((), images[0].dtype)] * len(images)
    result: list[jax.Array] = lax.reduce(images, zeros, lambda a, b: [*map(lax.add, a, b)], (1, 2))
    return result


depthwise_convolution = bilinear(
    "depthwise_convolution", cpu.depthwise_convolution, _gradient_of_images, _gradient_of_kernel
)
"""`cpu_windows.depthwise_convolution`, of images and a kernel of one dtype and multiplier 1."""
