"""Layers that give the values of an example another order or shape: reshaping, permuting, repeating."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.layers.shapes import product
from flaxapps.recording import Layer, Shape, Weights


@dataclass(frozen=True)
class Reshape(Layer):
    """The values of every example in `target_shape`, which leaves out the batch; one -1 there takes what is left."""

    target_shape: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_shape", tuple(self.target_shape))

    def output_shape(self, *shapes: Shape) -> Shape:
        """The target; -1 is free where the input has a free dimension."""
        batch, *sizes = shapes[0]
        size, given = product(sizes), math.prod(length for length in self.target_shape if length != -1)
        guessed = -1 in self.target_shape
        if size is not None and (size != given if not guessed else not given or size % given):
            raise ValueError(f"{size} values cannot have the shape {tuple(self.target_shape)}")
        rest = None if size is None else size // given if guessed else 1
        return (batch, *(rest if length == -1 else length for length in self.target_shape))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Reshapes."""
        return inputs[0].reshape([size or 0 for size in self.output_shape(inputs[0].shape)])


@dataclass(frozen=True)
class Permute(Layer):
    """The dimensions in another order; `dims` counts them from 1, after the batch."""

    dims: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))

    def output_shape(self, *shapes: Shape) -> Shape:
        """The sizes in the new order."""
        if sorted(self.dims) != list(range(1, len(shapes[0]))):
            raise ValueError(f"dims={tuple(self.dims)} is no order of the dimensions of shape {shapes[0]}")
        return (shapes[0][0], *(shapes[0][axis] for axis in self.dims))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Transposes."""
        return jnp.transpose(inputs[0], (0, *self.dims))


@dataclass(frozen=True)
class RepeatVector(Layer):
    """Every vector of a batch `n` times: (batch, n, size)."""

    n: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """A new dimension before the last."""
        if len(shapes[0]) != 2:
            raise ValueError(f"Expected vectors (batch, size), got shape {shapes[0]}")
        return (shapes[0][0], self.n, shapes[0][1])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Repeats."""
        return jnp.repeat(inputs[0][:, None, :], self.n, axis=1)
