"""Keras's initial weights made by NumPy: the same distributions, without a compiled program for every shape.

One such program takes 0.35 s of CPU to compile, ten times what the small models of the tests need otherwise, and the
tests either overwrite the weights or take whatever they are.
"""

import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _generator(seed: Any) -> np.random.Generator:
    import keras

    if seed is None:
        return np.random.default_rng()
    values = seed.next() if isinstance(seed, keras.random.SeedGenerator) else seed
    return np.random.default_rng(np.asarray(values).astype(np.uint32).ravel().tolist())


def _array(values: Any, dtype: str | None) -> jax.Array:
    import keras

    return jax.device_put(np.asarray(values).astype(jnp.dtype(dtype or keras.config.floatx())))  # `asarray` compiles


def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: Any = None) -> jax.Array:
    return _array(mean + stddev * _generator(seed).standard_normal(shape, np.float32), dtype)


def uniform(
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: str | None = None, seed: Any = None
) -> jax.Array:
    return _array(minval + (maxval - minval) * _generator(seed).random(shape, np.float32), dtype)


def truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: Any = None
) -> jax.Array:
    generator = _generator(seed)
    values = np.asarray(generator.standard_normal(shape, np.float32))
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = generator.standard_normal(int(beyond.sum()), np.float32)
    return _array(mean + stddev * values, dtype)


def zeros(shape: Any, dtype: str | None = None) -> jax.Array:
    return _array(np.zeros(shape), dtype)


def ones(shape: Any, dtype: str | None = None) -> jax.Array:
    return _array(np.ones(shape), dtype)


def draw_by_numpy() -> None:
    """From now on, where Keras is imported; nothing where it is not."""
    initializers = sys.modules.get("keras.src.initializers.random_initializers")
    if initializers is not None and not isinstance(initializers.random, SimpleNamespace):
        ours = {"normal": normal, "uniform": uniform, "truncated_normal": truncated_normal}
        initializers.random = SimpleNamespace(**(vars(initializers.random) | ours))
        constants = sys.modules["keras.src.initializers.constant_initializers"]
        constants.ops = SimpleNamespace(**(vars(constants.ops) | {"zeros": zeros, "ones": ones}))
