"""Random augmentation of single pixels and their neighbours. Formulas are those of Keras 3.15."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import Window
from flaxapps.layers.augmentation.base import Augmentation, Factor, MakeKey, bounds, chosen, per_image, uniform
from flaxapps.layers.augmentation.color import Color, grayscale, in_range
from flaxapps.layers.augmentation.reading import smooth


@dataclass(frozen=True)
class RandomErasing(Color):
    """In training, erases a rectangle of images.

    Attributes:
        factor: Range of the probability that an image changes; a number f stands for (0, f).
        scale: Range of the squares of the rectangle's sides, as fractions of the image's.
        fill_value: A number, or three, one per channel; None for noise.
        value_range: The filling is clipped to it.
    """

    makes_floats = True
    factor: Factor = 1.0
    scale: Factor = (0.02, 0.33)
    fill_value: Factor = None
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the rectangles, (batch, height, width, 1), which images change, (batch,), and the filling."""
        shares = jnp.sqrt(uniform(make_key, (len(x), 2), bounds(self.scale, 0.0), x.dtype))
        across = between(make_key, x.shape[2], shares[:, 0])
        down = between(make_key, x.shape[1], shares[:, 1])
        inside = down[:, :, None, None] & across[:, None, :, None]
        taken = chosen(make_key, len(x), self.factor)
        filling = self._filling(x, make_key)
        return inside, taken, jnp.clip(filling, *self.value_range)

    def _filling(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        if self.fill_value is None:
            return jax.random.normal(make_key(), x.shape, x.dtype) * self.value_range[1]
        return jnp.broadcast_to(jnp.asarray(self.fill_value, x.dtype), x.shape)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Fill the rectangles."""
        inside, taken, filling = drawn
        return jnp.where(inside & taken.reshape(-1, 1, 1, 1), filling, x)


def between(make_key: MakeKey, length: int, shares: jax.Array) -> jax.Array:
    """Draw segments of the given shares of a side; returns which pixels are inside, (batch, length), bool."""
    sizes = shares * length
    start = uniform(make_key, shares.shape, (0.0, 1.0), shares.dtype) * (length - sizes)
    places = jnp.arange(length, dtype=shares.dtype)[None, :]
    return (places >= start[:, None]) & (places < (start + sizes)[:, None])


@dataclass(frozen=True)
class RandomGaussianBlur(Color):
    """In training, blurs images.

    Attributes:
        factor: Range of the probability that an image changes; a number f stands for (0, f).
        kernel_size: Size of the kernel, odd; a pair for width and height.
        sigma: Range of the standard deviation, one for the batch; a number s stands for (0, s).
        value_range: Results are clipped to it.
    """

    makes_floats = True
    factor: Factor = 1.0
    kernel_size: Window = 3
    sigma: Factor = 1.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images change, (batch,), and the deviations along width and height."""
        taken = chosen(make_key, len(x), self.factor)
        return taken, uniform(make_key, (2,), bounds(self.sigma, 0.0), x.dtype) + 1e-6

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Blur the images that were drawn, and clip all."""
        taken, deviations = drawn
        sizes = (self.kernel_size, self.kernel_size) if isinstance(self.kernel_size, int) else self.kernel_size
        across, down = (_bell(size, deviation) for size, deviation in zip(sizes, deviations, strict=True))
        return jnp.clip(jnp.where(taken.reshape(-1, 1, 1, 1), smooth(x, down, across), x), *self.value_range)


def _bell(size: int, deviation: jax.Array) -> jax.Array:
    weights = jnp.exp(-0.5 * ((jnp.arange(size, dtype=deviation.dtype) - (size - 1) / 2) / deviation) ** 2)
    return weights / jnp.sum(weights)


@dataclass(frozen=True)
class RandomGrayscale(Augmentation):
    """In training, turns a fraction `factor` of the images gray."""

    factor: float = 0.5

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images change, (batch,)."""
        return uniform(make_key, (len(x),), (0.0, 1.0)) < self.factor

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Turn the images that were drawn gray."""
        return jnp.where(drawn.reshape(-1, 1, 1, 1), grayscale(x), x)


@dataclass(frozen=True)
class RandomInvert(Color):
    """In training, inverts images.

    Attributes:
        factor: Range of the probability that an image changes; a number f stands for (0, f).
        value_range: Values are subtracted from its upper end.
    """

    factor: Factor = 1.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw which images change, (batch,)."""
        return chosen(make_key, len(x), self.factor)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Invert the images that were drawn."""
        return jnp.where(drawn.reshape(-1, 1, 1, 1), self.value_range[1] - x, x)


@dataclass(frozen=True)
class RandomPosterization(Color):
    """In training, keeps only the highest bits of every value.

    Attributes:
        factor: Range of the number of bits, from 1 to 8, upper end excluded; a number f stands for (1, f).
        value_range: Range of the images.
    """

    factor: Factor = 1.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the number of bits to drop, (batch,), uint8."""
        fewest, most = (int(each) for each in bounds(self.factor, 1.0))
        if fewest == most:
            return jnp.full((len(x),), 8 - most, jnp.uint8)
        return 8 - jax.random.randint(make_key(), (len(x),), fewest, most, jnp.uint8)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Drop the bits."""
        dropped = drawn.reshape(-1, 1, 1, 1)
        limits = sorted(self.value_range)
        bits = in_range(x, limits, (0, 255)).astype(jnp.uint8)
        kept = jnp.left_shift(jnp.right_shift(bits, dropped), dropped)
        return in_range(kept.astype(x.dtype), (0, 255), limits)


@dataclass(frozen=True)
class RandomSharpness(Color):
    """In training, blurs or sharpens every image.

    Attributes:
        factor: Range of the sharpness: 0.5 changes nothing, less blurs; a number f stands for (0, f).
        value_range: Results are clipped to it.
    """

    makes_floats = True
    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the sharpness, (batch,)."""
        return uniform(make_key, (len(x),), bounds(self.factor, 0.0))

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Blend with the smoothed image, and clip."""
        kernel = jnp.full((3, 3), 1 / 13, x.dtype).at[1, 1].set(5 / 13)
        channels = x.shape[-1]
        smoothed = jax.lax.conv_general_dilated(
            x, jnp.broadcast_to(kernel[:, :, None, None], (3, 3, 1, channels)), (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels,
        )  # fmt: skip # kept on few lines on purpose
        return jnp.clip(x + (1.0 - per_image(drawn * 2, x)) * (smoothed - x), *sorted(self.value_range))


@dataclass(frozen=True)
class Solarization(Augmentation):
    """In training, inverts values above a random threshold.

    Attributes:
        addition_factor: Range of what is added first, as fractions of the value range; a number f stands for (0, f).
        threshold_factor: Range of the threshold, as fractions of the value range.
        value_range: Range of the images.
    """

    makes_floats = True
    addition_factor: Factor = 0.0
    threshold_factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw additions and thresholds, each (batch, 1, 1, 1), for values from 0 to 255."""
        pairs = [bounds(factor, 0.0) for factor in (self.addition_factor, self.threshold_factor)]
        # As in Keras, only the upper end is scaled to 255.
        return [uniform(make_key, (len(x), 1, 1, 1), (lower, upper * 255), x.dtype) for lower, upper in pairs]

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Add, and invert what is above the threshold."""
        additions, thresholds = (per_image(each, x) for each in drawn)
        limits = sorted(self.value_range)
        added = jnp.clip(in_range(x, limits, (0, 255)) + additions, 0, 255)
        return in_range(jnp.where(added < thresholds, added, 255 - added), (0, 255), limits)
