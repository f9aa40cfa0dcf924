"""Random changes of training images, on the device, within the jitted step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

CROP_TRIALS = 10  # boxes that are drawn before the whole image is taken, as in torchvision


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random in every image; hashable, so a static argument of a jitted function.

    The changes come in the order of the attributes, and each image draws its own from the key and its place in the
    batch alone: what becomes of it does not depend on the size of the batch or on how many devices share it.

    >>> images = jnp.zeros((2, 8, 8, 3), jnp.uint8)
    >>> jax.eval_shape(Augmentation(flip=True, crop=(0.5, 1.0)), jax.random.key(0), images)
    ShapeDtypeStruct(shape=(2, 8, 8, 3), dtype=float32)

    Attributes:
        crop: Smallest and largest share of the image's area that is cut out and resized to the whole; None for no crop.
        ratio: Smallest and largest ratio of the crop's width to its height, relative to those of the image.
        flip: Whether every second image is mirrored, left to right.
        brightness: Largest change up or down, added to all pixels, as a share of 255.
        contrast: Largest change of the contrast: differences from the mean of the image, channel by channel, are
            multiplied by a factor from 1 - contrast to 1 + contrast.
    """

    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
            ValueError: Some are out of range; all of them are told.
        """
        wrong = []
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            wrong.append(f"crop is (smallest, largest) share of the area, above 0 and up to 1, got {self.crop}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            wrong.append(f"ratio is (smallest, largest), above 0, got {self.ratio}")
        wrong += [
            f"{name} is from 0 to 1, got {value}"
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast))
            if not 0 <= value <= 1
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    def __call__(self, key: jax.Array, images: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """Changes a batch.

        Args:
            key: A key of `jax.random`, another one for every step.
            images: (n, height, width, channels), from 0 to 255, uint8 or float.
            first: The place of the first image in the whole batch, where this is only a part of it (as under pmap).

        Returns:
            (n, height, width, channels), float32, from 0 to 255; without any change exactly the input.

        Raises:
            ValueError: `images` has not four axes.
        """
        if images.ndim != 4:
            raise ValueError(f"Images are (n, height, width, channels), got shape {images.shape}")
        images = images.astype(jnp.float32)
        places = jnp.arange(images.shape[0], dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
        return jax.vmap(self._change)(keys, images)

    def _change(self, key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        # One call for all the numbers: each call of jax.random costs as much to compile as all that is done with them.
        draws = jax.random.uniform(key, (2 * CROP_TRIALS + 5,))
        for_box, (for_flip, for_brightness, for_contrast) = draws[:-3], draws[-3:]
        if self.crop is not None:
            image = resized_crop(image, *random_box(for_box, self.crop, self.ratio))
        if self.flip:
            image = jnp.where(for_flip < 0.5, dm_pix.flip_left_right(image), image)
        if self.brightness:
            image = dm_pix.adjust_brightness(image, 255 * _between(-self.brightness, self.brightness, for_brightness))
        if self.contrast:
            image = dm_pix.adjust_contrast(image, _between(1 - self.contrast, 1 + self.contrast, for_contrast))
        return jnp.clip(image, 0, 255) if self.brightness or self.contrast else image


def random_box(draws: jax.Array, area: tuple[float, float], ratio: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
    """A box in an image, where the whole image is 1 high and 1 wide.

    Source: the crop of "Going deeper with convolutions" (1409.4842), drawn as torchvision's RandomResizedCrop does: the
    first of ten random boxes that fits into the image, or else the whole.

    Args:
        draws: (22,), uniform from 0 to 1.
        area: Smallest and largest share of the image's area.
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
    """Cuts a box out of an image and resizes it to the whole, bilinearly.

    Args:
        image: (height, width, channels), floating.
        size: (height, width) of the box as shares of the image's.
        start: (top, left) of the box as shares of the image's height and width.

    Returns:
        As `image`.
    """
    # dm-pix has no resized crop, and its affine_transform gathers single pixels, which is slow on a TPU; this is two
    # matrix products.
    translation = -jnp.array(image.shape[:2], jnp.float32) * start / size
    options: Any = {"method": "linear", "antialias": False}
    resized: jax.Array = jax.image.scale_and_translate(image, image.shape, (0, 1), 1 / size, translation, **options)
    return resized


def _between(low: float, high: float, draw: jax.Array) -> jax.Array:
    return low + (high - low) * draw
