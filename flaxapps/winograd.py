"""3x3 convolutions as Winograd's F(4x4, 3x3): 36 matrix products for 16 pixels, in place of 144.

Lavin and Gray, https://arxiv.org/abs/1509.09308. A tile of 6x6 pixels and the kernel are evaluated at six points in
both directions and multiplied there, and from the products 4x4 pixels are interpolated. The usual points 0, 1, -1, 2,
-2 and infinity make four times the rounding errors of those below (https://arxiv.org/abs/1803.10986 says why).

The form is for CPUs. Each of the 36 products has a weight array of its own, and barriers keep the stages apart: XLA
would compute a stage again inside each of the products that read it.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
OUTPUT = 4  # pixels of a tile that come out, in each direction
KERNEL = 3
TILE = OUTPUT + KERNEL - 1
POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))  # and infinity


def _interpolation() -> tuple[Matrix, Matrix, Matrix]:
    """Toom and Cook's matrices: output = A @ ((G @ kernel) * (B @ tile)), in one dimension."""
    points = np.array(POINTS)
    others = [np.delete(points, index) for index in range(len(points))]
    products = np.array([np.prod(point - other) for point, other in zip(points, others, strict=True)])
    infinity = np.eye(TILE)[-1:]
    powers = points[:, None] ** np.arange(TILE)
    a = np.vstack([powers[:, :OUTPUT], infinity[:, -OUTPUT:]]).T
    g = np.vstack([powers[:, :KERNEL] / products[:, None], infinity[:, -KERNEL:]])
    b = np.vstack([*(np.append(np.poly(other)[::-1], 0) for other in others), np.poly(points)[::-1]])
    return a, g, np.where(abs(b) < 1e-12, 0, b)


A, G, B = _interpolation()
PRODUCTS = tuple(f"product_{row}{column}" for row in range(TILE) for column in range(TILE))


def transform_kernel(kernel: Any) -> dict[str, Any]:
    """The 36 matrices (channels, filters) of a kernel (3, 3, channels, filters), by the names of PRODUCTS.

    Args:
        kernel: In NumPy or JAX; so are the matrices.
    """
    matrix = np.kron(G, G).astype(kernel.dtype)
    planes = matrix @ kernel.reshape(KERNEL * KERNEL, -1)
    return {name: plane.reshape(kernel.shape[2:]) for name, plane in zip(PRODUCTS, planes, strict=True)}


@functools.partial(jax.jit, static_argnames="padding")
def winograd_convolution(x: jax.Array, matrices: Mapping[str, jax.Array], padding: str) -> jax.Array:
    """A convolution of stride 1 with a kernel that `transform_kernel` has transformed.

    Args:
        x: Images (batch, height, width, channels).
        matrices: The transformed kernel.
        padding: "valid" or "same".
    """
    pads = lax.padtype_to_pads(x.shape[1:3], (KERNEL, KERNEL), (1, 1), padding.upper())
    height, width = (size + sum(pad) - KERNEL + 1 for size, pad in zip(x.shape[1:3], pads, strict=True))
    down, across = -(-height // OUTPUT), -(-width // OUTPUT)
    (top, _), (left, _) = pads
    bottom, right = (
        OUTPUT * tiles + KERNEL - 1 - size - before
        for tiles, size, before in zip((down, across), x.shape[1:3], (top, left), strict=True)
    )
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    (x,) = _barrier([x])
    rows = _barrier(_combine(B, [_every_fourth(x, row, down, axis=1) for row in range(TILE)]))
    tiles = _barrier(
        tile
        for row in rows
        for tile in _combine(B, [_every_fourth(row, column, across, axis=2) for column in range(TILE)])
    )
    products = [tile @ matrices[name] for name, tile in zip(PRODUCTS, tiles, strict=True)]
    columns = _barrier(
        value for column in range(TILE) for value in _combine(A, products[column::TILE])
    )  # column by column, the four output rows of each
    pixels = [_combine(A, columns[row::OUTPUT]) for row in range(OUTPUT)]
    # (batch, down, row in tile, across, column in tile, filters)
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    return stacked.reshape(x.shape[0], down * OUTPUT, across * OUTPUT, -1)[:, :height, :width]


def _every_fourth(x: jax.Array, start: int, count: int, axis: int) -> jax.Array:
    return lax.slice_in_dim(x, start, start + OUTPUT * (count - 1) + 1, OUTPUT, axis)


def _combine(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """The sums of parts that the rows of a matrix stand for."""
    return [
        functools.reduce(jnp.add, (part * float(factor) for part, factor in zip(parts, row, strict=True) if factor))
        for row in matrix
    ]


def _barrier(parts: Iterable[jax.Array]) -> list[jax.Array]:
    result: list[jax.Array] = lax.optimization_barrier(list(parts))
    return result
