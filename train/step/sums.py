"""Sums over examples, which add up over batches and devices, and the values computed from them."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np


class Sums(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """Base class. The sums over two sets of examples are added leaf by leaf."""

    @property
    def value(self) -> float:
        """The value; NaN if there are no examples.

        Raises:
            NotImplementedError: The subclass does not override it.
        """
        raise NotImplementedError


class Mean(Sums):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
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


class RootMean(Mean):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """The square root of a mean."""

    @property
    def value(self) -> float:
        """The root; NaN if there are no values."""
        return float(np.sqrt(super().value))


class Explained(Sums):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """The share of the variance of targets that outputs explain.

    Attributes:
        count: Number of examples, (), int32.
        total: Sums of the targets, (outputs,).
        squares: Sums of their squares, (outputs,).
        errors: Sums of the squared errors, (outputs,).
    """

    count: Any
    total: Any
    squares: Any
    errors: Any

    @property
    def value(self) -> float:
        """R squared, the mean over the outputs: 0 for an output whose targets are all equal, 1 if it has no error."""
        if not int(self.count):
            return float("nan")
        errors = np.asarray(self.errors, np.float64)
        spread = np.asarray(self.squares, np.float64) - np.asarray(self.total, np.float64) ** 2 / int(self.count)
        constant = spread <= 0
        scores = np.where(constant, errors == 0, 1 - errors / np.where(constant, 1, spread))
        return float(np.mean(scores))


class Decisions(Sums):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """Counts of yes or no, for every output.

    Attributes:
        hits: Outputs that are rightly yes, (outputs,), int32.
        false_alarms: Those that are wrongly yes.
        misses: Those that are wrongly no.
    """

    hits: Any
    false_alarms: Any
    misses: Any


class Precision(Decisions):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """The share of yes that is right, over all outputs together; 0 if there is none."""

    @property
    def value(self) -> float:
        """The precision."""
        return _share(np.sum(self.hits), np.sum(self.hits) + np.sum(self.false_alarms))


class Recall(Decisions):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """The share that is found of what is yes, over all outputs together; 0 if there is none."""

    @property
    def value(self) -> float:
        """The recall."""
        return _share(np.sum(self.hits), np.sum(self.hits) + np.sum(self.misses))


class F1(Decisions):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """The harmonic mean of precision and recall of each output; the mean over the outputs."""

    @property
    def value(self) -> float:
        """The mean of the F1 scores."""
        parts = [np.atleast_1d(each) for each in (self.hits, self.false_alarms, self.misses)]
        return float(
            np.mean([_share(2 * hit, 2 * hit + alarm + miss) for hit, alarm, miss in zip(*parts, strict=True)])
        )


class RankedScores(Sums):  # type: ignore[no-untyped-call, unused-ignore]  # as for Sums
    """Histograms of scores, from which the area under the ROC curve is computed.

    Attributes:
        positives: How many scores of label 1 lie above so many thresholds, (thresholds + 1,), int32.
        negatives: As `positives`, for label 0.
    """

    positives: Any
    negatives: Any

    @property
    def value(self) -> float:
        """The area, by trapezoids between the thresholds; 0 if there is only one label, as in Keras."""
        found, alarms = (np.cumsum(np.asarray(each)[:0:-1])[::-1] for each in (self.positives, self.negatives))
        rates = [_shares(each, np.sum(all_)) for each, all_ in ((found, self.positives), (alarms, self.negatives))]
        recall, alarm = rates
        return float(np.sum((alarm[:-1] - alarm[1:]) * (recall[:-1] + recall[1:]) / 2))


KINDS: Mapping[str, type[Sums]] = {
    kind.__name__: kind for kind in (Mean, RootMean, Explained, Precision, Recall, F1, RankedScores)
}


def on_host(sums: Any) -> Any:
    """Converts fetched sums to float64 and int64, in which many batches add up without rounding to float32."""
    return jax.tree.map(_widest, sums)


def to_json(sums: Any) -> Any:
    """Converts sums on the host to a JSON value, without loss of precision."""
    if not isinstance(sums, Sums):
        return np.asarray(sums).tolist()
    fields = {name: np.asarray(each).tolist() for name, each in vars(sums).items()}
    return fields if type(sums) is Mean else {"kind": type(sums).__name__, **fields}


def from_json(stored: Any) -> Any:
    """Inverse of `to_json`."""
    if not isinstance(stored, Mapping):
        return np.asarray(stored, np.int64)
    kind: Any = KINDS[stored.get("kind", "Mean")]
    return kind(**{name: _from_list(each) for name, each in stored.items() if name != "kind"})


def _from_list(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, list) else value


def _widest(leaf: Any) -> Any:
    array = np.asarray(leaf)
    wide = array.astype(np.float64 if np.issubdtype(array.dtype, np.inexact) else np.int64)
    return wide if wide.ndim else wide.item()


def _share(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else 0.0


def _shares(parts: Any, whole: Any) -> Any:
    return parts / whole if whole else np.zeros(len(parts))
