"""Padding, cropping, upsampling and dropout over one or three spatial dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Shape, Weights
from flaxapps.layers.regularization import MakeKey, RateNoise, dropout
from flaxapps.layers.spatial import Sizes, Spatial, spread

Sides = tuple[tuple[int, int], ...]


def _sides(value: Any, rank: int) -> Sides:
    """Expand Keras's shorthands: 1 is both sides of all dimensions; (1, 2) in one dimension is before and after."""
    if rank == 1 and isinstance(value, list | tuple) and len(value) == 2:
        return ((int(value[0]), int(value[1])),)
    pairs = [spread(each, 2) for each in spread(value, rank)]
    return tuple((int(before), int(after)) for before, after in pairs)


@dataclass(frozen=True)
class _ZeroPadding(Spatial):
    padding: int | Sequence[Any] = 1
    data_format: str | None = None

    def __post_init__(self) -> None:
        sides = _sides(self.padding, self.rank)
        object.__setattr__(self, "padding", sides if self.rank > 1 else sides[0])

    def sizes(self, sizes: Shape) -> Shape:
        pads = _sides(self.padding, self.rank)
        return tuple(None if size is None else size + sum(pad) for size, pad in zip(sizes, pads, strict=True))

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), *_sides(self.padding, self.rank), (0, 0)))


class ZeroPadding1D(_ZeroPadding):
    """Pads sequences with zeros."""

    rank = 1


class ZeroPadding3D(_ZeroPadding):
    """Pads volumes with zeros."""

    rank = 3


@dataclass(frozen=True)
class Cropping1D(Spatial):
    """Crops sequences."""

    rank = 1
    cropping: int | Sequence[Any] = (1, 1)

    def __post_init__(self) -> None:
        sides = _sides(self.cropping, self.rank)
        object.__setattr__(self, "cropping", sides if self.rank > 1 else sides[0])

    def sizes(self, sizes: Shape) -> Shape:
        cuts = _sides(self.cropping, self.rank)
        return tuple(None if size is None else size - sum(cut) for size, cut in zip(sizes, cuts, strict=True))

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        sides = zip(x.shape[1:-1], _sides(self.cropping, self.rank), strict=True)
        cuts = [slice(before, size - after) for size, (before, after) in sides]
        return x[(slice(None), *cuts)]


@dataclass(frozen=True)
class Cropping3D(Cropping1D):
    """Crops volumes."""

    rank = 3
    cropping: int | Sequence[Any] = ((1, 1), (1, 1), (1, 1))
    data_format: str | None = None


@dataclass(frozen=True)
class UpSampling1D(Spatial):
    """Upsamples sequences by repeating steps."""

    rank = 1
    size: Sizes = 2

    def __post_init__(self) -> None:
        sizes = spread(self.size, self.rank)
        object.__setattr__(self, "size", sizes if self.rank > 1 else sizes[0])  # in one dimension Keras takes a number

    def sizes(self, sizes: Shape) -> Shape:
        factors = spread(self.size, self.rank)
        return tuple(None if size is None else size * factor for size, factor in zip(sizes, factors, strict=True))

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        for axis, factor in enumerate(spread(self.size, self.rank), start=1):
            x = jnp.repeat(x, factor, axis)
        return x


@dataclass(frozen=True)
class UpSampling3D(UpSampling1D):
    """Upsamples volumes by repeating values."""

    rank = 3
    data_format: str | None = None


@dataclass(frozen=True)
class SpatialDropout1D(RateNoise):
    """Dropout of whole channels of sequences; the others are scaled by 1 / (1 - rate)."""

    rank: ClassVar[int] = 1
    rate: float

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drop channels."""
        return dropout(x, self.rate, (None, 1, None), make_key)


@dataclass(frozen=True)
class SpatialDropout3D(RateNoise):
    """Dropout of whole channels of volumes; the others are scaled by 1 / (1 - rate)."""

    rank: ClassVar[int] = 3
    rate: float
    data_format: str | None = None

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drop channels."""
        ones = (None, None, 1, 1, 1) if self.data_format == "channels_first" else (None, 1, 1, 1, None)
        return dropout(x, self.rate, ones, make_key)
