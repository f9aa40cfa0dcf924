"""Merging layers: elementwise operations, concatenation and dot products of several inputs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import compatible
from flaxapps.graph.symbolic import Layer, Shape, Weights
from flaxapps.layers.normalization import unit_norm
from flaxapps.ops import primitives as ops


class _Elementwise(Layer):
    """Base class of elementwise layers, whose inputs broadcast.

    Trap: inputs of lower rank get the missing dimensions after the batch dimension. NumPy would put them before it.
    """

    several_inputs = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Broadcast as Keras does: a size of 1 is expanded, and a free size makes the result free."""
        batches = {shape[0] for shape in shapes} - {None}
        sizes = _broadcast([shape[1:] for shape in shapes])
        if not shapes or sizes is None or len(batches) > 1:
            raise ValueError(f"{self.class_name} takes inputs of one shape, or that broadcast, got {list(shapes)}")
        return (next(iter(batches), None), *sizes)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        rank = max(x.ndim for x in inputs)
        return self.merge([jnp.expand_dims(x, range(1, 1 + rank - x.ndim)) for x in inputs])

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        """Combine arrays of one rank."""
        raise NotImplementedError


def _broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """The broadcast shape, or None if the shapes are incompatible; without the batch."""
    rank = max(map(len, shapes), default=0)
    result: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        fixed = {size for size in sizes if size not in (None, 1)}
        if len(fixed) > 1:
            return None
        result.append(None if None in sizes else next(iter(fixed), 1))
    return tuple(result)


@dataclass(frozen=True)
class Add(_Elementwise):
    """Sum of the inputs."""

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        return functools.reduce(jnp.add, inputs)


@dataclass(frozen=True)
class Subtract(_Elementwise):
    """The first input minus the second."""

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != 2:
            raise ValueError(f"Subtract takes two inputs, got {list(shapes)}")
        return super().output_shape(*shapes)

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        return inputs[0] - inputs[1]


@dataclass(frozen=True)
class Multiply(_Elementwise):
    """Product of the inputs, for example of an image and weights per channel (batch, 1, 1, channels)."""

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        if len({each.shape for each in inputs}) > 1:
            # The weights of channels are computed from the image. Without it, XLA computes the depthwise convolution
            # that made the image a second time for the product.
            inputs = [ops.computed_once(each) for each in inputs]
        return functools.reduce(jnp.multiply, inputs)


@dataclass(frozen=True)
class Average(_Elementwise):
    """Mean of the inputs."""

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        return functools.reduce(jnp.add, inputs) / len(inputs)


@dataclass(frozen=True)
class Maximum(_Elementwise):
    """Elementwise maximum of the inputs."""

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        return functools.reduce(jnp.maximum, inputs)


@dataclass(frozen=True)
class Minimum(_Elementwise):
    """Elementwise minimum of the inputs."""

    def merge(self, inputs: Sequence[jax.Array]) -> jax.Array:
        return functools.reduce(jnp.minimum, inputs)


@dataclass(frozen=True)
class Concatenate(Layer):
    """Concatenation of the inputs along `axis`."""

    several_inputs = True

    axis: int = -1

    def output_shape(self, *shapes: Shape) -> Shape:
        """The sizes along the axis add up."""
        axis = self.axis % len(shapes[0])
        cut = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
        if any(not compatible(shape, cut[0]) for shape in cut):
            raise ValueError(f"Concatenate takes inputs that differ only along axis {self.axis}, got {list(shapes)}")
        sizes = [shape[axis] for shape in shapes]
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.concatenate(inputs, self.axis)


@dataclass(frozen=True)
class Dot(Layer):
    """Batchwise dot product of two inputs along one axis of each.

    The output has the other dimensions of the first input, then those of the second; two vectors give (batch, 1).

    Attributes:
        axes: The axis of each input, or one axis for both; the batch is axis 0.
        normalize: Whether vectors along the axes are scaled to norm 1 first, which gives the cosine similarity.
    """

    several_inputs = True

    axes: int | Sequence[int]
    normalize: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.axes, int):
            object.__setattr__(self, "axes", tuple(self.axes))

    def _axes(self, *ranks: int) -> tuple[int, int]:
        first, second = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        return first % ranks[0], second % ranks[1]

    def output_shape(self, *shapes: Shape) -> Shape:
        """The remaining dimensions of both inputs."""
        if len(shapes) != 2:
            raise ValueError(f"Dot takes two inputs, got {list(shapes)}")
        axes = self._axes(*map(len, shapes))
        if 0 in axes or shapes[0][axes[0]] != shapes[1][axes[1]]:
            raise ValueError(f"Dot cannot sum along axes={self.axes} of inputs of shapes {list(shapes)}")
        first, second = (shape[1:axis] + shape[axis + 1 :] for shape, axis in zip(shapes, axes, strict=True))
        return (shapes[0][0], *((first + second) or (1,)))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        axes = self._axes(*(x.ndim for x in inputs))
        if self.normalize:
            inputs = tuple(unit_norm(x, axis, epsilon=1e-7) for x, axis in zip(inputs, axes, strict=True))
        first, second = inputs
        summed, examples = ((axes[0],), (axes[1],)), ((0,), (0,))
        result: jax.Array = jax.lax.dot_general(first, second, (summed, examples))
        return result if result.ndim > 1 else result[:, None]
