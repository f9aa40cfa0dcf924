"""Metrics as sums over a batch, which add up exactly, however the examples are split into batches."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.train.step.losses import Objective, class_indices
from flaxapps.train.step.scores import SCORES, f1_of_classes, f1_score, mean_of, targets_like
from flaxapps.train.step.sums import Mean, Sums

# Keras's names of one metric, which finds out the kind of the outputs from the loss.
ACCURACIES = ("accuracy", "acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy")
METRICS = (*ACCURACIES, "top_5_accuracy", "confusion_matrix", *SCORES)
Metric = str | Callable[[jax.Array, jax.Array], jax.Array]


def accuracy(labels: jax.Array, outputs: jax.Array, mask: jax.Array, *, threshold: float | None = None) -> Mean:
    """Counts examples whose largest output is their class, or binary outputs that are right.

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False for padding.
        threshold: None for classes that exclude each other. For binary outputs, the value above which they are
            positive: 0.5 for probabilities, 0 for logits. Labels above 0.5 are positive.

    Returns:
        The sum and the count, which add up over batches.
    """
    if threshold is None:
        right = jnp.argmax(outputs, axis=-1) == class_indices(labels, outputs)
    else:
        right = (outputs > threshold) == _positive(labels, outputs)
    return _count(right, mask)


def top_k_accuracy(labels: jax.Array, outputs: jax.Array, mask: jax.Array, k: int = 5) -> Mean:
    """Counts examples whose class is among the k largest outputs. As in Keras, ties count as right.

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False for padding.
        k: Number of outputs that count as the largest.

    Returns:
        The sum and the count, which add up over batches.
    """
    own = jnp.take_along_axis(outputs, class_indices(labels, outputs)[..., None], axis=-1)
    # No output is larger than NaN, so an example with NaN would count as right.
    own = jnp.where(jnp.isnan(own), jnp.asarray(-jnp.inf, own.dtype), own)
    return _count(jnp.sum(outputs > own, axis=-1) < k, mask)


def confusion_matrix(
    labels: jax.Array, outputs: jax.Array, mask: jax.Array, *, threshold: float | None = None
) -> jax.Array:
    """Counts examples by true class (row) and predicted class (column).

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False for padding.
        threshold: As in `accuracy`; the classes are then negative and positive.

    Returns:
        (classes, classes), int32; with a threshold (2, 2).
    """
    if threshold is None:
        size, true, taken = outputs.shape[-1], class_indices(labels, outputs), jnp.argmax(outputs, axis=-1)
    else:
        size, true, taken = 2, _positive(labels, outputs), outputs > threshold
    counted = _spread(mask, true.shape).astype(jnp.int32)
    empty = jnp.zeros((size, size), jnp.int32)
    return empty.at[true.astype(jnp.int32), taken.astype(jnp.int32)].add(counted, mode="drop")


def batch_metrics(
    objective: Objective, names: Iterable[Metric], labels: jax.Array, outputs: jax.Array, mask: jax.Array
) -> dict[str, Any]:
    """Computes the metrics of a batch of one output as sums; `add_sums` adds those of several batches.

    Args:
        objective: Determines whether the outputs are logits, and whether they are binary.
        names: Names in `METRICS`, or functions of (labels, outputs) that return (batch, ...), whose mean is taken. They
            get probabilities where the model has them.
        labels: As the loss takes them.
        outputs: What the model of the objective returned.
        mask: (batch,), bool; False for padding.

    Raises:
        ValueError: A metric is unknown, or does not fit the labels.
    """
    return {
        metric_name(metric): _batch_metric(objective, metric, labels, outputs, mask)
        for metric in known_metrics(objective, names)
    }


def _batch_metric(objective: Objective, metric: Metric, labels: jax.Array, outputs: jax.Array, mask: jax.Array) -> Any:
    threshold = (0.0 if objective.from_logits else 0.5) if objective.is_binary else None
    if callable(metric):
        return mean_of(metric, labels, objective.final_outputs(outputs), mask)
    name = _snake(metric)
    if name in ACCURACIES:
        return accuracy(labels, outputs, mask, threshold=threshold)
    if name == "top_5_accuracy":
        return top_k_accuracy(labels, outputs, mask)
    if name == "confusion_matrix":
        return confusion_matrix(labels, outputs, mask, threshold=threshold)
    if name not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}. Known: {', '.join(METRICS)}")
    score = SCORES[name]
    if score is f1_score and objective.is_categorical:
        score = f1_of_classes
    return score(targets_like(labels, outputs), objective.probabilities(outputs), mask)


def is_known(metric: Any) -> bool:
    """Whether a value is the name of a metric, in the spelling of `METRICS` or of Keras's classes ("R2Score")."""
    return isinstance(metric, str) and _snake(metric) in METRICS


def metric_name(metric: Metric) -> str:
    """Returns the name of a metric in the history: as it was given, as in Keras, or that of the function."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))


def known_metrics(objective: Objective, names: Iterable[Metric]) -> list[Metric]:
    """Returns the metrics that an objective has: a regression has no classes, and so no accuracy."""
    outputs = objective.model.output_shape
    numbers = objective.is_regression and outputs[-1] == 1
    return [each for each in names if not (numbers and isinstance(each, str) and _snake(each) in ACCURACIES)]


def _snake(name: str) -> str:
    """Returns a metric's name in the spelling of functions: Keras's classes as MeanSquaredError and AUC too."""
    return name.lower() if name.isupper() else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def add_sums(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the sums over two sets of examples.

    Args:
        first: Sums by name of the metric.
        second: The same metrics over other examples.

    Returns:
        The sums over the examples of both.
    """
    total: dict[str, Any] = jax.tree.map(lambda one, other: one + other, dict(first), dict(second))
    return total


def summarise(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the values of sums.

    Args:
        sums: Sums by name of the metric.

    Returns:
        A float for each metric, a NumPy array (classes, classes) for a confusion matrix.
    """
    return {name: each.value if isinstance(each, Sums) else jax.device_get(each) for name, each in sums.items()}


def _positive(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    return labels.reshape(outputs.shape).astype(jnp.float32) > 0.5


def _spread(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - 1)), shape)


def _count(right: jax.Array, mask: jax.Array) -> Mean:
    counted = _spread(mask, right.shape)
    return Mean(jnp.sum(right & counted, dtype=jnp.int32), jnp.sum(counted, dtype=jnp.int32))
