"""Random augmentation that moves pixels, beside affine transformations. Formulas are those of Keras 3.15."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import check_images
from flaxapps.graph.symbolic import Shape, Weights
from flaxapps.layers.augmentation.base import Augmentation, Factor, MakeKey, bounds, check_pair, chosen, uniform
from flaxapps.layers.augmentation.reading import check_reading, grid, sample, smooth
from flaxapps.layers.image_preprocessing import CenterCrop, Resizing, resize

# RandomFlip of Keras before 3.6 draws for each direction. Since then one draw flips an image in both or in neither.
SEPARATE_FLIPS = "horizontal_then_vertical"
FLIPS = ("horizontal", "vertical", "horizontal_and_vertical", SEPARATE_FLIPS)
UNCHANGED = "unchanged"
OUTSIDE_TRAINING = (UNCHANGED, "part", "corner", "cover")  # of RandomCrop


@dataclass(frozen=True)
class RandomFlip(Augmentation):
    """In training, flips half of the images: horizontally, vertically, or in both directions at once.

    Attributes:
        mode: "horizontal", "vertical" or "horizontal_and_vertical"; "horizontal_then_vertical" draws for each direction
            separately, as Keras before 3.6.
    """

    makes_floats = True
    mode: str = "horizontal_and_vertical"

    def __post_init__(self) -> None:
        if self.mode not in FLIPS:
            raise ValueError(f"mode should be one of {', '.join(FLIPS)}; got {self.mode!r}")

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images to flip, (2, batch, 1, 1, 1), bool: horizontally, and vertically."""
        shape = (len(x), 1, 1, 1)
        flips = uniform(make_key, shape, (0.0, 1.0)) <= 0.5
        others = uniform(make_key, shape, (0.0, 1.0)) <= 0.5 if self.mode == SEPARATE_FLIPS else flips
        return jnp.stack([flips, others])

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Flip the images that were drawn."""
        if self.mode != "vertical":
            x = jnp.where(drawn[0], jnp.flip(x, 2), x)
        return x if self.mode == "horizontal" else jnp.where(drawn[1], jnp.flip(x, 1), x)


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """In training, crops all images of a batch at one random place; images that are not larger are resized.

    Trap: Keras documents a resized central crop at inference. Keras 3.8 and later return the image unchanged and only
    declare the cropped shape. So does this layer by default.

    Attributes:
        outside: What it does outside training, and in training to images that are too small. Files of older versions
            need it: "unchanged" (Keras 3.8 and later, which resize in training), "part" (Keras 2.7 to 3.5: the largest
            central part, resized), "corner" (Keras 3.6 and 3.7: a crop at the corner of that part) or "cover" (tf.keras
            before 2.7: resized to cover the crop, then cropped centrally).
    """

    height: int
    width: int
    outside: str = UNCHANGED

    def __post_init__(self) -> None:
        if self.outside not in OUTSIDE_TRAINING:
            raise ValueError(f"outside should be one of {', '.join(OUTSIDE_TRAINING)}; got {self.outside!r}")
        if self.outside != UNCHANGED:
            object.__setattr__(self, "as_floats", True)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0] if self.outside == UNCHANGED else self._without_chance(inputs[0])

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape Keras declares; arrays of another size keep theirs outside training."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, self.height, self.width, channels)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the first row and column, int32; None if images are too small: Keras 3.6 and later want larger ones."""
        spare = (x.shape[1] - self.height, x.shape[2] - self.width)
        if min(spare) < (1 if self.outside in (UNCHANGED, "corner") else 0):
            return None
        top, left = (uniform(make_key, (), (0.0, float(each + 1))).astype(jnp.int32) for each in spare)
        return top, left

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Crop, and resize what is too small."""
        if drawn is None:
            return self._without_chance(x)
        top, left = drawn
        first = jnp.int32(0)
        return jax.lax.dynamic_slice(x, (first, top, left, first), (len(x), self.height, self.width, x.shape[3]))

    def _without_chance(self, x: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        size = (self.height, self.width)
        if self.outside == "part":
            return Resizing(*size, crop_to_aspect_ratio=True).call({}, x)
        if self.outside == "cover":
            return CenterCrop(*size).call({}, resize(x, covering((height, width), size), "bilinear"))
        top, left = largest_part((height, width), size)
        part = x[:, top : top + self.height, left : left + self.width]
        return part if part.shape[1:3] == size else resize(part, size, "bilinear")


def covering(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size with the aspect ratio of an image that covers a crop."""
    if image[0] / image[1] > size[0] / size[1]:
        return int(size[1] * image[0] / image[1]), size[1]
    return size[0], int(size[0] * image[1] / image[0])


def largest_part(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the first row and column of the largest central part of an image that has the aspect ratio of a crop."""
    rows = max(min(image[0], int(float(image[1] * size[0]) / size[1])), 1)
    columns = max(min(image[1], int(float(image[0] * size[1]) / size[0])), 1)
    return (image[0] - rows) // 2, (image[1] - columns) // 2


@dataclass(frozen=True)
class RandomPerspective(Augmentation):
    """In training, moves the corners of images.

    Attributes:
        factor: Range of the probability that an image changes; a number f stands for (0, f).
        scale: How far the corners move, from 0 to 1.
        interpolation: "bilinear" or "nearest".
        fill_value: Value outside the image.
    """

    makes_floats = True
    factor: Factor = 1.0
    scale: float = 1.0
    interpolation: str = "bilinear"
    fill_value: float = 0.0

    def __post_init__(self) -> None:
        check_reading(self.interpolation, "constant")
        check_pair("factor", self.factor)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images change, (batch,), and the moves of their corners, (batch, 4, 2)."""
        limits = (-0.5 * self.scale, 0.5 * self.scale)
        return chosen(make_key, len(x), self.factor), uniform(make_key, (len(x), 4, 2), limits, x.dtype)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Change the perspective of the images that were drawn."""
        taken, moves = drawn
        bottom, right = x.shape[1] - 1, x.shape[2] - 1
        start = jnp.asarray([[[0, 0], [right, 0], [0, bottom], [right, bottom]]], x.dtype)
        start = jnp.broadcast_to(start, moves.shape)
        end = (start + start * moves).astype(jnp.float32)
        a0, a1, a2, b0, b1, b2, c0, c1 = (
            each[:, None, None] for each in _homographies(start.astype(jnp.float32), end).T
        )
        rows, columns = grid(x)
        depth = c0 * columns + c1 * rows + 1.0
        source_rows, source_columns = (b0 * columns + b1 * rows + b2) / depth, (a0 * columns + a1 * rows + a2) / depth
        moved = sample(x, source_rows, source_columns, self.interpolation, "constant", self.fill_value)
        return jnp.where(taken.reshape(-1, 1, 1, 1), moved, x)


def _homographies(start: jax.Array, end: jax.Array) -> jax.Array:
    """Solve for the eight numbers, (batch, 8), of the homographies from `end` to `start`, each (batch, 4, 2)."""
    (from_x, from_y), (to_x, to_y) = (jnp.moveaxis(points, -1, 0) for points in (start, end))
    zero, one = jnp.zeros_like(to_x), jnp.ones_like(to_x)
    upper = jnp.stack([to_x, to_y, one, zero, zero, zero, -from_x * to_x, -from_x * to_y], axis=-1)
    lower = jnp.stack([zero, zero, zero, to_x, to_y, one, -from_y * to_x, -from_y * to_y], axis=-1)
    target = jnp.concatenate([from_x, from_y], axis=-1)[..., None]
    solved: jax.Array = jnp.linalg.solve(jnp.concatenate([upper, lower], axis=1), target)[..., 0]
    return solved


@dataclass(frozen=True)
class RandomElasticTransform(Augmentation):
    """In training, distorts images by smoothed noise.

    Attributes:
        factor: Range of the probability that an image changes; a number f stands for (0, f).
        scale: Range of the strength, one for the batch; a number f stands for (0, f).
        interpolation: "bilinear" or "nearest".
        fill_mode: One of `FILL_MODES`.
        fill_value: Value outside the image, for "constant".
        value_range: Results are clipped to it.
    """

    makes_floats = True
    factor: Factor = 1.0
    scale: Factor = 1.0
    interpolation: str = "bilinear"
    fill_mode: str = "reflect"
    fill_value: float = 0.0
    value_range: Sequence[float] = (0, 255)

    def __post_init__(self) -> None:
        check_reading(self.interpolation, self.fill_mode)
        for name, factor in (("factor", self.factor), ("scale", self.scale)):
            check_pair(name, factor)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images change, (batch,), the strength and the noise, (batch, height, width)."""
        taken = chosen(make_key, len(x), self.factor)
        strength = uniform(make_key, (), bounds(self.scale, 0.0), x.dtype)
        return taken, strength, jax.random.normal(make_key(), x.shape[:3], x.dtype)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Distort the images that were drawn. As in Keras, rows and columns move alike."""
        if 0 in (bounds(self.scale, 0.0)[1], bounds(self.factor, 0.0)[1]):
            return x
        taken, strength, noise = drawn
        deviation = strength * (min(x.shape[1:3]) * 0.05)
        largest = int(6 * min(x.shape[1:3]) * 0.05 * bounds(self.scale, 0.0)[1]) | 1
        # Keras's kernel has int(6 * deviation) | 1 places. The size of an array must not depend on what is drawn, so
        # the places beyond it are zeros.
        size = jnp.bitwise_or((6 * deviation).astype(jnp.int32), 1)
        offsets = jnp.arange(largest, dtype=jnp.int32) - largest // 2
        weights = jnp.exp(-0.5 * (offsets.astype(x.dtype) / deviation) ** 2)
        weights = jnp.where(jnp.abs(offsets) <= size // 2, weights, jnp.zeros_like(weights))
        weights = weights / jnp.sum(weights)
        moved = smooth((noise * deviation)[..., None], weights, weights)[..., 0]
        shift = (strength * (max(x.shape[1:3]) * 0.1) * moved).astype(jnp.float32)
        rows, columns = grid(x)
        distorted = sample(x, rows + shift, columns + shift, self.interpolation, self.fill_mode, self.fill_value)
        return jnp.clip(jnp.where(taken.reshape(-1, 1, 1, 1), distorted, x), *self.value_range)
