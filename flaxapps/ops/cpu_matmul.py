"""Matrix products for convolutions and dense layers, in the forms that are fastest on CPUs.

XLA has two libraries for matrix products on CPUs. It gives YNNPACK every `dot`, and every two-dimensional convolution
whose result is not larger than the image; all others go to Eigen. Eigen is up to a fifth faster for many pixels.
Neither is fast for a large kernel on few pixels. Measured on jax 0.10 and 0.12; see docs/guides/speed.md.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from flaxapps.ops import cpu_windows as cpu
from flaxapps.ops.cpu_gradients import bfloat16_product

Pair = tuple[int, int]
Factors = tuple[jax.Array, jax.Array]
Product = Callable[[jax.Array, jax.Array], jax.Array]
LEAST_ROWS = 1000  # Eigen is faster than YNNPACK from this number of rows
LEAST_CHANNELS = 96  # the same, for input channels of a convolution
# An output with so few terms is faster summed term by term than by either library.
FEW_CHANNELS, FEW_TERMS = 16, 27
# For a smaller kernel XLA sums the gradient pixel by pixel, with four times the rounding error of a convolution's.
LEAST_SIDE = 4


def multiply(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Matrix product of (..., inputs) and (inputs, units)."""
    rows, (inputs, units) = x.shape[:-1], matrix.shape
    if all(size == 1 for size in rows):
        return _single_row_product(x, matrix)
    if x.dtype == jnp.bfloat16:
        return bfloat16_product(x, matrix)
    if not cpu.is_half(x) and _count(rows) >= LEAST_ROWS and len(rows) > 1 and units >= inputs:
        return _differentiated_as(jnp.matmul, _long_product)(x, matrix)
    return x @ matrix


def faster_convolution(
    default: Product, x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair
) -> Product | None:
    """Chooses the fastest form of a convolution without groups; None if that is `default`, lax's own.

    Args:
        default: The convolution of `lax`, as a function of images and kernel.
        x: (batch, height, width, channels).
        kernel: (height, width, channels, filters).
        strides: As for `ops.convolution`.
        padding: As for `ops.convolution`.
        dilation: As for `ops.convolution`.
    """
    height, width, channels, filters = kernel.shape
    few = channels <= FEW_CHANNELS and channels < filters and height * width * channels <= FEW_TERMS
    if few and not cpu.is_half(x) and _pixels(default, x, kernel) >= LEAST_ROWS:
        terms = functools.partial(_sum_of_terms, strides=strides, padding=padding, dilation=dilation)
        # Not in training: with a sharded kernel, XLA would cut so many products by filters and gather the whole batch.
        return _differentiated_as(default, terms, forward=default)
    if (height, width) == (1, 1):
        if min(channels, filters) < LEAST_SIDE:
            return None
        return lambda x, kernel: multiply(lax.slice(x, (0, 0, 0, 0), x.shape, (1, *strides, 1)), kernel[0, 0])
    windows = functools.partial(_product_of_windows, strides=strides, padding=padding, dilation=dilation)
    if cpu.is_half(x):
        # XLA's products of bfloat16 matrices are twice as fast as its convolutions; with few channels, copying the
        # windows takes as long as the product.
        return windows if x.dtype == jnp.bfloat16 and channels >= LEAST_CHANNELS else None
    if 0 < _pixels(default, x, kernel) <= filters:  # a large kernel on few pixels, for which both libraries are slow
        return windows
    # The result of "same" is as large as the image, so without an extra row YNNPACK would get it.
    if (strides, dilation, padding) == ((1, 1), (1, 1), "same") and channels >= LEAST_CHANNELS:
        return _differentiated_as(default, _enlarged_convolution)
    return None


def _pixels(convolve: Product, x: jax.Array, kernel: jax.Array) -> int:
    """Returns the number of pixels of a result, of all images together; 0 if it is not known."""
    return _count(jax.eval_shape(convolve, x, kernel).shape[:3])


def _count(sizes: tuple[int, ...]) -> int:
    """Returns the product of sizes; 0 if one is a symbolic dimension of `jax.export`."""
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else 0


def _single_row_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiplies one row, summing in blocks, which is as exact as with many rows and takes as long as XLA's own form.

    XLA's CPU code for one row accumulates all products in a single float32 sum. For VGG's fc1 the error is 4e-6, ten
    times that of a product of matrices.
    """
    inputs, units = matrix.shape
    block = next(size for size in range(256, 0, -1) if inputs % size == 0)
    blocks = jnp.einsum("bi,bio->bo", x.reshape(-1, block), matrix.reshape(-1, block, units))
    return blocks.sum(0).reshape(*x.shape[:-1], units)


def _long_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiplies as a one-dimensional convolution, which XLA gives to Eigen."""
    numbers = ("NHC", "HIO", "NHC")
    rows = lax.conv_general_dilated(
        x.reshape(x.shape[0], -1, x.shape[-1]), matrix[None], (1,), "VALID", dimension_numbers=numbers
    )
    return rows.reshape(*x.shape[:-1], -1)


def _enlarged_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with "same" padding and one extra row, so that XLA gives it to Eigen; then drops the row."""
    down, across = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), "SAME")
    pads = (down[0], down[1] + 1), across
    rows = lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return rows[:, :-1]


def _sum_of_terms(x: jax.Array, kernel: jax.Array, *, strides: Pair, padding: str, dilation: Pair) -> jax.Array:
    """Convolves as a sum over window offsets and channels: for the first layer of a network, and 1x1 on few channels.

    One image of 224x224x3 with a 3x3 kernel, strides 2 and 16 filters takes 0.25 instead of 0.58 ms.
    """
    height, width, channels, filters = kernel.shape
    slices = cpu.window_slices(x, 0.0, (height, width), strides, padding, dilation)
    places = kernel.reshape(height * width, channels, 1, 1, 1, filters)
    terms = (
        pixels[..., channel, None] * place[channel]
        for pixels, place in zip(slices, places, strict=True)
        for channel in range(channels)
    )
    # Without it XLA would compute the sum inside the padding of the next layer, in a slower loop.
    total: jax.Array = lax.optimization_barrier(cpu.sum_up(terms))
    return total


def _product_of_windows(x: jax.Array, kernel: jax.Array, *, strides: Pair, padding: str, dilation: Pair) -> jax.Array:
    """Convolves as im2col and one matrix product; with few output pixels the windows are not larger than the kernel.

    A convolution takes up to twice as long there, and its gradients three times.
    """
    height, width, _, filters = kernel.shape
    pixels = cpu.joined_windows(x, (height, width), strides, padding, dilation)
    return multiply(pixels, kernel.reshape(-1, filters))


def _differentiated_as(plain: Product, fast: Product, forward: Product | None = None) -> Product:
    """Returns `fast`, which computes the same as `plain`, with the derivatives of `plain`.

    Args:
        plain: What is differentiated.
        fast: What is computed.
        forward: What is computed where a derivative is needed too; None for `fast`.
    """

    @jax.custom_jvp
    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return fast(x, kernel)

    @functools.partial(product.defjvp, symbolic_zeros=True)
    def derivative(primals: Factors, tangents: Factors) -> Factors:
        (x, kernel), (x_change, kernel_change) = primals, tangents
        changes = []
        if not isinstance(x_change, SymbolicZero):  # skip symbolic-zero tangents
            changes.append(plain(x_change, kernel))
        if not isinstance(kernel_change, SymbolicZero):
            changes.append(plain(x, kernel_change))
        return (forward or fast)(x, kernel), sum(changes[1:], start=changes[0])

    return product
