"""Random augmentation of training images on the device, inside the jitted step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CROP_TRIALS = 10  # boxes that are tried before the whole image is used, as in torchvision


@dataclass(frozen=True)
class Augmentation:
    """Random changes of every image. Hashable, so it can be a static argument of a jitted function.

    The changes are applied in the order of the attributes. Each image draws its own from the key and its index in the
    batch, so that the result depends neither on the size of the batch nor on the number of devices.

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
        value_range: Smallest and largest value of a pixel, which brightness and contrast clip to. None: 0 to 255 for
            uint8; of floats `fit` finds 0 to 1 or 0 to 255 in the first batch.
    """

    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    value_range: tuple[float, float] | None = None

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
            f"{name} should be from 0 to 1, got {value}"
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast))
            if not 0 <= value <= 1
        ]
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            wrong.append(f"value_range should be (smallest, largest), got {self.value_range}")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def needs_range(self) -> bool:
        """Whether the value range matters and is not given."""
        return self.value_range is None and bool(self.brightness or self.contrast)

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
                "Brightness and contrast need the range of float images, which a compiled function cannot find: give "
                "train.Augmentation(..., value_range=(0, 255)), or (0, 1)"
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
        draws = jax.random.uniform(key, (2 * CROP_TRIALS + 5,))
        for_box, (for_flip, for_brightness, for_contrast) = draws[:-3], draws[-3:]
        low, high = self.value_range or (0, 255)
        if self.crop is not None:
            image = resized_crop(image, *random_box(for_box, self.crop, self.ratio))
        if self.flip:
            image = jnp.where(for_flip < 0.5, dm_pix.flip_left_right(image), image)
        if self.brightness:
            change = (high - low) * _between(-self.brightness, self.brightness, for_brightness)
            image = dm_pix.adjust_brightness(image, change)
        if self.contrast:
            image = dm_pix.adjust_contrast(image, _between(1 - self.contrast, 1 + self.contrast, for_contrast))
        return jnp.clip(image, low, high) if self.brightness or self.contrast else image


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


def _between(low: float, high: float, draw: jax.Array) -> jax.Array:
    return low + (high - low) * draw
