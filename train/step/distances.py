"""Keras's regression losses and hinge losses, which compare outputs with targets number by number.

Formulas are those of Keras 3 (keras/src/losses/losses.py). Every function takes targets and outputs of one shape
(batch, ..., values), or targets without the last axis if there is one value, and returns (batch, ...).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from flaxapps.ops import primitives as ops

EPSILON = 1e-7  # keras.config.epsilon()
Distance = Callable[[jax.Array, jax.Array], jax.Array]


def _of_one_shape(targets: jax.Array, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Checks shapes and casts targets and outputs to float32 at least.

    Raises:
        ValueError: The shapes differ by more than a last axis of size 1.
    """
    if targets.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        targets = targets[..., None]
    if targets.shape != outputs.shape:
        raise ValueError(f"Targets should have the shape of the outputs, {outputs.shape}, got {targets.shape}")
    outputs = ops.at_least_float32(outputs)
    return targets.astype(outputs.dtype), outputs


def mean_squared_error(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of the squared differences."""
    targets, outputs = _of_one_shape(targets, outputs)
    return jnp.mean(jnp.square(targets - outputs), axis=-1)


def mean_absolute_error(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of the absolute differences."""
    targets, outputs = _of_one_shape(targets, outputs)
    return jnp.mean(jnp.abs(targets - outputs), axis=-1)


def mean_absolute_percentage_error(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of the absolute differences in percent of the targets."""
    targets, outputs = _of_one_shape(targets, outputs)
    return 100.0 * jnp.mean(jnp.abs((targets - outputs) / jnp.maximum(jnp.abs(targets), EPSILON)), axis=-1)


def mean_squared_logarithmic_error(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of the squared differences of log(1 + value); values below 0 count as 0."""
    targets, outputs = _of_one_shape(targets, outputs)
    first, second = (jnp.log(jnp.maximum(each, EPSILON) + 1.0) for each in (outputs, targets))
    return jnp.mean(jnp.square(first - second), axis=-1)


def huber(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of half the squared difference up to 1, linear above."""
    targets, outputs = _of_one_shape(targets, outputs)
    error = jnp.abs(outputs - targets)
    return jnp.mean(jnp.where(error <= 1.0, 0.5 * jnp.square(error), error - 0.5), axis=-1)


def log_cosh(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of log(cosh(difference))."""
    targets, outputs = _of_one_shape(targets, outputs)
    error = outputs - targets
    # Equal to log(cosh(error)), in which cosh would overflow for large errors.
    return jnp.mean(error + jax.nn.softplus(-2.0 * error) - jnp.log(2.0), axis=-1)


def hinge(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of max(1 - target * output, 0), with targets -1 and 1; targets 0 and 1 are converted."""
    targets, outputs = _of_one_shape(targets, outputs)
    return jnp.mean(jnp.maximum(1.0 - _signs(targets) * outputs, 0.0), axis=-1)


def squared_hinge(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Mean of max(1 - target * output, 0) squared, with targets as in `hinge`."""
    targets, outputs = _of_one_shape(targets, outputs)
    return jnp.mean(jnp.square(jnp.maximum(1.0 - _signs(targets) * outputs, 0.0)), axis=-1)


def _signs(targets: jax.Array) -> jax.Array:
    binary = jnp.all((targets == 0) | (targets == 1))
    return jnp.where(binary, 2.0 * targets - 1.0, targets)


def categorical_hinge(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """max(largest wrong output - right output + 1, 0), with one-hot targets."""
    targets, outputs = _of_one_shape(targets, outputs)
    right = jnp.sum(targets * outputs, axis=-1)
    wrong = jnp.max((1.0 - targets) * outputs, axis=-1)
    return jnp.maximum(wrong - right + 1.0, 0.0)


def kl_divergence(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of distributions."""
    targets, outputs = _of_one_shape(targets, outputs)
    targets, outputs = (jnp.clip(each, EPSILON, 1.0) for each in (targets, outputs))
    return jnp.sum(targets * jnp.log(targets / outputs), axis=-1)


def poisson(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Negative log-likelihood of a Poisson distribution, without its constant."""
    targets, outputs = _of_one_shape(targets, outputs)
    return jnp.mean(outputs - targets * jnp.log(outputs + EPSILON), axis=-1)


def cosine_similarity(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Negative cosine of the angle between target and output: -1 if they have the same direction."""
    targets, outputs = _of_one_shape(targets, outputs)
    first, second = (
        each * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(each), -1, keepdims=True), EPSILON**2))
        for each in (targets, outputs)
    )
    return -jnp.sum(first * second, axis=-1)


# Every loss name that Keras 2 and 3 accept, in `compile` and in files.
DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {
        "mean_squared_error": mean_squared_error,
        "mse": mean_squared_error,
        "mean_absolute_error": mean_absolute_error,
        "mae": mean_absolute_error,
        "mean_absolute_percentage_error": mean_absolute_percentage_error,
        "mape": mean_absolute_percentage_error,
        "mean_squared_logarithmic_error": mean_squared_logarithmic_error,
        "msle": mean_squared_logarithmic_error,
        "huber": huber,
        "huber_loss": huber,
        "log_cosh": log_cosh,
        "logcosh": log_cosh,
        "hinge": hinge,
        "squared_hinge": squared_hinge,
        "categorical_hinge": categorical_hinge,
        "kl_divergence": kl_divergence,
        "kullback_leibler_divergence": kl_divergence,
        "kld": kl_divergence,
        "poisson": poisson,
        "cosine_similarity": cosine_similarity,
    }
)
# Other spellings of the cross-entropies.
CROSSENTROPIES: Mapping[str, str] = MappingProxyType({"bce": "binary_crossentropy"})


def keras_loss(name: str) -> str | Distance:
    """Resolves a Keras loss name: a cross-entropy to its full name, any other loss to its function.

    Args:
        name: A function's name ("mse"), in any case, or a class's ("MeanSquaredError").
    """
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
    for spelling in (name, name.lower(), snake):
        if spelling in DISTANCES:
            return DISTANCES[spelling]
        if spelling in CROSSENTROPIES:
            return CROSSENTROPIES[spelling]
    return snake if snake.endswith("_crossentropy") else name
