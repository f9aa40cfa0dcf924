"""Random augmentation of colours. Formulas are those of Keras 3.15 (keras/src/layers/preprocessing)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.layers.augmentation.base import Augmentation, Factor, MakeKey, bounds, check_pair, per_image, uniform

EPSILON = 1e-7  # the default of keras.config.epsilon()
GRAY = (0.2989, 0.5870, 0.1140)  # of red, green and blue, as tf.image.rgb_to_grayscale


def grayscale(x: jax.Array) -> jax.Array:
    """The weighted mean of red, green and blue, (..., 1); images with one channel stay.

    Raises:
        ValueError: Images have neither one channel nor three.
    """
    _check_channels(x, (1, 3))
    return x if x.shape[-1] == 1 else jnp.tensordot(x, jnp.asarray(GRAY, x.dtype), 1)[..., None]


def _check_channels(x: jax.Array, allowed: tuple[int, ...] = (3,)) -> None:
    if x.shape[-1] not in allowed:
        raise ValueError(f"Images should have {' or '.join(map(str, allowed))} channels, got shape {x.shape}")


def to_hsv(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hue from 0 to 1, saturation and value of images (..., 3) in red, green and blue."""
    _check_channels(x)
    smallest = float(jnp.finfo(x.dtype).eps)  # type: ignore[no-untyped-call]  # JAX does not type it
    x = jnp.where(jnp.abs(x) < smallest, jnp.zeros_like(x), x)
    red, green, blue = jnp.moveaxis(x, -1, 0)
    value, least = jnp.max(x, -1), jnp.min(x, -1)
    spread, one = value - least, jnp.ones_like(value)
    saturation = jnp.where(value > 0, spread / jnp.where(value > 0, value, one), jnp.zeros_like(value))
    norm = 1.0 / (6.0 * jnp.where(spread > 0, spread, one))
    hue = jnp.where(value == green, norm * (blue - red) + 2.0 / 6.0, norm * (red - green) + 4.0 / 6.0)
    hue = jnp.where(value == red, norm * (green - blue), hue)
    # As in Keras, 1 is added also where a gray pixel has hue 0.
    return jnp.where(spread > 0, hue, jnp.zeros_like(hue)) + (hue < 0).astype(x.dtype), saturation, value


def to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """The inverse of `to_hsv`, (..., 3)."""
    sixths = jnp.mod(hue, 1.0) * 6.0
    red = jnp.clip(jnp.abs(sixths - 3.0) - 1.0, 0.0, 1.0)
    green = jnp.clip(2.0 - jnp.abs(sixths - 2.0), 0.0, 1.0)
    blue = jnp.clip(2.0 - jnp.abs(sixths - 4.0), 0.0, 1.0)
    return jnp.stack([value * (1.0 - saturation + saturation * each) for each in (red, green, blue)], axis=-1)


def in_range(x: jax.Array, given: Sequence[float], wanted: Sequence[float]) -> jax.Array:
    """Rescale values from one range to another."""
    if tuple(given) == tuple(wanted):
        return x
    return (x - given[0]) / (given[1] - given[0]) * (wanted[1] - wanted[0]) + wanted[0]


class Color(Augmentation):
    """Base class of layers with a `factor` and a `value_range`."""

    factor: Factor
    value_range: Sequence[float]

    def __post_init__(self) -> None:
        check_pair("factor", self.factor)
        if len(self.value_range) != 2:
            raise ValueError(f"value_range should be a pair, such as (0, 255) or (0, 1); got {self.value_range}")


@dataclass(frozen=True)
class RandomBrightness(Color):
    """In training, adds a random number to every image.

    Attributes:
        factor: Range of the number, as fractions of the value range; a number f stands for (-f, f).
        value_range: Results are clipped to it.
    """

    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw what is added, (batch, 1, 1, 1)."""
        low, high = sorted(self.value_range)
        return uniform(make_key, (len(x), 1, 1, 1), bounds(self.factor)) * (high - low)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Add, and clip."""
        return jnp.clip(x + per_image(drawn, x), *sorted(self.value_range))


@dataclass(frozen=True)
class RandomContrast(Color):
    """In training, changes the contrast of every image about the mean of each channel.

    Attributes:
        factor: A pair (a, b) stands for contrasts from 1 - a to 1 + b; a number b for (0, b), as in Keras since 3.6.
        value_range: Results are clipped to it.
    """

    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the contrast, (batch, 1, 1, 1)."""
        # Not sorted: in files of Keras before 3.6, (0.5, 0.2) means contrasts from 0.5 to 1.2.
        lower, upper = self.factor if isinstance(self.factor, Sequence) else bounds(self.factor, 0.0)
        return uniform(make_key, (len(x), 1, 1, 1), (1.0 - lower, 1.0 + upper), x.dtype)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Scale the distance from the mean, and clip."""
        mean = jnp.mean(jnp.mean(x, axis=1, keepdims=True), axis=2, keepdims=True)
        return jnp.clip((x - mean) * per_image(drawn, x) + mean, *self.value_range)


@dataclass(frozen=True)
class RandomColorDegeneration(Color):
    """In training, blends every image with its grayscale version.

    Attributes:
        factor: Range of the share of gray; a number f stands for (-f, f).
        value_range: Results are clipped to it.
    """

    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the share of gray, (batch, 1, 1, 1)."""
        return uniform(make_key, (len(x), 1, 1, 1), bounds(self.factor))

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Blend, and clip."""
        return jnp.clip(x + per_image(drawn, x) * (grayscale(x) - x), *sorted(self.value_range))


@dataclass(frozen=True)
class RandomSaturation(Color):
    """In training, multiplies the saturation of every image.

    Attributes:
        factor: Range of f, which multiplies by f / (1 - f): 0.5 changes nothing; a number f stands for (-f, f).
        value_range: The saturation is clipped to it, as in Keras.
    """

    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the multiplier, (batch,)."""
        factor = uniform(make_key, (len(x),), bounds(self.factor))
        return factor / (1 - factor + EPSILON)

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Multiply the saturation."""
        hue, saturation, value = to_hsv(x)
        return to_rgb(hue, jnp.clip(saturation * per_image(drawn, x)[..., 0], *self.value_range), value)


@dataclass(frozen=True)
class RandomHue(Color):
    """In training, turns the hue of every image.

    Attributes:
        factor: Range of the turn, 1 for half the circle, in a random direction; a number f stands for (0, f).
        value_range: Range of the images.
    """

    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the turn, (batch,)."""
        sign = jnp.where(uniform(make_key, (len(x),), (0.0, 1.0)) > 0.5, -1.0, 1.0)
        return sign * uniform(make_key, (len(x),), bounds(self.factor, 0.0)) * 0.5

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Turn the hue."""
        hue, saturation, value = to_hsv(in_range(x, self.value_range, (0, 1)))
        hue = hue + per_image(drawn, x)[..., 0]
        hue = jnp.where(hue > 1.0, hue - 1.0, hue)
        turned = to_rgb(jnp.where(hue < 0.0, hue + 1.0, hue), saturation, value)
        return in_range(jnp.clip(turned, 0, 1), (0, 1), self.value_range)


@dataclass(frozen=True)
class RandomColorJitter(Augmentation):
    """In training, changes brightness, contrast, saturation and hue, each by the layer of that name.

    Attributes:
        value_range: Range of the images.
        brightness_factor: Factor of RandomBrightness; None leaves it out, as for the others.
        contrast_factor: Factor of RandomContrast.
        saturation_factor: Factor of RandomSaturation.
        hue_factor: Factor of RandomHue.
    """

    value_range: Sequence[float] = (0, 255)
    brightness_factor: Factor = None
    contrast_factor: Factor = None
    saturation_factor: Factor = None
    hue_factor: Factor = None

    def _steps(self) -> list[Color]:
        kinds = (
            (RandomBrightness, self.brightness_factor),
            (RandomContrast, self.contrast_factor),
            (RandomSaturation, self.saturation_factor),
            (RandomHue, self.hue_factor),
        )
        return [kind(factor, self.value_range) for kind, factor in kinds if factor is not None]

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the parameters of each step, in order."""
        return [step.draw(x, make_key) for step in self._steps()]

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Apply the steps in order."""
        for step, parameters in zip(self._steps(), drawn, strict=True):
            x = step.augment(x, parameters)
        return x
