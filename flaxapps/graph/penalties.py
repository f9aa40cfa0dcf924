"""Regularizers of layers: penalties on weights and on outputs that Keras adds to the loss.

Formulas are those of Keras 3.15 (keras/src/regularizers/regularizers.py).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Layer

SUFFIX = "_regularizer"
ACTIVITY = "activity"  # what Keras calls the regularizer of a layer's output
COLLECTION = "penalties"  # Flax collection into which layers sow the penalties on their outputs


@dataclass(frozen=True)
class Penalty:
    """A regularizer of Keras.

    Attributes:
        l1: Factor of the sum of absolute values.
        l2: Factor of the sum of squares.
        orthogonal: Factor of OrthogonalRegularizer.
        mode: "rows" or "columns", for OrthogonalRegularizer.
    """

    l1: float = 0.0
    l2: float = 0.0
    orthogonal: float = 0.0
    mode: str = "rows"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes the penalty on an array, (), float32 at least."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        total = jnp.zeros((), x.dtype)
        if self.l1:
            total = total + self.l1 * jnp.sum(jnp.abs(x))
        if self.l2:
            total = total + self.l2 * jnp.sum(jnp.square(x))
        return total + self._orthogonality(x) if self.orthogonal else total

    def _orthogonality(self, x: jax.Array) -> jax.Array:
        """Mean of the absolute cosines between different rows, or columns, of a matrix, times the factor."""
        rows = x if self.mode == "rows" else x.T
        length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(rows), axis=1, keepdims=True), 1e-12))
        products = jnp.matmul(rows / length, (rows / length).T)
        size = rows.shape[0]
        others = products * (1.0 - jnp.eye(size, dtype=x.dtype))
        return self.orthogonal * 0.5 * jnp.sum(jnp.abs(others)) / (size * (size - 1.0) / 2.0)


def penalties_of(layer: Layer) -> dict[str, Penalty]:
    """Returns the regularizers of a layer by the name of what they are on: "kernel", "bias", "activity".

    Raises:
        ValueError: A regularizer in the layer's options has a factor that is not a number.
    """
    found = {
        name.removesuffix(SUFFIX): _penalty(json.loads(text), layer)
        for name, text in layer.training_options
        if name.endswith(SUFFIX)
    }
    if layer.class_name == "ActivityRegularization":
        found[ACTIVITY] = Penalty(getattr(layer, "l1", 0.0), getattr(layer, "l2", 0.0))
    return {name: penalty for name, penalty in found.items() if penalty != Penalty()}


def per_example(penalty: Penalty, output: jax.Array) -> jax.Array:
    """Computes the penalty on a layer's output, (examples,), whose mean Keras adds to the loss.

    Args:
        penalty: The regularizer.
        output: (examples, ...).

    Raises:
        ValueError: The regularizer is not a sum over values.
    """
    if penalty.orthogonal:
        raise ValueError("OrthogonalRegularizer is for weights, and cannot be an activity_regularizer here")
    return jax.vmap(penalty)(output)


def _penalty(given: Mapping[str, object], layer: Layer) -> Penalty:
    config = given.get("config")
    options = config if isinstance(config, Mapping) else {}
    numbers = {}
    for key in ("l1", "l2", "factor"):
        value = options.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"Layer {layer.name!r} has a regularizer with {key}={value!r}, which is not a number")
        numbers[key] = float(value)
    mode = str(options.get("mode", "rows"))
    return Penalty(numbers["l1"], numbers["l2"], numbers["factor"], mode if numbers["factor"] else "rows")
