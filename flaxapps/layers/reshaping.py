"""Reshaping layers: padding, cropping, upsampling, flattening and permuting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import Pair, Window, check_images, pair, product
from flaxapps.graph.symbolic import Layer, Shape, Weights
from flaxapps.layers.image_preprocessing import check_interpolation, resize_any


@dataclass(frozen=True)
class ZeroPadding2D(Layer):
    """Pads images with zeros: ((top, bottom), (left, right)), or Keras's shorthands."""

    padding: int | Sequence[Window] = ((1, 1), (1, 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", sides(self.padding))

    def output_shape(self, *shapes: Shape) -> Shape:
        batch, *sizes, channels = check_images(shapes[0])
        pads = map(sum, sides(self.padding))
        grown = [None if size is None else size + pad for size, pad in zip(sizes, pads, strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.pad(inputs[0], ((0, 0), *sides(self.padding), (0, 0)))


@dataclass(frozen=True)
class Cropping2D(Layer):
    """Crops images by ((top, bottom), (left, right)), or Keras's shorthands."""

    cropping: int | Sequence[Window] = ((0, 0), (0, 0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "cropping", sides(self.cropping))

    def output_shape(self, *shapes: Shape) -> Shape:
        batch, *sizes, channels = check_images(shapes[0])
        cuts = map(sum, sides(self.cropping))
        left = [None if size is None else size - cut for size, cut in zip(sizes, cuts, strict=True)]
        if any(size is not None and size < 1 for size in left):
            raise ValueError(f"cropping={self.cropping} is too large for an image of {sizes[0]}x{sizes[1]} pixels")
        return (batch, *left, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        (top, bottom), (left, right) = sides(self.cropping)
        height, width = inputs[0].shape[1:3]
        return inputs[0][:, top : height - bottom, left : width - right]


@dataclass(frozen=True)
class UpSampling2D(Layer):
    """Upsamples images by integer factors.

    "nearest" repeats rows and columns. Other methods interpolate between pixel centres; "bilinear" repeats the border
    in the outermost half pixel.
    """

    size: Window = (2, 2)
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size))
        object.__setattr__(self, "interpolation", check_interpolation(self.interpolation.lower()))

    def output_shape(self, *shapes: Shape) -> Shape:
        batch, *sizes, channels = check_images(shapes[0])
        grown = [None if size is None else size * factor for size, factor in zip(sizes, pair(self.size), strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = inputs[0]
        down, right = pair(self.size)
        if self.interpolation == "nearest":
            return jnp.repeat(jnp.repeat(x, down, axis=1), right, axis=2)
        return resize_any(x, (x.shape[1] * down, x.shape[2] * right), self.interpolation)


@dataclass(frozen=True)
class Flatten(Layer):
    """Flattens all dimensions but the batch, in row-major order.

    Attributes:
        data_format: "channels_first" moves axis 1 to the end before flattening, as Keras does.
    """

    data_format: str | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, product of the rest)."""
        return (shapes[0][0], product(shapes[0][1:]))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = jnp.moveaxis(inputs[0], 1, -1) if self.data_format == "channels_first" and inputs[0].ndim > 2 else inputs[0]
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def sides(value: int | Sequence[Window]) -> tuple[Pair, Pair]:
    """Keras's shorthands: 1 stands for ((1, 1), (1, 1)), and (1, 2) for ((1, 1), (2, 2))."""
    height, width = (value, value) if isinstance(value, int) else value
    return pair(height), pair(width)


@dataclass(frozen=True)
class Reshape(Layer):
    """Reshapes each example to `target_shape` (without the batch); one size can be -1 and is inferred."""

    target_shape: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_shape", tuple(self.target_shape))

    def output_shape(self, *shapes: Shape) -> Shape:
        """The target shape; -1 is free if the input has a free dimension."""
        batch, *sizes = shapes[0]
        size, given = product(sizes), math.prod(length for length in self.target_shape if length != -1)
        guessed = -1 in self.target_shape
        if size is not None and (size != given if not guessed else not given or size % given):
            raise ValueError(f"{size} values cannot be reshaped to target_shape={tuple(self.target_shape)}")
        rest = None if size is None else size // given if guessed else 1
        return (batch, *(rest if length == -1 else length for length in self.target_shape))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0].reshape([size or 0 for size in self.output_shape(inputs[0].shape)])


@dataclass(frozen=True)
class Permute(Layer):
    """Permutes the dimensions; `dims` counts them from 1, after the batch."""

    dims: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))

    def output_shape(self, *shapes: Shape) -> Shape:
        if sorted(self.dims) != list(range(1, len(shapes[0]))):
            raise ValueError(
                f"dims={tuple(self.dims)} is not a permutation of the dimensions after the batch of shape {shapes[0]}"
            )
        return (shapes[0][0], *(shapes[0][axis] for axis in self.dims))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.transpose(inputs[0], (0, *self.dims))


@dataclass(frozen=True)
class RepeatVector(Layer):
    """Repeats each vector `n` times: (batch, n, size)."""

    n: int

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 2:
            raise ValueError(f"Expected vectors (batch, size), got shape {shapes[0]}")
        return (shapes[0][0], self.n, shapes[0][1])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.repeat(inputs[0][:, None, :], self.n, axis=1)
