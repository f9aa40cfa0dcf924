"""Random augmentation of training images on the device, inside the jitted step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.train.step.randaugment import LARGEST, rand_augment

CROP_TRIALS = 10  # boxes that are tried before the whole image is used, as in torchvision
BOX_DRAWS = 2 * CROP_TRIALS + 2
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)  # as in timm's RandomErasing
BETWEEN_0_AND_1 = "rotation", "brightness", "contrast", "erasing"


@dataclass(frozen=True)
class Augmentation:
    """Random changes of every image. Hashable, so it can be a static argument of a jitted function.

    Crop, flip, rotation, RandAugment, brightness, contrast and erasing are applied in this order. Each image draws its
    own from the key and its index in the batch, so that the result depends neither on the size of the batch nor on the
    number of devices.

    >>> images = jnp.zeros((2, 8, 8, 3), jnp.uint8)
    >>> jax.eval_shape(Augmentation(flip=True, crop=(0.5, 1.0)), jax.random.key(0), images)
    ShapeDtypeStruct(shape=(2, 8, 8, 3), dtype=float32)

    Attributes:
        crop: Smallest and largest fraction of the image's area that is cut out and resized to the whole; None for no
            crop.
        ratio: Smallest and largest ratio of the crop's width to its height, relative to those of the image.
        flip: Whether to mirror images left to right, each with probability 1/2.
        brightness: Largest change up or down, added to all pixels, as a fraction of the value range.
        contrast: Largest change of the contrast: differences from the mean of each channel are multiplied by a factor
            from 1 - contrast to 1 + contrast.
        value_range: Smallest and largest value of a pixel; changed values are clipped to it. None: 0 to 255 for
            uint8; for floats, `fit` finds 0 to 1 or 0 to 255 in the first batch.
        rotation: Largest turn in either direction, as a fraction of a full circle, as in Keras's RandomRotation. The
            border pixels are repeated.
        randaugment: Number of operations and their magnitude, from 0 to 10, of RandAugment
            (https://arxiv.org/abs/1909.13719), such as (2, 9): `flaxapps.train.step.randaugment`. None for none.
        erasing: Probability with which a box of 2% to 33% of an image is replaced by noise, as in timm's RandomErasing
            (https://arxiv.org/abs/1708.04896), after all other changes.
        mixup: Parameter of the Beta distribution of mixup, such as 0.2; 0 for none. Two images and their labels are
            mixed, by `fit` alone: a call with images, which has no labels, leaves it out. See
            `flaxapps.train.step.mixing.Mixing`. Class weights go by the larger label, as in Keras.
        cutmix: As `mixup`, for cutmix, such as 1.0. With both, each is used for half of the batches.
    """

    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    value_range: tuple[float, float] | None = None
    rotation: float = 0.0
    randaugment: tuple[int, float] | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
            ValueError: Attributes are out of range; all of them are listed.
        """
        wrong = []
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            wrong.append(f"crop should be (smallest, largest) share of the area, above 0 and up to 1, got {self.crop}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            wrong.append(f"ratio should be (smallest, largest), above 0, got {self.ratio}")
        wrong += [
            f"{name} should be from 0 to 1, got {getattr(self, name)}"
            for name in BETWEEN_0_AND_1
            if not 0 <= getattr(self, name) <= 1
        ]
        wrong += [
            f"{name} should be at least 0, got {getattr(self, name)}"
            for name in ("mixup", "cutmix")
            if not getattr(self, name) >= 0
        ]
        if self.randaugment is not None and not (self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= LARGEST):
            wrong.append(
                f"randaugment should be (operations, magnitude), such as (2, 9), a magnitude from 0 to 10, got "
                f"{self.randaugment}"
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            wrong.append(f"value_range should be (smallest, largest), got {self.value_range}")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def needs_range(self) -> bool:
        """Whether the value range matters and is not given."""
        changes = self.brightness or self.contrast or self.randaugment or self.erasing
        return self.value_range is None and bool(changes)

    def for_images(self, images: Any) -> Augmentation:
        """Finds the value range of images, if it matters and is not given.

        Args:
            images: (n, height, width, channels): some of the images, such as the first batch.

        Returns:
            The augmentation with a `value_range`; itself if it needs none.

        Raises:
            ValueError: The values are in neither of the usual ranges, 0 to 1 and 0 to 255, or not known yet.

        >>> Augmentation(brightness=0.1).for_images(np.full((1, 2, 2, 3), 0.5)).value_range
        (0, 1)
        """
        if not self.needs_range:
            return self
        if images.dtype == jnp.uint8:
            return replace(self, value_range=(0, 255))
        if isinstance(images, jax.core.Tracer):
            raise ValueError(
                "Brightness, contrast, RandAugment and erasing need the range of float images, which a compiled "
                "function cannot find: give train.Augmentation(..., value_range=(0, 255)), or (0, 1)"
            )
        low, high = float(np.min(images)), float(np.max(images))
        if low < 0 or not high <= 255:
            raise ValueError(
                f"Images from {low:g} to {high:g} are in neither of the ranges 0 to 1 and 0 to 255: give the range, "
                "such as train.Augmentation(..., value_range=(-1, 1))"
            )
        return replace(self, value_range=(0, 1) if high <= 1 else (0, 255))

    def __call__(self, key: jax.Array, images: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """Augments a batch.

        Args:
            key: A key of `jax.random`, another one for every step.
            images: (n, height, width, channels), in the value range, uint8 or float.
            first: Index of the first image in the whole batch, if this is only a shard of it (as under pmap).

        Returns:
            (n, height, width, channels), float32, in the value range; exactly the input if nothing is changed.

        Raises:
            ValueError: `images` does not have four axes; or their value range matters and is not known: inside a
                compiled function, that of floats has to be given.
        """
        if images.ndim != 4:
            raise ValueError(f"images should be (n, height, width, channels), got shape {images.shape}")
        resolved = self.for_images(images)
        images = images.astype(jnp.float32)
        places = jnp.arange(images.shape[0], dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
        return jax.vmap(resolved._change)(keys, images)

    def _change(self, key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        # One call for all numbers: each call of jax.random takes as long to compile as everything done with them.
        operations, magnitude = self.randaugment or (0, 0.0)
        draws = jax.random.uniform(key, (2 * BOX_DRAWS + 5 + 2 * operations,))
        for_box, for_erased_box, draws = jnp.split(draws, (BOX_DRAWS, 2 * BOX_DRAWS))
        (for_flip, for_brightness, for_contrast, for_rotation, for_erasing), for_operations = draws[:5], draws[5:]
        low, high = self.value_range or (0, 255)
        if self.crop is not None:
            image = resized_crop(image, *random_box(for_box, self.crop, self.ratio))
        if self.flip:
            image = jnp.where(for_flip < 0.5, dm_pix.flip_left_right(image), image)
        if self.rotation:
            turn = 2 * math.pi * _between(-self.rotation, self.rotation, for_rotation)
            with jax.numpy_dtype_promotion("standard"):  # dm-pix multiplies indices and the matrix
                image = dm_pix.rotate(image, turn)  # type: ignore[arg-type]  # of an array, too
        if self.randaugment:
            levels = rand_augment((image - low) * 255 / (high - low), for_operations.reshape(-1, 2), magnitude)
            image = low + levels * (high - low) / 255
        if self.brightness:
            change = (high - low) * _between(-self.brightness, self.brightness, for_brightness)
            image = dm_pix.adjust_brightness(image, change)
        if self.contrast:
            image = dm_pix.adjust_contrast(image, _between(1 - self.contrast, 1 + self.contrast, for_contrast))
        if self.brightness or self.contrast:
            image = jnp.clip(image, low, high)
        if self.erasing:
            box = random_box(for_erased_box, ERASED_AREA, ERASED_RATIO)
            noise = jax.random.uniform(jax.random.fold_in(key, 1), image.shape, image.dtype, low, high)
            image = jnp.where((for_erasing < self.erasing) & inside_box(image, *box), noise, image)
        return image


def random_box(draws: jax.Array, area: tuple[float, float], ratio: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
    """Draws a box in an image of height 1 and width 1.

    Source: the crop of "Going deeper with convolutions" (1409.4842), as in torchvision's RandomResizedCrop: the
    first of ten random boxes that fits into the image, or else the whole image.

    Args:
        draws: (22,), uniform from 0 to 1.
        area: Smallest and largest fraction of the image's area.
        ratio: Smallest and largest ratio of width to height.

    Returns:
        (height, width) and (top, left).
    """
    areas = _between(*area, draws[:CROP_TRIALS])
    ratios = jnp.exp(_between(math.log(ratio[0]), math.log(ratio[1]), draws[CROP_TRIALS:-2]))
    sizes = jnp.sqrt(jnp.stack([areas / ratios, areas * ratios], axis=-1))
    fits = jnp.all(sizes <= 1, axis=-1)
    size = jnp.where(jnp.any(fits), sizes[jnp.argmax(fits)], 1.0)
    return size, draws[-2:] * (1 - size)


def resized_crop(image: jax.Array, size: jax.Array, start: jax.Array) -> jax.Array:
    """Cuts out a box and resizes it to the size of the image, bilinearly.

    Args:
        image: (height, width, channels), floating.
        size: (height, width) of the box as fractions of the image's.
        start: (top, left) of the box as fractions of the image's height and width.

    Returns:
        As `image`.
    """
    # dm-pix has no resized crop, and its affine_transform gathers single pixels, which is slow on a TPU. This is
    # two matrix products.
    translation = -jnp.array(image.shape[:2], jnp.float32) * start / size
    options: Any = {"method": "linear", "antialias": False}
    resized: jax.Array = jax.image.scale_and_translate(image, image.shape, (0, 1), 1 / size, translation, **options)
    return resized


def inside_box(image: jax.Array, size: jax.Array, start: jax.Array) -> jax.Array:
    """Returns the pixels in a box: (height, width, 1), bool; none for a box that is the whole image.

    Args:
        image: (height, width, channels).
        size: (height, width) of the box as fractions of the image's.
        start: (top, left) of the box as fractions of the image's height and width.
    """
    rows, columns = (
        (places >= first) & (places < first + share)
        for places, share, first in zip(map(_centres, image.shape[:2]), size, start, strict=True)
    )
    inside: jax.Array = rows[:, None] & columns[None] & jnp.all(size < 1)
    return inside[..., None]


def _centres(length: int) -> jax.Array:
    """Returns the centres of pixels as fractions of the image's side."""
    centres: jax.Array = (jnp.arange(length, dtype=jnp.float32) + 0.5) / length
    return centres


def _between(low: float, high: float, draw: jax.Array) -> jax.Array:
    return low + (high - low) * draw
