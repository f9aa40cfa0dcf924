"""Layers that move values around: padding and flattening."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph import Layer, Shape, Weights
from flaxapps.layers.shapes import Pair, Window, check_images, pair, product


@dataclass(frozen=True)
class ZeroPadding2D(Layer):
    """Zeros around the image: ((top, bottom), (left, right)), or Keras's shorthands for it."""

    padding: int | Sequence[Window] = ((1, 1), (1, 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", self._sides())

    def _sides(self) -> tuple[Pair, Pair]:
        height, width = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        return pair(height), pair(width)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Height and width grow by the padding."""
        batch, *sizes, channels = check_images(shapes[0])
        grown = [None if size is None else size + sum(pad) for size, pad in zip(sizes, self._sides(), strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pads."""
        return jnp.pad(inputs[0], ((0, 0), *self._sides(), (0, 0)))


@dataclass(frozen=True)
class Flatten(Layer):
    """All dimensions but the first in one, (height, width, channels) row by row."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, product of the rest)."""
        return (shapes[0][0], product(shapes[0][1:]))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Reshapes."""
        return inputs[0].reshape(inputs[0].shape[0], -1)
