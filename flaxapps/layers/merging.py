"""Layers with several inputs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph import Layer, Shape, Weights
from flaxapps.layers.shapes import compatible


@dataclass(frozen=True)
class Add(Layer):
    """Sum of the inputs, which must have one shape."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """The common shape."""
        if len(shapes) < 2 or any(not compatible(shape, shapes[0]) for shape in shapes):
            raise ValueError(f"Add takes two or more inputs of one shape, got {list(shapes)}")
        return tuple(next((size for size in sizes if size is not None), None) for sizes in zip(*shapes, strict=True))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Adds in the order of the inputs."""
        return sum(inputs[1:], start=inputs[0])


@dataclass(frozen=True)
class Concatenate(Layer):
    """The inputs one after the other along `axis`."""

    axis: int = -1

    def output_shape(self, *shapes: Shape) -> Shape:
        """The sizes along the axis add up."""
        axis = self.axis % len(shapes[0])
        cut = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
        if any(not compatible(shape, cut[0]) for shape in cut):
            raise ValueError(f"Concatenate takes inputs that differ along axis {self.axis} only, got {list(shapes)}")
        sizes = [shape[axis] for shape in shapes]
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Concatenates."""
        return jnp.concatenate(inputs, self.axis)
