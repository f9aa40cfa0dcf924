"""Labels: brought to int32 or float32, and checked against what a loss takes, where they are still on the host."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.runtime.console import listed
from flaxapps.train.step.losses import Objective
from flaxapps.train.step.objectives import AnyObjective, Objectives, of_the_output
from flaxapps.train.step.targets import as_targets, of_output

CATEGORICAL = ("categorical_crossentropy", "sparse_categorical_crossentropy")


def as_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Converts labels to int32, if they are whole numbers or bools, else to float32.

    Raises:
        ValueError: They are no numbers, or beyond int32, in which they would be other numbers.
    """
    kind = labels.dtype.kind
    if kind not in "biuf":
        advice = "give class indices, or all images and labels as one tuple, in which names become classes"
        raise ValueError(f"Labels should be numbers, got {labels.dtype}: {_some_of(labels)}. {advice}")
    bounds = np.iinfo(np.int32)
    if kind in "iu" and labels.size and (labels.max() > bounds.max or labels.min() < bounds.min):
        raise ValueError(
            f"Class indices should count from 0, but labels reach from {labels.min()} to {labels.max()}, beyond int32: "
            "np.unique(labels, return_inverse=True) gives the classes and their indices"
        )
    return labels.astype(np.int32 if kind in "biu" else np.float32, copy=False)


def index_names(labels: NDArray[Any], class_names: Sequence[str] | None) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Converts class names to class indices, in sorted order as `image_folder` does.

    Args:
        labels: (n,), strings.
        class_names: The order of the classes; None sorts the names.

    Returns:
        The indices, (n,), and the class names.

    Raises:
        ValueError: A label is not among `class_names`.

    >>> index_names(np.array(["dog", "cat", "dog"]), None)
    (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    found, indices = np.unique(labels.astype(str), return_inverse=True)
    names = tuple(map(str, found if class_names is None else class_names))
    unknown = sorted(set(found.tolist()) - set(names))
    if unknown:
        raise ValueError(f"Labels are not among the class_names: {listed([repr(name) for name in unknown])}")
    place = np.array([names.index(name) for name in found], np.int32)
    return place[indices.reshape(labels.shape)], names


def check_labels(labels: Any, objective: AnyObjective) -> None:
    """Checks that the values of labels are what a cross-entropy takes. A wrong one would train on nothing, unnoticed.

    Args:
        labels: The labels of a batch, or of all data; an array or `Targets`.
        objective: What they are for; other losses than the cross-entropies take any labels.

    Raises:
        ValueError: Class indices are outside the outputs or no whole numbers, or labels from 0 to 1 are outside.
    """
    targets = as_targets(labels)
    if isinstance(objective, Objectives):
        _check_weights(targets.weights, objective)
        for part in objective.parts:
            _check_labels(of_output(targets.labels, part.name, part.index, "labels"), part.objective)
        return
    _check_labels(of_the_output(objective, targets).labels, objective)


def _check_weights(weights: Any, objective: Objectives) -> None:
    """Checks that sample weights by name are for outputs."""
    if isinstance(weights, Mapping):
        names = [part.name for part in objective.parts]
        unknown = [name for name in weights if name not in names]
        if unknown:
            raise ValueError(
                f"Sample weights name {', '.join(map(repr, unknown))}, but the outputs with a loss are "
                f"{', '.join(map(repr, names))}"
            )
    elif isinstance(weights, tuple):
        raise ValueError("Sample weights should be an array, or a dict of arrays by the names of outputs; got a tuple")


def _check_labels(labels: NDArray[Any], objective: Objective) -> None:
    """Checks the labels of one output."""
    classes = objective.model.output_shape[-1]
    if not labels.size or classes is None:
        return
    per_class = labels.ndim == len(objective.model.output_shape) and labels.shape[-1] == classes
    if objective.loss == "binary_crossentropy" or (objective.loss == "categorical_crossentropy" and per_class):
        if labels.min() < 0 or labels.max() > 1:
            raise ValueError(
                f"{objective.loss} takes labels from 0 to 1, got {_some_of(labels)}: "
                "divide masks of 0 and 255 by 255, subtract 1 from labels 1 and 2"
            )
    elif objective.loss in CATEGORICAL:
        if labels.dtype.kind == "f" and np.any(labels != np.floor(labels)):
            raise ValueError(f"{objective.loss} takes whole numbers as class indices, got {_some_of(labels)}")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"The model has {classes} outputs, which stand for the class indices 0 to {classes - 1}, but the "
                f"labels are {_some_of(labels)}: {_advice(labels, classes)}"
            )


def _advice(labels: NDArray[Any], classes: int) -> str:
    if labels.min() < 0 or labels.max() == 255:
        return "there is no label to ignore; leave such examples out, or give a loss that leaves out such pixels"
    if labels.min() == 1 and labels.max() == classes:
        return "they count from 1, so subtract 1"
    return f"the last layer needs {int(labels.max()) + 1} outputs"


def _some_of(labels: NDArray[Any]) -> str:
    return listed([str(value) for value in np.unique(labels).tolist()])
