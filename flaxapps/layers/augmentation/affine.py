"""Random affine transformations. Formulas are those of Keras 3.15 (keras/src/layers/preprocessing)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from flaxapps.layers.augmentation.base import Augmentation, Factor, MakeKey, bounds, check_pair, uniform
from flaxapps.layers.augmentation.reading import check_reading, grid, sample


class _Affine(Augmentation):
    """Base class of affine transformations."""

    makes_floats = True
    interpolation: str
    fill_mode: str
    fill_value: float
    factors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_reading(self.interpolation, self.fill_mode)
        for name in self.factors:
            check_pair(name, getattr(self, name))

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Transform images by matrices (batch, 6): the pixel at (column, row) is read at (a0, a1, a2), (b0, b1, b2)."""
        a0, a1, a2, b0, b1, b2 = (drawn[:, index, None, None] for index in range(6))
        rows, columns = grid(x)
        return sample(
            x,
            b0 * columns + b1 * rows + b2,
            a0 * columns + a1 * rows + a2,
            self.interpolation,
            self.fill_mode,
            self.fill_value,
        )


def _matrices(*columns: jax.Array | float) -> jax.Array:
    """Stack the six numbers of affine matrices, each (batch,) or one number for all: (batch, 6), float32."""
    count = next(len(each) for each in columns if isinstance(each, jax.Array))
    return jnp.stack([jnp.broadcast_to(jnp.asarray(each, jnp.float32), (count,)) for each in columns], axis=1)


@dataclass(frozen=True)
class RandomRotation(_Affine):
    """In training, rotates every image by its own random angle.

    Attributes:
        factor: Range of angles, as fractions of a full turn, counter-clockwise; a number f stands for (-f, f).
        fill_mode: One of `FILL_MODES`.
        interpolation: "bilinear" or "nearest".
        fill_value: Value outside the image, for "constant".
    """

    factors = ("factor",)
    factor: Factor = 0.0
    fill_mode: str = "reflect"
    interpolation: str = "bilinear"
    fill_value: float = 0.0

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw angles; returns the matrices of the rotations."""
        lower, upper = bounds(self.factor)
        angle = uniform(make_key, (len(x),), (lower * 360.0, upper * 360.0)) * (math.pi / 180.0)
        column, row = (x.shape[2] - 1) * 0.5, (x.shape[1] - 1) * 0.5
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        return _matrices(
            cosine, -sine, column - column * cosine + row * sine, sine, cosine, row - column * sine - row * cosine
        )


@dataclass(frozen=True)
class RandomTranslation(_Affine):
    """In training, shifts every image.

    Attributes:
        height_factor: Range of the shift downwards, as fractions of the height; a number f stands for (-f, f).
        width_factor: Range of the shift to the right, as fractions of the width.
        fill_mode: One of `FILL_MODES`.
        interpolation: "bilinear" or "nearest".
        fill_value: Value outside the image, for "constant".
    """

    factors = ("height_factor", "width_factor")
    height_factor: Factor = 0.0
    width_factor: Factor = 0.0
    fill_mode: str = "reflect"
    interpolation: str = "bilinear"
    fill_value: float = 0.0

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw shifts; returns the matrices of the translations."""
        down = uniform(make_key, (len(x), 1), bounds(self.height_factor))[:, 0] * x.shape[1]
        right = uniform(make_key, (len(x), 1), bounds(self.width_factor))[:, 0] * x.shape[2]
        return _matrices(1.0, 0.0, -right, 0.0, 1.0, -down)


@dataclass(frozen=True)
class RandomZoom(_Affine):
    """In training, zooms every image about its centre.

    Attributes:
        height_factor: Range of the change of the height, positive to zoom out; a number f stands for (-f, f).
        width_factor: As `height_factor`; None zooms both alike.
        fill_mode: One of `FILL_MODES`.
        interpolation: "bilinear" or "nearest".
        fill_value: Value outside the image, for "constant".
    """

    factors = ("height_factor", "width_factor")
    height_factor: Factor = 0.0
    width_factor: Factor = None
    fill_mode: str = "reflect"
    interpolation: str = "bilinear"
    fill_value: float = 0.0

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw zooms; returns the matrices."""
        height = self._zoom(self.height_factor, len(x), make_key)
        width = height if self.width_factor is None else self._zoom(self.width_factor, len(x), make_key)
        column, row = (x.shape[2] - 1) * 0.5, (x.shape[1] - 1) * 0.5
        return _matrices(width, 0.0, column * (1.0 - width), 0.0, height, row * (1.0 - height))

    def _zoom(self, factor: Factor, count: int, make_key: MakeKey) -> jax.Array:
        lower, upper = bounds(factor)
        return uniform(make_key, (count, 1), (1.0 + lower, 1.0 + upper))[:, 0]


@dataclass(frozen=True)
class RandomShear(_Affine):
    """In training, shears every image.

    Attributes:
        x_factor: Range of the horizontal shear; a number f stands for (-f, f). Half of the images are sheared the
            other way.
        y_factor: Range of the vertical shear.
        interpolation: "bilinear" or "nearest".
        fill_mode: One of `FILL_MODES`.
        fill_value: Value outside the image, for "constant".
    """

    factors = ("x_factor", "y_factor")
    x_factor: Factor = 0.0
    y_factor: Factor = 0.0
    interpolation: str = "bilinear"
    fill_mode: str = "reflect"
    fill_value: float = 0.0

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw shears; returns the matrices."""
        shape = (len(x), 1)
        sign = jnp.where(uniform(make_key, shape, (0.0, 1.0), x.dtype)[:, 0] > 0.5, -1.0, 1.0).astype(x.dtype)
        vertical = uniform(make_key, shape, bounds(self.y_factor), x.dtype)[:, 0] * sign
        horizontal = uniform(make_key, shape, bounds(self.x_factor), x.dtype)[:, 0] * sign
        return _matrices(1.0, horizontal, 0.0, vertical, 1.0, 0.0)
