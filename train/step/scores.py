"""Metrics of numbers and of yes or no, as sums over a batch. All take targets and outputs of one shape."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.ops import primitives as ops
from flaxapps.train.step.sums import F1, Explained, Mean, Precision, RankedScores, Recall, RootMean

THRESHOLD = 0.5  # Keras's, above which an output is a yes
# Keras's 200 thresholds of AUC, the outer ones a little outside of 0 to 1.
THRESHOLDS = np.array([-1e-7, *(np.arange(1, 199) / 199), 1 + 1e-7], np.float32)
Score = Callable[[jax.Array, jax.Array, jax.Array], Any]


def targets_like(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """Returns labels in the shape of the outputs: class indices become one-hot.

    Args:
        labels: (batch, ...) or (batch, ..., 1), class indices; or (batch, ..., values).
        outputs: (batch, ..., values).

    Raises:
        ValueError: The shapes do not fit.
    """
    values = outputs.shape[-1]
    if labels.shape == outputs.shape:
        return labels
    if labels.shape == outputs.shape[:-1] and values == 1:
        return labels[..., None]
    indices = labels[..., 0] if labels.ndim == outputs.ndim and labels.shape[-1] == 1 else labels
    if indices.shape != outputs.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels of shape {labels.shape} do not fit outputs of shape {outputs.shape}")
    return jax.nn.one_hot(indices, values, dtype=jnp.int32)


def mean_of(
    function: Callable[[jax.Array, jax.Array], jax.Array], labels: jax.Array, outputs: jax.Array, mask: jax.Array
) -> Mean:
    """Sums what a function returns for each example.

    Args:
        function: A function of (labels, outputs) that returns (batch, ...).
        labels: (batch, ...).
        outputs: (batch, ...).
        mask: (batch,), bool; False for padding.

    Raises:
        ValueError: The function does not return a value per example.
    """
    values = jnp.asarray(function(labels, outputs))
    if values.ndim == 0 or len(values) != len(mask):
        name = getattr(function, "__name__", function)
        raise ValueError(f"A metric should return a value per example, {mask.shape}, but {name} returns {values.shape}")
    counted = _spread(mask, values.shape)
    values = jnp.where(counted, values, jnp.zeros_like(values))
    values = values.astype(jnp.int32) if values.dtype == jnp.bool_ else ops.at_least_float32(values)
    return Mean(jnp.sum(values, dtype=values.dtype), jnp.sum(counted, dtype=jnp.int32))


def mean_absolute_error(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> Mean:
    """Sums absolute differences."""
    return mean_of(lambda targets, outputs: jnp.abs(_difference(targets, outputs)), targets, outputs, mask)


def mean_squared_error(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> Mean:
    """Sums squared differences."""
    return mean_of(lambda targets, outputs: jnp.square(_difference(targets, outputs)), targets, outputs, mask)


def root_mean_squared_error(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> RootMean:
    """Sums squared differences, for the root of their mean."""
    squared = mean_squared_error(targets, outputs, mask)
    return RootMean(squared.total, squared.count)


def r2_score(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> Explained:
    """Sums what R squared is computed from. Targets far from 0 for their spread should be standardized first."""
    counted = _spread(mask, outputs.shape)
    targets = targets.astype(ops.at_least_float32(outputs).dtype)
    errors = _difference(targets, outputs)

    def total(values: jax.Array) -> jax.Array:
        kept = jnp.where(counted, values, jnp.zeros_like(values))
        return jnp.sum(kept, axis=tuple(range(values.ndim - 1)))

    count = jnp.sum(counted[..., 0], dtype=jnp.int32)
    return Explained(count, total(targets), total(jnp.square(targets)), total(jnp.square(errors)))


def precision(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> Precision:
    """Counts outputs above 0.5 that are right and wrong, as Keras's Precision."""
    return Precision(*_decided(targets, outputs > THRESHOLD, mask))


def recall(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> Recall:
    """Counts labels that outputs above 0.5 find and miss, as Keras's Recall."""
    return Recall(*_decided(targets, outputs > THRESHOLD, mask))


def f1_score(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> F1:
    """Counts for every output what is right, wrong and missed, as Keras's F1Score with threshold 0.5."""
    return F1(*_decided(targets, outputs > THRESHOLD, mask))


def f1_of_classes(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> F1:
    """As `f1_score`, of classes that exclude each other: the largest output is a yes, the others are not."""
    largest = jax.nn.one_hot(jnp.argmax(outputs, axis=-1), outputs.shape[-1], dtype=jnp.int32)
    return F1(*_decided(targets, largest > 0, mask))


def auc(targets: jax.Array, outputs: jax.Array, mask: jax.Array) -> RankedScores:
    """Counts outputs from 0 to 1 between Keras's 200 thresholds, all outputs together, as Keras's AUC."""
    counted = _spread(mask, outputs.shape)
    places = jnp.searchsorted(jnp.asarray(THRESHOLDS), outputs.astype(jnp.float32), side="left")
    yes = targets.astype(jnp.float32) > THRESHOLD
    empty = jnp.zeros(len(THRESHOLDS) + 1, jnp.int32)
    return RankedScores(*(empty.at[places].add((kind & counted).astype(jnp.int32)) for kind in (yes, ~yes)))


SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "mean_absolute_error": mean_absolute_error,
        "mae": mean_absolute_error,
        "mean_squared_error": mean_squared_error,
        "mse": mean_squared_error,
        "root_mean_squared_error": root_mean_squared_error,
        "rmse": root_mean_squared_error,
        "r2_score": r2_score,
        "r2": r2_score,
        "auc": auc,
        "precision": precision,
        "recall": recall,
        "f1_score": f1_score,
        "f1": f1_score,
    }
)


def _difference(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    outputs = ops.at_least_float32(outputs)
    return targets.astype(outputs.dtype) - outputs


def _decided(targets: jax.Array, taken: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    counted = _spread(mask, taken.shape)
    yes = targets.astype(jnp.float32) > THRESHOLD
    axes = tuple(range(taken.ndim - 1))
    hits, alarms, misses = (
        jnp.sum(kind & counted, axis=axes, dtype=jnp.int32) for kind in (yes & taken, ~yes & taken, yes & ~taken)
    )
    return hits, alarms, misses


def _spread(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - 1)), shape)
