"""Metrics as sums over a batch: they add up exactly, however the examples are split into batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from train.losses import Objective, class_indices

METRICS = ("accuracy", "top_5_accuracy", "confusion_matrix")


class Mean(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """A mean that is not divided yet.

    Attributes:
        total: Sum of the values, (); int32 for counts, so that sums of them are exact. Plain numbers on the host.
        count: How many there are, (), int32.
    """

    total: Any
    count: Any

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return float(self.total) / int(self.count) if int(self.count) else float("nan")


def accuracy(labels: jax.Array, outputs: jax.Array, mask: jax.Array, *, threshold: float | None = None) -> Mean:
    """How many examples have their class on top; or how many yes-or-no answers are right.

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False where an example only fills the batch.
        threshold: None for classes that exclude each other; for binary outputs the value above which they mean yes:
            0.5 for probabilities, 0 for logits. Labels above one half mean yes.

    Returns:
        The sum and the count, which add up over batches.
    """
    if threshold is None:
        right = jnp.argmax(outputs, axis=-1) == class_indices(labels, outputs)
    else:
        right = (outputs > threshold) == (labels.reshape(outputs.shape) > 0.5)
    return _count(right, mask)


def top_k_accuracy(labels: jax.Array, outputs: jax.Array, mask: jax.Array, k: int = 5) -> Mean:
    """How many examples have their class among the best k: fewer than k outputs are above it, as Keras counts ties.

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False where an example only fills the batch.
        k: How many may be best.

    Returns:
        The sum and the count, which add up over batches.
    """
    own = jnp.take_along_axis(outputs, class_indices(labels, outputs)[..., None], axis=-1)
    own = jnp.where(jnp.isnan(own), jnp.asarray(-jnp.inf, own.dtype), own)
    return _count(jnp.sum(outputs > own, axis=-1) < k, mask)


def confusion_matrix(
    labels: jax.Array, outputs: jax.Array, mask: jax.Array, *, threshold: float | None = None
) -> jax.Array:
    """Counts of examples by their class (row) and the class they are taken for (column).

    Args:
        labels: Indices (batch,) or (batch, 1), or one-hot, shaped like the outputs.
        outputs: (batch, ..., classes), probabilities or logits.
        mask: (batch,), bool; False where an example only fills the batch.
        threshold: As in `accuracy`; the classes are then no and yes.

    Returns:
        (classes, classes), int32; with a threshold (2, 2).
    """
    if threshold is None:
        size, true, taken = outputs.shape[-1], class_indices(labels, outputs), jnp.argmax(outputs, axis=-1)
    else:
        size, true, taken = 2, labels.reshape(outputs.shape) > 0.5, outputs > threshold
    counted = _spread(mask, true.shape).astype(jnp.int32)
    empty = jnp.zeros((size, size), jnp.int32)
    return empty.at[true.astype(jnp.int32), taken.astype(jnp.int32)].add(counted, mode="drop")


def batch_metrics(
    objective: Objective, names: Iterable[str], labels: jax.Array, outputs: jax.Array, mask: jax.Array
) -> dict[str, Any]:
    """The named metrics of a batch, as sums; add those of several batches with `add_sums`.

    Args:
        objective: Says whether the outputs are logits, and whether they are binary.
        names: Of `METRICS`.
        labels: As the loss takes them.
        outputs: What the model of the objective returned.
        mask: (batch,), bool; False where an example only fills the batch.

    Raises:
        ValueError: There is no such metric.
    """
    binary = objective.loss == "binary_crossentropy"
    threshold = (0.0 if objective.from_logits else 0.5) if binary else None
    sums: dict[str, Any] = {}
    for name in names:
        if name == "accuracy":
            sums[name] = accuracy(labels, outputs, mask, threshold=threshold)
        elif name == "top_5_accuracy":
            sums[name] = top_k_accuracy(labels, outputs, mask)
        elif name == "confusion_matrix":
            sums[name] = confusion_matrix(labels, outputs, mask, threshold=threshold)
        else:
            raise ValueError(f"Unknown metric {name!r}. Known: {', '.join(METRICS)}")
    return sums


def add_sums(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Adds what was counted over two sets of examples.

    Args:
        first: Sums by name of the metric.
        second: The same metrics over other examples.

    Returns:
        The sums over the examples of both.
    """
    total: dict[str, Any] = jax.tree.map(lambda one, other: one + other, dict(first), dict(second))
    return total


def summarise(sums: Mapping[str, Any]) -> dict[str, Any]:
    """The values of sums.

    Args:
        sums: Sums by name of the metric.

    Returns:
        A float for a mean, a NumPy array (classes, classes) for a confusion matrix.
    """
    return {name: each.value if isinstance(each, Mean) else jax.device_get(each) for name, each in sums.items()}


def _spread(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - 1)), shape)


def _count(right: jax.Array, mask: jax.Array) -> Mean:
    counted = _spread(mask, right.shape)
    return Mean(jnp.sum(right & counted, dtype=jnp.int32), jnp.sum(counted, dtype=jnp.int32))
