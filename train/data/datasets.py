"""Datasets of labelled images: the protocol, in-memory arrays, and streams of batches."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flaxapps.runtime.manifests import array_summary, fingerprint_of
from flaxapps.train.data.labels import as_labels, index_names
from flaxapps.train.data.pipeline import pipeline
from flaxapps.train.data.sources import SteppedSource, as_array, as_images, pair_in
from flaxapps.train.data.structured import is_structured, rows, structured_batch

Batches = Iterator[tuple[Any, Any]]

HASHED_BYTES = 1 << 26  # upper bound of the image bytes that a fingerprint hashes


class Dataset(Protocol):
    """Labelled images, read in an order that is a function of a seed and the epoch."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels; None if unknown."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash that identifies the data: a resumed run refuses data with another one."""
        ...

    def manifest(self) -> dict[str, str]:
        """Returns what the fingerprint is computed from, for `flaxapps.runtime.manifests.difference`."""
        ...

    def __len__(self) -> int:
        """Returns the number of examples.

        Raises:
            TypeError: The number is unknown.
        """
        ...

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Reads one epoch.

        Args:
            batch_size: Examples in a batch, over all shards.
            seed: Seed of the order, which is a pure function of (seed, epoch); None reads in order.
            epoch: Index of the epoch, from 0.
            start: Batches to skip at the beginning, without reading them.
            shard: (index, count): which of `count` shards of every batch to read, for as many processes.

        Yields:
            Images, uint8 or float32 (n, height, width, channels), and labels, int32 (n,) or float32 (n, classes); with
            sample weights or several outputs `flaxapps.train.step.targets.Targets`.
            Only the last batch may be smaller than the others, except where unreadable images are skipped.
        """
        ...


class ArrayDataset:
    """Images and labels in memory, or in a memory-mapped file.

    >>> data = ArrayDataset(np.zeros((5, 8, 8, 3), np.uint8), [0, 1, 0, 1, 1], class_names=("cat", "dog"))
    >>> [len(labels) for _, labels in data.batches(2, seed=0)]
    [2, 2, 1]
    """

    def __init__(self, images: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None):
        """Stores the arrays without copying them.

        Args:
            images: (n, ...), usually (n, height, width, channels). Batches are uint8 if the images are, else float32.
            labels: (n,), class indices, or (n, classes), one-hot or probabilities; converted to int32 or float32. Or
                (n,), names of classes, which are sorted as `image_folder` sorts folders.
            class_names: Class names in the order of the labels.

        Raises:
            ValueError: There are no examples, or images, labels and class names do not fit each other.
        """
        self.images = as_array(images)
        given = np.asarray(labels)
        self.class_names = None if class_names is None else tuple(class_names)
        if given.ndim == 1 and len(given) and isinstance(given[0], str):
            given, self.class_names = index_names(given, class_names)
        self.labels = as_labels(given)
        _check_examples(self.images, self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shapes, dtypes, labels and images; above 64 MiB of evenly spaced images only."""
        return fingerprint_of(self.manifest())

    def manifest(self) -> dict[str, str]:
        """Returns shape, dtype and SHA-256 of both arrays, and the class names."""
        names = {f"class {index}": name for index, name in enumerate(self.class_names or ())}
        return names | {
            "images": array_summary(self.images, HASHED_BYTES),
            "labels": array_summary(self.labels),
        }

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Reads one epoch, as `Dataset.batches`."""
        options: Any = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return iter(pipeline(self._load, len(self), **options))

    def _load(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return as_images(self.images[indices]), self.labels[indices]


class BatchStream:
    """Batches from an iterable, in the order they come. A position is counted in batches.

    Made by `as_dataset`. An iterator can be read only once; a list, or any object that returns a new iterator each
    time, serves every epoch. Where the source has a length, an epoch has as many batches; its `on_epoch_end`, as that
    of Keras's PyDataset, is called after every epoch.
    """

    class_names: tuple[str, ...] | None = None
    fingerprint = "unknown"

    def __init__(self, source: Iterable[Any]):
        self._source = source
        self._used_up = False
        self._epochs = 0

    def __len__(self) -> int:
        raise TypeError("The length of an iterable of batches is known only when it ends")

    def manifest(self) -> dict[str, str]:
        """Returns nothing, as batches are not read for a manifest."""
        return {}

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Reads the batches as they come, without changing their size or order.

        Args:
            batch_size: Not used.
            seed: Not used.
            epoch: Not used.
            start: Batches to skip; the iterable still has to produce them.
            shard: (index, count): which of `count` shards of every batch to return.

        Yields:
            Images and labels, as `Dataset.batches`.

        Raises:
            ValueError: An iterator is read a second time, or a batch is not a pair of images and labels.
        """
        if self._used_up:
            raise ValueError(
                "This iterator of batches is exhausted and cannot start again: for several epochs, or for validation "
                "after each, give a list, a generator function, or an object whose __iter__ returns a new iterator"
            )
        for _ in range(self._epochs, epoch):  # of a resumed run, so that the source shuffles as in the run before
            self._notify("on_epoch_begin")
            self._notify("on_epoch_end")
        self._epochs = max(self._epochs, epoch) + 1
        self._notify("on_epoch_begin")
        iterator = iter(self._source)
        self._used_up = iterator is self._source
        index, count = shard
        # A length ends the epoch: sources with one, such as Keras's PyDataset, may be read for ever.
        for number, batch in enumerate(itertools.islice(iterator, _length_of(self._source))):
            if number >= start:
                images, labels = _as_batch(batch, number)
                part = slice(index * len(labels) // count, (index + 1) * len(labels) // count)
                yield rows(images, part), rows(labels, part)
        self._notify("on_epoch_end")

    def first_images(self) -> NDArray[Any] | None:
        """Returns the images of the first batch, which an iterator gives once more; None if there is none."""
        if isinstance(self._source, SteppedSource):
            return _as_batch(self._source.peek(), 0)[0]
        iterator = iter(self._source)
        batch = next(iterator, None)
        if batch is None:
            return None
        if iterator is self._source:
            self._source = itertools.chain([batch], iterator)
        return _as_batch(batch, 0)[0]

    def _notify(self, name: str) -> None:
        """Calls a method that the source may have, as Keras does; it may shuffle then."""
        method = getattr(self._source, name, None)
        if callable(method):
            method()


def _length_of(source: Any) -> int | None:
    try:
        return len(source)
    except (TypeError, NotImplementedError):  # some have the method, but no length
        return None


def _as_batch(batch: Any, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
    batch = pair_in(batch)
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise ValueError(
            f"Batch {number} should be a tuple (images, labels) or (images, labels, sample_weights), got "
            f"{type(batch).__name__}; arrays of all images and labels belong into a tuple: (images, labels)"
        )
    if len(batch) == 3 or is_structured(*batch):
        return structured_batch(batch)
    images, labels = as_images(batch[0]), as_labels(np.asarray(batch[1]))
    if images.ndim == 0 or labels.shape[:1] != images.shape[:1]:
        single = ": these are single examples, so batch them first" if labels.ndim == 0 else ""
        raise ValueError(f"Batch {number} should have a label per image: got {images.shape} and {labels.shape}{single}")
    return images, labels


def _check_examples(images: NDArray[Any], labels: NDArray[Any], class_names: tuple[str, ...] | None) -> None:
    if images.ndim == 0 or labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"Each image needs a label: images of shape {images.shape}, labels of shape {labels.shape}")
    if not len(images):
        raise ValueError("There are no images: the arrays are empty")
    if labels.dtype == np.int32 and labels.ndim == 1:
        if labels.min() < 0:
            raise ValueError(f"Class indices should count from 0, got {labels.min()}")
        if class_names is not None and labels.max() >= len(class_names):
            raise ValueError(f"There are {len(class_names)} class names, but a label is {labels.max()}")
    elif class_names is not None and labels.shape[-1] not in (1, len(class_names)):
        raise ValueError(f"There are {len(class_names)} class names, but labels of shape {labels.shape}")
