"""Metrics as sums over a batch, which add up exactly, however the examples are split into batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from flaxapps.train.step.distances import DISTANCES
from flaxapps.train.step.losses import Objective, class_indices

METRICS = ("accuracy", "top_5_accuracy", "confusion_matrix")


class Mean(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """A mean as a sum and a count.

    Attributes:
        total: Sum of the values, (); int32 for counts, so that sums of them are exact. Plain numbers on the host.
        count: Number of values, (), int32.
    """

    total: Any
    count: Any

    @property
    def value(self) -> float:
        """The mean; NaN if there are no values."""
        return float(self.total) / int(self.count) if int(self.count) else float("nan")


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
    objective: Objective, names: Iterable[str], labels: jax.Array, outputs: jax.Array, mask: jax.Array
) -> dict[str, Any]:
    """Computes the named metrics of a batch as sums; `add_sums` adds those of several batches.

    Args:
        objective: Determines whether the outputs are logits, and whether they are binary.
        names: Names in `METRICS`.
        labels: As the loss takes them.
        outputs: What the model of the objective returned.
        mask: (batch,), bool; False for padding.

    Raises:
        ValueError: A metric is unknown.
    """
    binary = objective.loss == "binary_crossentropy"
    threshold = (0.0 if objective.from_logits else 0.5) if binary else None
    sums: dict[str, Any] = {}
    for name in known_metrics(objective, names):
        if name == "accuracy":
            sums[name] = accuracy(labels, outputs, mask, threshold=threshold)
        elif name == "top_5_accuracy":
            sums[name] = top_k_accuracy(labels, outputs, mask)
        elif name == "confusion_matrix":
            sums[name] = confusion_matrix(labels, outputs, mask, threshold=threshold)
        else:
            raise ValueError(f"Unknown metric {name!r}. Known: {', '.join(METRICS)}")
    return sums


def known_metrics(objective: Objective, names: Iterable[str]) -> list[str]:
    """Returns the metrics that an objective has: a regression has no classes, and so no accuracy."""
    outputs = objective.model.output_shape
    regression = objective.loss in DISTANCES.values() and outputs[-1] == 1
    return [name for name in names if name != "accuracy" or not regression]


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
        A float for a mean, a NumPy array (classes, classes) for a confusion matrix.
    """
    return {name: each.value if isinstance(each, Mean) else jax.device_get(each) for name, each in sums.items()}


def _positive(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    return labels.reshape(outputs.shape).astype(jnp.float32) > 0.5


def _spread(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - 1)), shape)


def _count(right: jax.Array, mask: jax.Array) -> Mean:
    counted = _spread(mask, right.shape)
    return Mean(jnp.sum(right & counted, dtype=jnp.int32), jnp.sum(counted, dtype=jnp.int32))
