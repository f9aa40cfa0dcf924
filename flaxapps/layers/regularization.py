"""Layers that act in training only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.batch import Batch
from flaxapps.layers.shapes import check_images
from flaxapps.recording import Layer, Shape, Weights

MakeKey = Callable[[], jax.Array]


def _kept(x: jax.Array, rate: float, noise_shape: Shape | None, make_key: MakeKey) -> jax.Array:
    """Which values stay: True with probability 1 - rate; None in the noise shape is the size of `x` there."""
    shape = tuple(size if given is None else given for given, size in zip(noise_shape or x.shape, x.shape, strict=True))
    return jax.random.bernoulli(make_key(), 1 - rate, shape)


def dropout(x: jax.Array, rate: float, noise_shape: Shape | None, make_key: MakeKey) -> jax.Array:
    """Zeroes a fraction `rate` of the values and scales the others; along dimensions of 1 in the shape, together."""
    if rate == 1:  # 1 / (1 - rate) would give gradients that are no numbers
        return jnp.zeros_like(x)
    return jnp.where(_kept(x, rate, noise_shape, make_key), x / (1 - rate), jnp.zeros_like(x))


class Noise(Layer):
    """What the layers here share: they are the identity outside training, and where their strength is zero."""

    @property
    def strength(self) -> float:
        """The field that says how strong the noise is."""
        raise NotImplementedError

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """The identity."""
        return inputs[0]

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: MakeKey, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return self.disturb(inputs[0], make_key) if self.strength else inputs[0], {}

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """The output in training.

        Args:
            x: The input, (batch, ...).
            make_key: Gives a new random key at each call.

        Returns:
            An array like `x`.

        Raises:
            NotImplementedError: Always, here; every kind of noise has its own.
        """
        raise NotImplementedError


class _RateNoise(Noise):
    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"The rate is a fraction, from 0 to 1, got {self.rate}")

    @property
    def strength(self) -> float:
        return self.rate


@dataclass(frozen=True)
class Dropout(_RateNoise):
    """In training, zeroes a fraction `rate` of the values and scales the others by 1 / (1 - rate)."""

    rate: float
    noise_shape: Shape | None = None

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drops values; along dimensions that are 1 in `noise_shape`, together."""
        return dropout(x, self.rate, self.noise_shape, make_key)


@dataclass(frozen=True)
class SpatialDropout2D(_RateNoise):
    """In training, zeroes a fraction `rate` of the channels of each image and scales the others by 1 / (1 - rate)."""

    rate: float

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        return check_images(shapes[0])

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drops channels."""
        return dropout(x, self.rate, (None, 1, 1, None), make_key)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """In training, adds noise of standard deviation `stddev`."""

    stddev: float

    @property
    def strength(self) -> float:
        """The standard deviation."""
        return self.stddev

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Adds noise."""
        return x + self.stddev * jax.random.normal(make_key(), x.shape, x.dtype)


@dataclass(frozen=True)
class GaussianDropout(_RateNoise):
    """In training, multiplies by noise of mean 1 and the standard deviation of Dropout's, sqrt(rate / (1 - rate))."""

    rate: float

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Multiplies by noise."""
        deviation = math.sqrt(self.rate / (1 - self.rate))
        return x * (1 + deviation * jax.random.normal(make_key(), x.shape, x.dtype))


@dataclass(frozen=True)
class AlphaDropout(_RateNoise):
    """In training, brings a fraction `rate` of the values to where selu saturates, then restores mean and variance.

    Inputs of mean 0 and variance 1, as selu makes them, keep both (Klambauer et al. 2017).
    """

    rate: float
    noise_shape: Shape | None = None

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drops values to the saturation of selu."""
        saturation = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
        factor = 1 / math.sqrt((1 - self.rate) * (1 + self.rate * saturation**2))
        kept = _kept(x, self.rate, self.noise_shape, make_key)
        return factor * jnp.where(kept, x, saturation) - factor * saturation * self.rate
