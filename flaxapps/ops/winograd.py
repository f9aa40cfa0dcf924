"""Winograd convolutions of stride 1: a 3x3 kernel takes 36 products for 16 pixels, in place of 144.

Lavin and Gray, https://arxiv.org/abs/1509.09308. In each direction in which the kernel is longer than one pixel, a tile
of pixels and the kernel are evaluated at some points and multiplied there. Four output pixels are interpolated from the
products. The usual points 0, 1, -1, 2, -2 and infinity have four times the rounding error of those below, which are
close to the optimum of a search (https://arxiv.org/abs/1803.10986 explains the effect of the points).

This form is for CPUs. Each product has its own weight array. Optimization barriers separate the stages, because XLA
would recompute a stage inside every product that reads it.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Pair = tuple[int, int]
POINTS = {3: (math.sqrt(0.5), math.sqrt(2)), 5: (0.45, 1.0, 1 / 0.45), 7: (0.37, 0.78, 1 / 0.78, 1 / 0.37)}


class Interpolation(NamedTuple):
    """Toom-Cook matrices in one dimension: output = a @ ((g @ kernel) * (b @ tile)).

    Attributes:
        a: (output pixels, products).
        g: (products, length of the kernel).
        b: (products, products); a tile has as many pixels as products.
    """

    a: Matrix
    g: Matrix
    b: Matrix


@functools.cache
def interpolation(length: int) -> Interpolation:
    """Computes the matrices for four output pixels, with the points 0, POINTS and their negatives, and infinity.

    Args:
        length: Length of the kernel: 1, which gives identities, or one of POINTS.
    """
    if length == 1:
        return Interpolation(np.eye(1), np.eye(1), np.eye(1))
    positive = POINTS[length]
    points = np.array([0.0, *(sign * point for point in positive for sign in (1, -1))])
    tile = len(points) + 1
    output = tile - length + 1
    others = [np.delete(points, index) for index in range(len(points))]
    products = np.array([np.prod(point - other) for point, other in zip(points, others, strict=True)])
    infinity = np.eye(tile)[-1:]
    powers = points[:, None] ** np.arange(tile)
    a = np.vstack([powers[:, :output], infinity[:, -output:]]).T
    g = np.vstack([powers[:, :length] / products[:, None], infinity[:, -length:]])
    b = np.vstack([*(np.append(np.poly(other)[::-1], 0) for other in others), np.poly(points)[::-1]])
    return Interpolation(a, g, np.where(abs(b) < 1e-12, 0, b))  # exact zeros are skipped in `_combine`


def product_names(kernel_size: Pair) -> tuple[str, ...]:
    """Returns the names of the matrices of a transformed kernel, in row-major order of a tile."""
    rows, columns = (len(interpolation(length).b) for length in kernel_size)
    return tuple(f"product_{row}{column}" for row in range(rows) for column in range(columns))


def transform_kernel(kernel: Any) -> dict[str, Any]:
    """Transforms a kernel (height, width, channels, filters) to matrices (channels, filters), by name.

    Args:
        kernel: A NumPy or JAX array; the matrices are of the same kind.
    """
    height, width, *matrix_shape = kernel.shape
    matrix = np.kron(interpolation(height).g, interpolation(width).g).astype(kernel.dtype)
    planes = matrix @ kernel.reshape(height * width, -1)
    return {
        name: plane.reshape(matrix_shape) for name, plane in zip(product_names((height, width)), planes, strict=True)
    }


@functools.partial(jax.jit, static_argnames=("kernel_size", "padding"))
def winograd_convolution(x: jax.Array, matrices: Mapping[str, jax.Array], kernel_size: Pair, padding: str) -> jax.Array:
    """Convolves with stride 1 and a kernel of `transform_kernel`.

    Args:
        x: Images (batch, height, width, channels).
        matrices: The transformed kernel.
        kernel_size: Height and width of the kernel.
        padding: "valid" or "same".
    """
    vertical, horizontal = (interpolation(length) for length in kernel_size)
    pads = lax.padtype_to_pads(x.shape[1:3], kernel_size, (1, 1), padding.upper())
    height, width = (
        size + sum(pad) - length + 1 for size, pad, length in zip(x.shape[1:3], pads, kernel_size, strict=True)
    )
    down, across = -(-height // len(vertical.a)), -(-width // len(horizontal.a))
    (x,) = _barrier([_pad(x, pads, kernel_size, (down * len(vertical.a), across * len(horizontal.a)))])
    rows = _stage(vertical.b, [_stepping(x, row, len(vertical.a), down, axis=1) for row in range(len(vertical.b))])
    tiles = [
        tile
        for row in rows
        for tile in _combine(
            horizontal.b,
            [_stepping(row, column, len(horizontal.a), across, axis=2) for column in range(len(horizontal.b))],
        )
    ]
    names = product_names(kernel_size)
    products = [tile @ matrices[name] for name, tile in zip(names, _barrier(tiles), strict=True)]
    # Output rows, column by column of the tile.
    count = len(horizontal.b)
    columns = [part for column in range(count) for part in _combine(vertical.a, products[column::count])]
    if min(kernel_size) > 1:
        columns = _barrier(columns)
    pixels = [_combine(horizontal.a, columns[row :: len(vertical.a)]) for row in range(len(vertical.a))]
    # (batch, down, row in tile, across, column in tile, filters)
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    return stacked.reshape(x.shape[0], down * len(vertical.a), across * len(horizontal.a), -1)[:, :height, :width]


def _pad(x: jax.Array, pads: Sequence[Pair], kernel_size: Pair, output: Pair) -> jax.Array:
    """Pads images with zeros, so that a convolution gives `output` pixels."""
    # At least the padding in `pads`; more where the last tiles reach beyond the output.
    ends = (output[axis] + kernel_size[axis] - 1 - x.shape[axis + 1] - pads[axis][0] for axis in range(2))
    around = [(before, end, 0) for (before, _), end in zip(pads, ends, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])


def _stepping(x: jax.Array, start: int, step: int, count: int, axis: int) -> jax.Array:
    return lax.slice_in_dim(x, start, start + step * (count - 1) + 1, step, axis)


def _stage(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    return _barrier(_combine(matrix, parts)) if len(matrix) > 1 else list(parts)


def _combine(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiplies a matrix by a vector of arrays, skipping zeros of the matrix."""
    return [
        functools.reduce(jnp.add, (part * float(factor) for part, factor in zip(parts, row, strict=True) if factor))
        for row in matrix
    ]


def _barrier(parts: Iterable[jax.Array]) -> list[jax.Array]:
    result: list[jax.Array] = lax.optimization_barrier(list(parts))
    return result
