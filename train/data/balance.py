"""Classes of unequal size: how many examples each has, and weights that make up for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flaxapps.train.step.targets import as_targets

BALANCED = "balanced"


def count_classes(labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts the examples of every class.

    Args:
        labels: Class indices, (n,) or (n, 1), or one-hot, (n, classes).
        classes: Number of classes.

    Returns:
        (classes,), int64.
    """
    array = np.asarray(labels)
    indices = array.argmax(axis=-1) if array.ndim > 1 and array.shape[-1] > 1 else array.reshape(-1)
    return np.bincount(indices.astype(np.int64), minlength=classes).astype(np.int64)


def balanced_class_weights(labels: ArrayLike, classes: int) -> dict[int, float]:
    """Computes scikit-learn's "balanced" weights: examples / (classes * examples of the class).

    Args:
        labels: As `count_classes` takes them.
        classes: Number of classes.

    Returns:
        The weight of every class that has examples, for the `class_weights` of `fit`.

    >>> balanced_class_weights([0, 0, 0, 1], 2)
    {0: 0.6666666666666666, 1: 2.0}
    """
    counts = count_classes(labels, classes)
    return {int(index): float(counts.sum() / (classes * counts[index])) for index in np.flatnonzero(counts)}


def resolve_class_weights(
    given: Mapping[int, float] | str | None, data: Any, outputs: int
) -> Mapping[int, float] | None:
    """Returns class weights as they are, or for "balanced" those of the labels of a dataset.

    Args:
        given: The `class_weights` of `fit`.
        data: The training data.
        outputs: Number of outputs of the model; 1 stands for two classes.

    Raises:
        ValueError: The data does not know its labels before it is read.
    """
    if given is None or not isinstance(given, str):
        return given
    labels = getattr(data, "labels", None)
    if labels is None:
        raise ValueError(
            'class_weights="balanced" counts the labels before the training, which arrays, image_folder and '
            "image_table allow but not a stream of batches: give train.balanced_class_weights(labels, classes)"
        )
    return balanced_class_weights(as_targets(labels).labels, max(outputs, 2))
