"""Pooling over one or three spatial dimensions, and adaptive pooling over any number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from flaxapps.graph.symbolic import Shape, Weights
from flaxapps.layers.spatial import Sizes, Spatial, spread
from flaxapps.ops import primitives as ops


@dataclass(frozen=True)
class _Pooling(Spatial):
    pool_size: Sizes = 2
    strides: Sizes | None = None
    padding: str = "valid"
    data_format: str | None = None

    def sizes(self, sizes: Shape) -> Shape:
        """Window arithmetic; strides default to the window."""
        return self._windows(sizes, self.pool_size, self.strides or self.pool_size)

    def _reduce(self, x: jax.Array, start: float, combine: Callable[..., jax.Array]) -> jax.Array:
        window, strides = (spread(each, self.rank) for each in (self.pool_size, self.strides))
        result: jax.Array = lax.reduce_window(
            x, start, combine, (1, *window, 1), (1, *strides, 1), self.padding.upper()
        )
        return result


class _MaxPooling(_Pooling):
    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return self._reduce(x, ops.lowest(x), lax.max)


class _AveragePooling(_Pooling):
    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        total = self._reduce(x, 0.0, lax.add)  # divided by the values inside, without padding, as in TensorFlow
        return total / self._reduce(jnp.ones((1, *x.shape[1:-1], 1), x.dtype), 0.0, lax.add)


class MaxPooling1D(_MaxPooling):
    """Maximum over windows of a sequence."""

    rank = 1


class MaxPooling3D(_MaxPooling):
    """Maximum over windows of a volume."""

    rank = 3


class AveragePooling1D(_AveragePooling):
    """Mean over windows of a sequence; with padding "same" over the steps inside only."""

    rank = 1


class AveragePooling3D(_AveragePooling):
    """Mean over windows of a volume; with padding "same" over the values inside only."""

    rank = 3


@dataclass(frozen=True)
class _GlobalPooling(Spatial):
    keepdims: bool = False
    data_format: str | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, channels); with keepdims, 1 for the other dimensions."""
        batch, *sizes, channels = self._last(shapes[0])
        if not self.keepdims:
            return (batch, channels)
        ones = (1,) * len(sizes)
        return (batch, channels, *ones) if self._first else (batch, *ones, channels)


class _GlobalMaxPooling(_GlobalPooling):
    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return jnp.max(x, tuple(range(1, self.rank + 1)), keepdims=self.keepdims)


class _GlobalAveragePooling(_GlobalPooling):
    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return jnp.mean(x, tuple(range(1, self.rank + 1)), keepdims=self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    """Maximum over the steps of a sequence."""

    rank = 1


class GlobalMaxPooling3D(_GlobalMaxPooling):
    """Maximum over a volume."""

    rank = 3


@dataclass(frozen=True)
class GlobalAveragePooling1D(_GlobalAveragePooling):
    """Mean over the steps of a sequence; a second input is a mask of the steps to include."""

    rank = 1
    call_fields = ("given",)
    given: Sequence[str] = ()

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Mean over all steps, or those of the mask."""
        x, *masks = inputs
        if not masks:
            return super().call(weights, x)
        axis = 2 if self._first else 1
        mask = jnp.expand_dims(masks[0].astype(bool), 3 - axis)
        total = jnp.sum(jnp.where(mask, x, jnp.zeros((), x.dtype)), axis, keepdims=self.keepdims)
        return total / jnp.sum(mask.astype(x.dtype), axis, keepdims=self.keepdims)


class GlobalAveragePooling3D(_GlobalAveragePooling):
    """Mean over a volume."""

    rank = 3


@dataclass(frozen=True)
class _AdaptivePooling(Spatial):
    """Pooling to `output_size`: window i of n goes from floor(i * length / n) to ceil((i + 1) * length / n)."""

    output_size: Sizes
    data_format: str | None = None

    def sizes(self, sizes: Shape) -> Shape:
        """The output size, for inputs of any size."""
        return spread(self.output_size, self.rank)

    def _members(self, length: int, wanted: int) -> NDArray[np.bool_]:
        """(wanted, length), True where a position belongs to a window."""
        windows, places = np.arange(wanted)[:, None], np.arange(length)[None]
        return (places >= windows * length // wanted) & (places < -(-(windows + 1) * length // wanted))


class _AdaptiveAverage(_AdaptivePooling):
    makes_floats = True

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        for axis, wanted in enumerate(spread(self.output_size, self.rank), start=1):
            members = self._members(x.shape[axis], wanted)
            matrix = jnp.asarray(members / members.sum(1, keepdims=True), x.dtype)
            product = jnp.tensordot(x, matrix, ((axis,), (1,)), precision=lax.Precision.HIGHEST)
            x = jnp.moveaxis(product, -1, axis)
        return x


class _AdaptiveMax(_AdaptivePooling):
    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        for axis, wanted in enumerate(spread(self.output_size, self.rank), start=1):
            members = self._members(x.shape[axis], wanted)
            ends = [np.flatnonzero(window)[[0, -1]] for window in members]
            maxima = [lax.slice_in_dim(x, int(first), int(last) + 1, axis=axis).max(axis) for first, last in ends]
            x = jnp.stack(maxima, axis)
        return x


class AdaptiveAveragePooling1D(_AdaptiveAverage):
    """Means of a sequence over `output_size` windows."""

    rank = 1


class AdaptiveAveragePooling2D(_AdaptiveAverage):
    """Means of an image over `output_size` windows."""

    rank = 2


class AdaptiveAveragePooling3D(_AdaptiveAverage):
    """Means of a volume over `output_size` windows."""

    rank = 3


class AdaptiveMaxPooling1D(_AdaptiveMax):
    """Maxima of a sequence over `output_size` windows."""

    rank = 1


class AdaptiveMaxPooling2D(_AdaptiveMax):
    """Maxima of an image over `output_size` windows."""

    rank = 2


class AdaptiveMaxPooling3D(_AdaptiveMax):
    """Maxima of a volume over `output_size` windows."""

    rank = 3
