"""Layers that move values around: padding, cropping, enlarging and flattening."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.layers.images import check_interpolation, resize
from flaxapps.layers.shapes import Pair, Window, check_images, pair, product
from flaxapps.recording import Layer, Shape, Weights


@dataclass(frozen=True)
class ZeroPadding2D(Layer):
    """Zeros around the image: ((top, bottom), (left, right)), or Keras's shorthands for it."""

    padding: int | Sequence[Window] = ((1, 1), (1, 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", _sides(self.padding))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Height and width grow by the padding."""
        batch, *sizes, channels = check_images(shapes[0])
        pads = map(sum, _sides(self.padding))
        grown = [None if size is None else size + pad for size, pad in zip(sizes, pads, strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pads."""
        return jnp.pad(inputs[0], ((0, 0), *_sides(self.padding), (0, 0)))


@dataclass(frozen=True)
class Cropping2D(Layer):
    """Cuts rows and columns off the image: ((top, bottom), (left, right)), or Keras's shorthands for it."""

    cropping: int | Sequence[Window] = ((0, 0), (0, 0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "cropping", _sides(self.cropping))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Height and width shrink by the cropping."""
        batch, *sizes, channels = check_images(shapes[0])
        cuts = map(sum, _sides(self.cropping))
        left = [None if size is None else size - cut for size, cut in zip(sizes, cuts, strict=True)]
        if any(size is not None and size < 1 for size in left):
            raise ValueError(f"cropping={self.cropping} leaves nothing of {sizes[0]}x{sizes[1]} pixels")
        return (batch, *left, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Crops."""
        (top, bottom), (left, right) = _sides(self.cropping)
        height, width = inputs[0].shape[1:3]
        return inputs[0][:, top : height - bottom, left : width - right]


@dataclass(frozen=True)
class UpSampling2D(Layer):
    """Enlarges the image by whole factors.

    "nearest" repeats rows and columns; all others interpolate between the centres of the pixels, so that with
    "bilinear" the outermost half pixel repeats the border.
    """

    size: Window = (2, 2)
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size))
        object.__setattr__(self, "interpolation", check_interpolation(self.interpolation.lower()))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Height and width times the factors."""
        batch, *sizes, channels = check_images(shapes[0])
        grown = [None if size is None else size * factor for size, factor in zip(sizes, pair(self.size), strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Repeats or interpolates."""
        x = inputs[0]
        down, right = pair(self.size)
        if self.interpolation == "nearest":
            return jnp.repeat(jnp.repeat(x, down, axis=1), right, axis=2)
        return resize(x, (x.shape[1] * down, x.shape[2] * right), self.interpolation)


@dataclass(frozen=True)
class Flatten(Layer):
    """All dimensions but the first in one, (height, width, channels) row by row."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, product of the rest)."""
        return (shapes[0][0], product(shapes[0][1:]))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Reshapes."""
        return inputs[0].reshape(inputs[0].shape[0], math.prod(inputs[0].shape[1:]))


def _sides(value: int | Sequence[Window]) -> tuple[Pair, Pair]:
    """Keras's shorthands: 1 stands for ((1, 1), (1, 1)), and (1, 2) for ((1, 1), (2, 2))."""
    height, width = (value, value) if isinstance(value, int) else value
    return pair(height), pair(width)
