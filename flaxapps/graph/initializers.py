"""Keras's initializers of weights."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# A normal distribution cut at two standard deviations has this fraction of the deviation, which Keras makes up for.
CUT_DEVIATION = 0.87962566103423978


class VarianceScaling(NamedTuple):
    """Random values whose variance is `scale` over the number of inputs, of outputs, or their mean.

    Attributes:
        scale: The variance times the number.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal" (cut at two standard deviations) or "uniform".
    """

    scale: float
    mode: str
    distribution: str


Initializer = str | float | VarianceScaling
"""A name ("glorot_uniform", "he_normal", "zeros", "ones"), a number for a constant, or a VarianceScaling."""

RANDOM: Mapping[str, VarianceScaling] = MappingProxyType(
    {
        "glorot_uniform": VarianceScaling(1.0, "fan_avg", "uniform"),
        "he_normal": VarianceScaling(2.0, "fan_in", "truncated_normal"),
    }
)
CONSTANT: Mapping[str, float] = MappingProxyType({"zeros": 0.0, "ones": 1.0})


def random_initializer(initializer: Initializer) -> VarianceScaling | None:
    """Returns the distribution of an initializer; None for constants."""
    return initializer if isinstance(initializer, VarianceScaling) else RANDOM.get(str(initializer))


def initial_array(initializer: Initializer, shape: tuple[int, ...], drawn: jax.Array | None) -> jax.Array:
    """Returns the initial values of an array, in float32.

    Args:
        initializer: The initializer.
        shape: Shape of the array.
        drawn: Uniform random numbers between -1 and 1, at least as many as the array has; None for constants.
    """
    scaling = random_initializer(initializer)
    if scaling is None or drawn is None:
        constant: Any = CONSTANT.get(str(initializer), initializer)
        return jnp.full(shape, constant, jnp.float32)
    values = drawn[: math.prod(shape)].reshape(shape)
    variance = jnp.array(scaling.scale / _fan(shape, scaling.mode), jnp.float32)
    if scaling.distribution == "uniform":
        return values * jnp.sqrt(3 * variance)
    # The inverse of the normal distribution's integral, between two deviations on both sides.
    normal = math.sqrt(2) * jax.lax.erf_inv(values * math.erf(math.sqrt(2)))
    return jnp.clip(normal, -2.0, 2.0) * jnp.sqrt(variance) / CUT_DEVIATION


def initialize(initializer: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: str = "float32") -> jax.Array:
    """Returns the initial values of one array, drawn from `key`."""
    random = random_initializer(initializer)
    drawn = jax.random.uniform(key, (math.prod(shape),), jnp.float32, -1) if random else None
    return initial_array(initializer, shape, drawn).astype(dtype)


def _fan(shape: tuple[int, ...], mode: str) -> float:
    """Keras's number of inputs, of outputs, or their mean; vectors, as EinsumDense can have, count for both."""
    size = math.prod(shape[:-2])
    inputs, outputs = (size * shape[-2], size * shape[-1]) if len(shape) > 1 else (math.prod(shape),) * 2
    return max(1.0, {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[mode])
