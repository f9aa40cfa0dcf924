"""Normalization layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps import ops
from flaxapps.batch import Batch
from flaxapps.layers.shapes import channel_count
from flaxapps.recording import Layer, Shape, Weight, Weights

Axes = int | Sequence[int]


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """Normalization over all axes but the last, with the biased variance, in float32.

    Inference and frozen layers use the moving statistics; training uses those of the batch, on all devices together,
    and moves the others by 1 - momentum towards them.
    """

    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        if self.axis not in (-1, len(shapes[0]) - 1):
            raise ValueError(f"Only the last axis can be normalized, got axis={self.axis} for shape {shapes[0]}")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias, and the moving mean and var."""
        shape = (channel_count(shapes[0]),)
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        trained |= {"bias": Weight(shape, "zeros")} if self.center else {}
        return trained | {"mean": Weight(shape, "zeros", "batch_stats"), "var": Weight(shape, "ones", "batch_stats")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes with the moving statistics."""
        return self._normalize(inputs[0], weights, weights["mean"], weights["var"])

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = inputs[0].astype(weights["mean"].dtype)
        mean = batch.mean(x)
        var = batch.mean(jnp.square(x - mean))
        moved = {
            leaf: weights[leaf] * self.momentum + value * (1 - self.momentum)
            for leaf, value in (("mean", mean), ("var", var))
        }
        return self._normalize(inputs[0], weights, mean, var), moved

    def _normalize(self, x: jax.Array, weights: Weights, mean: jax.Array, var: jax.Array) -> jax.Array:
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.scale:
            factor = factor * weights["scale"]
        offset = -mean * factor
        if self.center:
            offset = offset + weights["bias"]
        return (x.astype(factor.dtype) * factor + offset).astype(x.dtype)


def _check_axes(shape: Shape, axes: Sequence[int]) -> None:
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"There is no axis {axis} in shape {shape}")


def _sizes(shape: Shape, axes: Sequence[int]) -> tuple[int, ...]:
    """Sizes of a shape along axes.

    Raises:
        ValueError: There are not so many axes, or a size is free.
    """
    _check_axes(shape, axes)
    sizes = tuple(size for size in (shape[axis] for axis in axes) if size is not None)
    if len(sizes) < len(axes):
        raise ValueError(f"The sizes along the axes {tuple(axes)} must be known, got shape {shape}")
    return sizes


def _affine(
    x: jax.Array, mean: jax.Array, factor: jax.Array, scale: jax.Array | None, bias: jax.Array | None
) -> jax.Array:
    """(x - mean) * factor * scale + bias, in Keras's order of operations."""
    if scale is not None:
        factor = factor * scale
    offset = -mean * factor
    return x * factor + (offset if bias is None else offset + bias)


def unit_norm(x: jax.Array, axes: int | tuple[int, ...], epsilon: float) -> jax.Array:
    """Brings vectors along the axes to Euclidean norm 1, in float32 at least; norms below epsilon count as epsilon."""
    wide = ops.at_least_float32(x)
    squared = jnp.sum(jnp.square(wide), axes, keepdims=True)
    return (wide * jnp.minimum(jax.lax.rsqrt(squared), 1 / epsilon)).astype(x.dtype)


class _OverAxes(Layer):
    """A layer with an axis or several, which Keras sorts as they are written: negative ones first."""

    axis: Axes

    def __post_init__(self) -> None:
        if not isinstance(self.axis, int):
            object.__setattr__(self, "axis", self.axes)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes in Keras's order."""
        return (self.axis,) if isinstance(self.axis, int) else tuple(sorted(self.axis))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        _check_axes(shapes[0], self.axes)
        self.weights(*shapes)  # raises where an array depends on a free size
        return shapes[0]


@dataclass(frozen=True)
class LayerNormalization(_OverAxes):
    """Normalization of every example on its own over the given axes, with the biased variance, in float32.

    Traps: several axes are sorted as written and the arrays have their sizes in that order. `rms_scaling` is not the
    RMS norm: it divides by the standard deviation without subtracting the mean, has a scale even where `scale` is
    False, and never a bias.
    """

    axis: Axes = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    rms_scaling: bool = False

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias."""
        shape = _sizes(shapes[0], self.axes)
        trained = {"scale": Weight(shape, "ones")} if self.scale or self.rms_scaling else {}
        return trained | ({"bias": Weight(shape, "zeros")} if self.center and not self.rms_scaling else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes."""
        x, axes = ops.at_least_float32(inputs[0]), self.axes
        shape = [1] * x.ndim
        for axis in axes:
            shape[axis] = x.shape[axis]
        scale, bias = (
            weights[leaf].astype(x.dtype).reshape(shape) if leaf in weights else None for leaf in ("scale", "bias")
        )
        factor = jax.lax.rsqrt(jnp.var(x, axes, keepdims=True) + self.epsilon)
        mean = jnp.zeros_like(factor) if self.rms_scaling else jnp.mean(x, axes, keepdims=True)
        return _affine(x, mean, factor, scale, bias).astype(inputs[0].dtype)


@dataclass(frozen=True)
class GroupNormalization(Layer):
    """Normalization of every example over all positions and a group of neighbouring channels, in float32.

    Attributes:
        groups: Number of groups; -1 makes every channel one (instance normalization).
    """

    groups: int = 32
    axis: int = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def _split(self, shape: Shape) -> tuple[int, int]:
        """Number of groups and channels in each."""
        (channels,) = _sizes(shape, (self.axis,))
        groups = channels if self.groups == -1 else self.groups
        if groups < 1 or channels % groups:
            raise ValueError(f"{channels} channels cannot be divided into {groups} groups")
        return groups, channels // groups

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        self._split(shapes[0])
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias."""
        shape = _sizes(shapes[0], (self.axis,))
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        return trained | ({"bias": Weight(shape, "zeros")} if self.center else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes, with the axis split into groups and the channels of each."""
        x = ops.at_least_float32(inputs[0])
        axis = self.axis % x.ndim
        split = self._split(x.shape)
        shape = [*(1,) * axis, *split, *(1,) * (x.ndim - axis - 1)]
        scale, bias = (
            weights[leaf].astype(x.dtype).reshape(shape) if leaf in weights else None for leaf in ("scale", "bias")
        )
        grouped = x.reshape(*x.shape[:axis], *split, *x.shape[axis + 1 :])
        axes = tuple(each for each in range(1, grouped.ndim) if each != axis)
        factor = jax.lax.rsqrt(jnp.var(grouped, axes, keepdims=True) + self.epsilon)
        result = _affine(grouped, jnp.mean(grouped, axes, keepdims=True), factor, scale, bias)
        return result.reshape(x.shape).astype(inputs[0].dtype)


@dataclass(frozen=True)
class RMSNormalization(_OverAxes):
    """Division by the root of the mean square over the given axes, in float32, times a scale.

    Trap: Keras applies the scale as NumPy broadcasts it, so that axes other than the last ones cannot have different
    sizes.
    """

    axis: Axes = -1
    epsilon: float = 1e-6

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The scale."""
        return {"scale": Weight(_sizes(shapes[0], self.axes), "ones")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes."""
        x = ops.at_least_float32(inputs[0])
        mean_square = jnp.mean(jnp.square(x), self.axes, keepdims=True)
        result = x * jax.lax.rsqrt(mean_square + self.epsilon) * weights["scale"].astype(x.dtype)
        return result.astype(inputs[0].dtype)


@dataclass(frozen=True)
class UnitNormalization(_OverAxes):
    """Division by the Euclidean norm over the given axes, in float32; zeros stay zero."""

    axis: Axes = -1

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes."""
        return unit_norm(inputs[0], self.axes, epsilon=1e-12)
