"""Layers that act in training only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.batch import Batch
from flaxapps.graph.shapes import check_images
from flaxapps.graph.symbolic import Layer, Shape, Weights

MakeKey = Callable[[], jax.Array]


def _kept(x: jax.Array, rate: float, noise_shape: Shape | None, make_key: MakeKey) -> jax.Array:
    """Random mask of the values to keep, True with probability 1 - rate; None in `noise_shape` is the size of `x`."""
    shape = tuple(size if given is None else given for given, size in zip(noise_shape or x.shape, x.shape, strict=True))
    return jax.random.bernoulli(make_key(), 1 - rate, shape)


def dropout(x: jax.Array, rate: float, noise_shape: Shape | None, make_key: MakeKey) -> jax.Array:
    """Zero a fraction `rate` of the values and scale the others. Dimensions of 1 in `noise_shape` share the mask."""
    if rate == 1:  # 1 / (1 - rate) would give NaN gradients
        return jnp.zeros_like(x)
    return jnp.where(_kept(x, rate, noise_shape, make_key), x / (1 - rate), jnp.zeros_like(x))


class Noise(Layer):
    """Base class: the identity outside training, and if `strength` is zero."""

    identity_in_inference = True
    random_in_training = True

    @property
    def strength(self) -> float:
        """Strength of the noise; 0 for none."""
        raise NotImplementedError

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0]

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: MakeKey, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return self.disturb(inputs[0], make_key) if self.strength else inputs[0], {}

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """The output in training.

        Args:
            x: The input, (batch, ...).
            make_key: Returns a new random key at each call.

        Returns:
            An array like `x`.

        Raises:
            NotImplementedError: The subclass does not override this method.
        """
        raise NotImplementedError


class RateNoise(Noise):
    """Base class of noise whose strength is a rate between 0 and 1."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"The rate is a fraction between 0 and 1, got {self.rate}")

    @property
    def strength(self) -> float:
        """The rate."""
        return self.rate


@dataclass(frozen=True)
class Dropout(RateNoise):
    """Dropout: in training, zeroes a fraction `rate` of the values and scales the others by 1 / (1 - rate)."""

    rate: float
    noise_shape: Shape | None = None

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drop values. Dimensions that are 1 in `noise_shape` share the mask."""
        return dropout(x, self.rate, self.noise_shape, make_key)


@dataclass(frozen=True)
class SpatialDropout2D(RateNoise):
    """In training, zeroes a fraction `rate` of the channels of each image and scales the others by 1 / (1 - rate)."""

    rate: float

    def output_shape(self, *shapes: Shape) -> Shape:
        return check_images(shapes[0])

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drop channels."""
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
        """Add noise."""
        return x + self.stddev * jax.random.normal(make_key(), x.shape, x.dtype)


@dataclass(frozen=True)
class GaussianDropout(RateNoise):
    """In training, multiplies by Gaussian noise of mean 1 and standard deviation sqrt(rate / (1 - rate))."""

    rate: float

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Multiply by noise."""
        deviation = math.sqrt(self.rate / (1 - self.rate))
        return x * (1 + deviation * jax.random.normal(make_key(), x.shape, x.dtype))


@dataclass(frozen=True)
class AlphaDropout(RateNoise):
    """In training, sets a fraction `rate` of the values to the saturation of selu, then restores mean and variance.

    Mean 0 and variance 1, as produced by selu, are preserved (Klambauer et al. 2017).
    """

    rate: float
    noise_shape: Shape | None = None

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Set values to the saturation of selu."""
        saturation = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
        factor = 1 / math.sqrt((1 - self.rate) * (1 + self.rate * saturation**2))
        kept = _kept(x, self.rate, self.noise_shape, make_key)
        return factor * jnp.where(kept, x, saturation) - factor * saturation * self.rate
