"""Data of several inputs or outputs, and sample weights: dicts and tuples of arrays in place of one array."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from flaxapps.runtime.manifests import array_summary, fingerprint_of
from flaxapps.train.data.labels import as_labels
from flaxapps.train.data.pipeline import pipeline
from flaxapps.train.data.sources import IMAGE_KEYS, LABEL_KEYS, as_array, as_images
from flaxapps.train.step.targets import Targets

HASHED_BYTES = 1 << 26  # upper bound of the bytes of an array that a fingerprint hashes


class StructuredDataset:
    """Arrays in memory: inputs and labels in dicts by name or in tuples, and sample weights. Made by `as_dataset`.

    Attributes:
        images: An array, or a dict or tuple of arrays, one for each input.
        labels: `Targets`, or an array.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(self, images: Any, labels: Any, sample_weights: Any = None):
        """Stores the arrays without copying them.

        Args:
            images: (n, ...), or a dict by the names of inputs, or a tuple in their order.
            labels: As `images`, of outputs; converted to int32 or float32.
            sample_weights: (n,), factors of the loss of each example; a dict by the names of outputs for a factor of
                each output.

        Raises:
            ValueError: There are no examples, or not as many in every array; or weights are not finite numbers of at
                least 0.
        """
        self.images = _each(as_array, images)
        self.labels = joined(_each(lambda given: as_labels(np.asarray(given)), labels), sample_weights)
        check_lengths(self.images, self.labels, "The data")
        if not len(self):
            raise ValueError("There are no images: the arrays are empty")

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.images)[0])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shapes, dtypes and values, as of `ArrayDataset`."""
        return fingerprint_of(self.manifest())

    def manifest(self) -> dict[str, str]:
        """Returns shape, dtype and SHA-256 of every array."""
        paths = jax.tree_util.tree_leaves_with_path({"images": self.images, "labels": self.labels})
        return {_name_of(path): array_summary(array, HASHED_BYTES) for path, array in paths}

    def batches(
        self, batch_size: int, *, seed: int | None, epoch: int = 0, start: int = 0, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Any, Any]]:
        """Reads one epoch, as `Dataset.batches`."""
        options: Any = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return iter(pipeline(self._load, len(self), **options))

    def _load(self, indices: NDArray[np.int64]) -> tuple[Any, Any]:
        return _each(as_images, rows(self.images, indices)), rows(self.labels, indices)


def is_structured(images: Any, labels: Any) -> bool:
    """Whether inputs or labels are dicts or tuples of arrays."""
    return isinstance(images, Mapping | tuple) or isinstance(labels, Mapping | tuple)


def holds_arrays(data: Any) -> bool:
    """Whether a tuple is (images, labels) or (images, labels, sample weights), not batches one after the other."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return False
    if all(isinstance(part, tuple) for part in data) or all(map(_is_batch, data)):
        return False
    return len(data) == 2 or _is_weights(data[2])


def structured_batch(batch: Any) -> tuple[Any, Any]:
    """Converts a batch (images, labels) or (images, labels, sample weights).

    Raises:
        ValueError: The arrays have different lengths, or weights are not finite numbers of at least 0.
    """
    images, labels = _each(as_images, batch[0]), _each(lambda given: as_labels(np.asarray(given)), batch[1])
    targets = joined(labels, batch[2] if len(batch) == 3 else None)
    check_lengths(images, targets, "A batch")
    return images, targets


def joined(labels: Any, weights: Any) -> Any:
    """Returns labels with their weights as `Targets`; an array of labels without weights as it is.

    Raises:
        ValueError: A weight is not a finite number of at least 0, or there is not one for each example.
    """
    if weights is None and not isinstance(labels, Mapping | tuple):
        return labels
    return Targets(labels, None if weights is None else _each(as_weights, weights))


def as_weights(given: Any) -> NDArray[np.float32]:
    """Converts sample weights to float32, (n,).

    Raises:
        ValueError: They are not finite numbers of at least 0, one for each example.
    """
    weights = np.asarray(given)
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.ndim != 1 or weights.dtype.kind not in "biuf":
        raise ValueError(
            f"Sample weights should be numbers, one for each example, got {weights.dtype} of shape {weights.shape}"
        )
    if not np.isfinite(weights).all():
        raise ValueError("Sample weights should be finite numbers, but some are NaN or infinite")
    if (weights < 0).any():
        # Keras takes them, and maximizes the loss of these examples without a word.
        raise ValueError(
            f"Sample weights should be at least 0, got {weights.min():g}: the loss of such an example would grow in "
            "training; give 0 to leave it out, or a loss function of your own to push it away"
        )
    return weights.astype(np.float32)


def rows(tree: Any, indices: Any) -> Any:
    """Returns rows of every array of a tree."""
    return jax.tree.map(lambda array: np.asarray(array[indices]), tree)


def check_lengths(images: Any, labels: Any, what: str) -> None:
    """Checks that all arrays have as many rows.

    Raises:
        ValueError: They do not.
    """
    leaves = jax.tree_util.tree_leaves_with_path({"images": images, "labels": labels})
    counts = {np.shape(leaf)[:1] for _, leaf in leaves}
    if len(counts) != 1 or () in counts:
        shown = ", ".join(f"{_name_of(path)} {leaf.shape}" for path, leaf in leaves)
        raise ValueError(f"{what} should have as many rows in every array, got {shown or 'none'}")


def _name_of(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=" ")


def _each(convert: Callable[[Any], Any], given: Any) -> Any:
    """Converts every array of a dict or tuple, or the one array that is given."""
    if isinstance(given, Mapping):
        return {str(name): convert(given[name]) for name in given}
    return tuple(map(convert, given)) if isinstance(given, tuple) else convert(given)


def _is_batch(part: Any) -> bool:
    """Whether a part of a tuple is a batch: a dict with images and labels by their usual names."""
    return (
        isinstance(part, Mapping) and any(key in part for key in IMAGE_KEYS) and any(key in part for key in LABEL_KEYS)
    )


def _is_weights(part: Any) -> bool:
    """Whether a part can be sample weights, which are numbers, not arrays of images."""
    if isinstance(part, Mapping):
        return not _is_batch(part)
    if hasattr(part, "shape"):
        return True
    try:
        return np.ndim(part[0]) == 0 or np.shape(part[0]) == (1,)
    except (IndexError, KeyError, TypeError, ValueError):
        return False
