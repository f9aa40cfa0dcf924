"""Normalization layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.batch import Batch
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.ops import primitives as ops

Axes = int | Sequence[int]


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """Normalization over all axes but `axis`, with the biased variance, in float32.

    Inference and frozen layers use the moving statistics. Training uses the statistics of the global batch and updates
    the moving ones.

    Attributes:
        axis: The axis of the channels.
        momentum: Weight of the old moving statistics in an update.
        epsilon: Added to the variance.
        center: Whether there is a bias.
        scale: Whether there is a factor.
        renorm: Whether Keras trains it by batch renormalization (Ioffe 2017), which stores more statistics. Inference
            is the same; training is not supported here.
    """

    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    renorm: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        self.weights(*shapes)  # raises if there is no such axis, or its size is free
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias, and the moving mean and var."""
        if not isinstance(self.axis, int) or self.axis % len(shapes[0]) == 0:
            raise ValueError(f"axis should be one axis other than the batch, got {self.axis} for shape {shapes[0]}")
        shape = _sizes(shapes[0], (self.axis,))
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        trained |= {"bias": Weight(shape, "zeros")} if self.center else {}
        kept = {"mean": Weight(shape, "zeros", "batch_stats"), "var": Weight(shape, "ones", "batch_stats")}
        if self.renorm:
            initial = {"moving_stddev": "ones", "renorm_mean": "zeros", "renorm_stddev": "ones"}
            kept |= {leaf: Weight(shape, initializer, "batch_stats") for leaf, initializer in initial.items()}
        return trained | kept

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = jnp.moveaxis(inputs[0], self.axis, -1)
        return jnp.moveaxis(self._normalize(x, weights, weights["mean"], weights["var"]), -1, self.axis)

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.renorm:
            raise ValueError(f"Layer {self.name!r} has renorm=True, which does not train here: freeze the layer")
        channels_last = jnp.moveaxis(inputs[0], self.axis, -1)
        x = channels_last.astype(weights["mean"].dtype)
        mean = batch.mean(x)
        var = batch.mean(jnp.square(x - mean))
        moved = {
            leaf: weights[leaf] * self.momentum + value * (1 - self.momentum)
            for leaf, value in (("mean", mean), ("var", var))
        }
        return jnp.moveaxis(self._normalize(channels_last, weights, mean, var), -1, self.axis), moved

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
        ValueError: An axis is out of range, or its size is free.
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
    """Scale vectors along the axes to Euclidean norm 1, in float32 at least; norms are at least epsilon."""
    wide = ops.float32_at_least(x)
    squared = jnp.sum(jnp.square(wide), axes, keepdims=True)
    return (wide * jnp.minimum(jax.lax.rsqrt(squared), 1 / epsilon)).astype(x.dtype)


class _Cutting(Layer):
    """Base class of norms computed in float32. Keras casts the result to the input's dtype, also to integers."""

    autocast = False
    takes_integers = True

    def _as_keras(self, result: jax.Array, given: Any) -> jax.Array:
        result = result.astype(given)
        floating = jnp.issubdtype(given, jnp.floating)
        return result if floating else result.astype(self.dtype or jnp.float32)


class _OverAxes(Layer):
    """Base class of layers over one axis or several. Keras sorts axes as written, so negative ones come first."""

    axis: Axes

    def __post_init__(self) -> None:
        if not isinstance(self.axis, int):
            object.__setattr__(self, "axis", self.axes)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes in Keras's order."""
        return (self.axis,) if isinstance(self.axis, int) else tuple(sorted(self.axis))

    def output_shape(self, *shapes: Shape) -> Shape:
        _check_axes(shapes[0], self.axes)
        self.weights(*shapes)  # raises if an array depends on a free size
        return shapes[0]


@dataclass(frozen=True)
class LayerNormalization(_OverAxes, _Cutting):
    """Normalization of each example over the given axes, with the biased variance, in float32.

    Traps: several axes are sorted as written, and the arrays have their sizes in that order. `rms_scaling` is not the
    RMS norm: it divides by the standard deviation without subtracting the mean, has a scale even if `scale` is False,
    and never has a bias.
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
        x, axes = ops.float32_at_least(inputs[0]), self.axes
        shape = [1] * x.ndim
        for axis in axes:
            shape[axis] = x.shape[axis]
        scale, bias = (
            weights[leaf].astype(x.dtype).reshape(shape) if leaf in weights else None for leaf in ("scale", "bias")
        )
        factor = jax.lax.rsqrt(jnp.var(x, axes, keepdims=True) + self.epsilon)
        mean = jnp.zeros_like(factor) if self.rms_scaling else jnp.mean(x, axes, keepdims=True)
        return self._as_keras(_affine(x, mean, factor, scale, bias), inputs[0].dtype)


@dataclass(frozen=True)
class GroupNormalization(_Cutting):
    """Normalization of each example over all positions and a group of adjacent channels, in float32.

    Attributes:
        groups: Number of groups; -1 for one per channel (instance normalization).
    """

    groups: int = 32
    axis: int = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def _split(self, shape: Shape) -> tuple[int, int]:
        """Number of groups, and channels per group."""
        (channels,) = _sizes(shape, (self.axis,))
        groups = channels if self.groups == -1 else self.groups
        if groups < 1 or channels % groups:
            raise ValueError(f"{channels} channels cannot be divided into {groups} groups")
        return groups, channels // groups

    def output_shape(self, *shapes: Shape) -> Shape:
        self._split(shapes[0])
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias."""
        shape = _sizes(shapes[0], (self.axis,))
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        return trained | ({"bias": Weight(shape, "zeros")} if self.center else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalize, with the axis split into (groups, channels per group)."""
        x = ops.float32_at_least(inputs[0])
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
        return self._as_keras(result.reshape(x.shape), inputs[0].dtype)


@dataclass(frozen=True)
class RMSNormalization(_OverAxes):
    """Division by the root of the mean square over the given axes, in float32, times a scale.

    Trap: Keras broadcasts the scale as NumPy does, so axes other than the last must have the same size.
    """

    takes_integers = True  # and returns integers, as Keras does
    axis: Axes = -1
    epsilon: float = 1e-6

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        return {"scale": Weight(_sizes(shapes[0], self.axes), "ones")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = ops.float32_at_least(inputs[0])
        mean_square = jnp.mean(jnp.square(x), self.axes, keepdims=True)
        result = x * jax.lax.rsqrt(mean_square + self.epsilon) * weights["scale"].astype(x.dtype)
        return result.astype(inputs[0].dtype)


@dataclass(frozen=True)
class UnitNormalization(_OverAxes):
    """Division by the Euclidean norm over the given axes, in float32; zeros stay zero."""

    axis: Axes = -1

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return unit_norm(inputs[0], self.axes, epsilon=1e-12)
