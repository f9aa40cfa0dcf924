"""Evaluation of networks with one output for yes or no, and of those that give a photo several labels."""

import json
import re
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.cli.rows import write_rows
from flaxapps.model import Model
from flaxapps.runtime.console import new_table, open_console
from flaxapps.runtime.distributed import sum_over_processes
from flaxapps.transforms.logits import holds_probabilities, last_activation

SEPARATORS = re.compile(r"\s*[;|]\s*")  # between the labels of a photo


def threshold_of(model: Model) -> float:
    """Returns the score above which an output means yes: 0.5 for probabilities, 0 for logits.

    Raises:
        ValueError: The last activation is a softmax, or does not show which of these the outputs are.
    """
    activation = last_activation(model)
    probabilities = None if activation == "softmax" else holds_probabilities(activation)
    if probabilities is None:
        raise ValueError(
            f"{model.name!r} ends in the activation {activation!r}: for yes or no, and for several labels a photo, its "
            "outputs should be those of a sigmoid, or logits"
        )
    return 0.5 if probabilities else 0.0


def as_two_classes(scores: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Returns the scores of no and yes, (photos, 2), of a network with one output, (photos, 1).

    >>> as_two_classes(np.array([[0.25], [0.75]]), 0.5).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    return np.concatenate([2 * threshold - scores, scores], axis=1)


class LabelCounts(NamedTuple):
    """Counts of one label.

    Attributes:
        name: The label.
        photos: Number of photos that have it.
        predicted: Number of photos for which it is predicted.
        right: Number of photos that have it and for which it is predicted.
        precision: right / predicted; NaN if it is never predicted.
        recall: right / photos; NaN without photos.
        f1: Harmonic mean of both, 0 if nothing is right; NaN if there is neither.
    """

    name: str
    photos: int
    predicted: int
    right: int
    precision: float
    recall: float
    f1: float


class LabelTally:
    """Running counts of predicted labels, each by itself.

    Attributes:
        counts: Number of photos with each label, with it predicted, and with both, (3, labels).
        exact: Number of photos, and of those with all labels right, (2,).
    """

    def __init__(self, classes: int, threshold: float):
        self.counts = np.zeros((3, classes), np.int64)
        self.exact = np.zeros(2, np.int64)
        self._threshold = threshold

    def add(self, scores: NDArray[Any], labels: Sequence[Sequence[int]]) -> None:
        """Adds photos, given their scores (photos, classes) and the indices of the labels of each."""
        true = np.zeros(scores.shape, bool)
        for row, own in enumerate(labels):
            true[row, list(own)] = True
        predicted = scores > self._threshold
        self.counts += np.stack([true.sum(0), predicted.sum(0), (true & predicted).sum(0)])
        self.exact += [len(true), int((true == predicted).all(axis=1).sum())]

    def sum_over_processes(self) -> None:
        """Adds up the counts of all processes. A collective: every process must call it."""
        self.counts = sum_over_processes(self.counts)
        self.exact = sum_over_processes(self.exact)

    @property
    def photos(self) -> int:
        """Number of photos counted."""
        return int(self.exact[0])

    def by_label(self, names: Sequence[str]) -> list[LabelCounts]:
        """Returns the counts of all labels, in the order of the outputs."""
        rows = zip(names, self.counts.T.tolist(), strict=True)
        return [
            LabelCounts(name, photos, predicted, right, *_quality(photos, predicted, right))
            for name, (photos, predicted, right) in rows
        ]

    def write(self, stream: IO[str], form: str, names: Sequence[str]) -> None:
        """Writes the counts.

        Args:
            stream: Output.
            form: "table", "csv" and "jsonl" (a line for each label), "json" (one object), or "npz" (the counts).
            names: The labels in the order of the outputs.
        """
        rows = self.by_label(names)
        photos, exact = self.exact.tolist()
        scores = [row.f1 for row in rows if row.photos + row.predicted]
        mean = sum(scores) / len(scores) if scores else float("nan")
        if form == "npz":
            arrays = {"counts": self.counts, "exact": self.exact, "labels": np.array(names, np.str_)}
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # a stream of bytes
        elif form == "json":
            labels = [_without_nan(row._asdict()) for row in rows]
            result = {"photos": photos, "all_labels_right": _part(exact, photos), "mean_f1": mean}
            stream.write(json.dumps(_without_nan(result) | {"labels": labels}, indent=2) + "\n")
        elif form != "table":
            write_rows(stream, form, (_without_nan(row._asdict()) for row in rows))
        else:
            table = new_table()
            for heading in ("label", "photos", "precision", "recall", "F1"):
                table.add_column(heading, justify="left" if heading == "label" else "right")
            for row in sorted(rows, key=lambda row: (row.f1 == row.f1, row.f1)):
                percentages = ["-" if value != value else f"{value:.1%}" for value in row[4:]]
                table.add_row(row.name, str(row.photos), *percentages)
            console = open_console(stream)
            console.print(table)
            console.print(f"all labels right: {_part(exact, photos):.1%} ({exact} of {photos}); mean F1 {mean:.1%}")


def _quality(photos: int, predicted: int, right: int) -> tuple[float, float, float]:
    return _part(right, predicted), _part(right, photos), _part(2 * right, photos + predicted)


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in values.items()}


def _part(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
