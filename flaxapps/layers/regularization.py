"""Layers that act in training only."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph import Layer, Weights


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeroes a fraction `rate` of the values and scales the others by 1 / (1 - rate)."""

    rate: float
    noise_shape: tuple[int | None, ...] | None = None

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """The identity."""
        return inputs[0]

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        (x,) = inputs
        if self.rate == 0:
            return x, {}
        noise = self.noise_shape or x.shape
        shape = tuple(size if given is None else given for given, size in zip(noise, x.shape, strict=True))
        kept = jax.random.bernoulli(make_key(), 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x)), {}
