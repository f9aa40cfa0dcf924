"""TensorFlow's image resizing methods that differ from Keras 3 on JAX.

Keras 1 and 2 resized with TensorFlow, so files of these versions need its results.
Sources: tensorflow/core/kernels/image/resize_bilinear_op.cc, resize_bicubic_op.cc, resize_area_op.cc,
resize_nearest_neighbor_op.cc and scale_and_translate_op.cc.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flaxapps.graph.shapes import Pair

Matrix = NDArray[np.float32]
BICUBIC_TABLE = 1024  # TensorFlow tabulates the cubic kernel at this many positions between two pixels


def resample(x: jax.Array, size: Pair, method: str) -> jax.Array:
    """Resize images as TensorFlow does.

    Args:
        x: (batch, height, width, channels).
        size: Height and width of the result.
        method: One of `METHODS`. "legacy_bilinear" is that of TensorFlow 1, which aligns the first pixels' corners and
            so shifts the image by up to half a pixel.

    Returns:
        Images in the dtype of `x`.
    """
    rows, columns = (
        jnp.asarray(METHODS[method](length, wanted), x.dtype) for length, wanted in zip(x.shape[1:3], size, strict=True)
    )
    precision = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=precision)
    return jnp.einsum("jw,biwc->bijc", columns, x, precision=precision)


def _legacy_bilinear(length: int, wanted: int) -> Matrix:
    places = np.arange(wanted, dtype=np.float32) * np.float32(length / wanted)
    lower = np.floor(places).astype(int)
    share = places - lower
    matrix = np.zeros((wanted, length), np.float32)
    np.add.at(matrix, (np.arange(wanted), np.minimum(lower, length - 1)), 1 - share)
    np.add.at(matrix, (np.arange(wanted), np.minimum(lower + 1, length - 1)), share)
    return matrix


def _legacy_nearest(length: int, wanted: int) -> Matrix:
    places = np.floor(np.arange(wanted, dtype=np.float32) * np.float32(length / wanted)).astype(int)
    return np.asarray(np.eye(length)[np.minimum(places, length - 1)], np.float32)


def _area(length: int, wanted: int) -> Matrix:
    """Means over the input intervals that the output pixels cover."""
    edges = np.arange(wanted + 1) * (length / wanted)
    starts, ends = edges[:-1, None], edges[1:, None]
    pixels = np.arange(length)[None]
    covered = np.clip(np.minimum(ends, pixels + 1) - np.maximum(starts, pixels), 0, None)
    return np.asarray(covered / covered.sum(1, keepdims=True), np.float32)


def _bicubic(length: int, wanted: int) -> Matrix:
    """Keys's cubic (a = -0.5) at tabulated positions; weights outside the image are dropped."""
    places = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    first = np.floor(places).astype(int)
    share = np.rint((places - first) * BICUBIC_TABLE) / BICUBIC_TABLE
    matrix = np.zeros((wanted, length))
    for offset in range(-1, 3):
        distance = np.abs(share - offset)
        weight = np.where(
            distance <= 1,
            (1.5 * distance - 2.5) * distance**2 + 1,
            ((-0.5 * distance + 2.5) * distance - 4) * distance + 2,
        )
        inside = (first + offset >= 0) & (first + offset < length)
        matrix[np.arange(wanted)[inside], (first + offset)[inside]] += weight[inside]
    return np.asarray(matrix / matrix.sum(1, keepdims=True), np.float32)


def _kernel_matrix(
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]], radius: float
) -> Callable[[int, int], Matrix]:
    def matrix(length: int, wanted: int) -> Matrix:
        # In float32 as in TensorFlow: rounding decides whether a pixel at the edge of the kernel is included.
        step = 1 / (np.float32(wanted) / np.float32(length))
        middles = (np.arange(wanted, dtype=np.float32)[:, None] + np.float32(0.5)) * step
        distance = np.abs(np.arange(length, dtype=np.float32)[None] + np.float32(0.5) - middles)
        weights = np.where(distance < radius, kernel(distance), 0)
        return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)

    return matrix


def _gaussian(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = 0.5
    return np.exp(-(distance**2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))


def _mitchell(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((7 / 6) * distance - 2) * distance**2 + 8 / 9
    far = (((-7 / 18) * distance + 2) * distance - 10 / 3) * distance + 16 / 9
    return np.where(distance < 1, near, far)


METHODS: Mapping[str, Callable[[int, int], Matrix]] = MappingProxyType(
    {
        "area": _area,
        "gaussian": _kernel_matrix(_gaussian, 1.5),
        "legacy_bilinear": _legacy_bilinear,
        "legacy_nearest": _legacy_nearest,
        "mitchellcubic": _kernel_matrix(_mitchell, 2),
        "tensorflow_bicubic": _bicubic,
    }
)
