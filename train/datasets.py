"""Labelled images as training reads them: the protocol, arrays, and batches that come from elsewhere."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flaxapps.manifests import fingerprint_of
from train.pipeline import pipeline

Batches = Iterator[tuple[NDArray[Any], NDArray[Any]]]

HASHED_BYTES = 1 << 26  # of the images of an array that enter its fingerprint


class Dataset(Protocol):
    """Labelled images that can be read in any epoch's order, from a seed."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of the labels; None where nobody knows them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of what the data is: a resumed run refuses data with another one."""
        ...

    def manifest(self) -> dict[str, str]:
        """What the fingerprint is made of, for `flaxapps.manifests.difference`."""
        ...

    def __len__(self) -> int:
        """The number of examples.

        Raises:
            TypeError: Nobody knows it.
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
            batch_size: Examples in a batch of all shards together.
            seed: Of the order, which is a pure function of (seed, epoch); None reads in order.
            epoch: From 0 on.
            start: Batches that are done already: they are left out, without being read.
            shard: (index, count): the part of every batch that is wanted, for as many processes.

        Yields:
            Images, uint8 or float32 (n, height, width, channels), and labels, int32 (n,) or float32 (n, classes).
            Only the last batch may be smaller than the others, except where broken images are skipped.
        """
        ...


class ArrayDataset:
    """Images and labels that are in memory, or in a memory-mapped file.

    >>> data = ArrayDataset(np.zeros((5, 8, 8, 3), np.uint8), [0, 1, 0, 1, 1], class_names=("cat", "dog"))
    >>> [len(labels) for _, labels in data.batches(2, seed=0)]
    [2, 2, 1]
    """

    def __init__(self, images: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None):
        """Takes the arrays as they are, without a copy.

        Args:
            images: (n, ...), usually (n, height, width, channels). Batches of them are uint8 where they are, else
                float32.
            labels: (n,), class indices, or (n, classes), one-hot or probabilities. Whole numbers become int32,
                others float32.
            class_names: In the order of the labels.

        Raises:
            ValueError: There are no examples, or the three do not fit each other.
        """
        self.images = np.asarray(images)
        self.labels = _as_labels(np.asarray(labels))
        self.class_names = None if class_names is None else tuple(class_names)
        _check_examples(self.images, self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """Of shapes, types, labels and the images, or of evenly spaced ones where there are more than 64 MiB."""
        return fingerprint_of(self.manifest())

    def manifest(self) -> dict[str, str]:
        """Shapes, types and SHA-256 of both arrays, and the class names."""
        step = min(len(self.images), max(1, -(-self.images.nbytes // HASHED_BYTES)))
        names = {f"class {index}": name for index, name in enumerate(self.class_names or ())}
        return names | {"images": _summary(self.images, step), "labels": _summary(self.labels, 1)}

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
        return _as_images(self.images[indices]), self.labels[indices]


class BatchStream:
    """Batches that are made elsewhere, in the order they come in; a position in them is counted in batches.

    Made by `as_dataset`. An iterator can be read once only; a list or any other object that makes a new iterator each
    time serves every epoch.
    """

    class_names: tuple[str, ...] | None = None
    fingerprint = "unknown"

    def __init__(self, source: Iterable[Any]):
        self._source = source
        self._used_up = False

    def __len__(self) -> int:
        raise TypeError("How many examples an iterable of batches has is known only when it ends")

    def manifest(self) -> dict[str, str]:
        """Nothing: batches are not read for this."""
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
        """Reads the batches as they come: neither their size nor their order is changed.

        Args:
            batch_size: Not used.
            seed: Not used.
            epoch: Not used.
            start: Batches to leave out; they have to be made, and are thrown away.
            shard: (index, count): the part of every batch that is wanted.

        Yields:
            Images and labels, as `Dataset.batches`.

        Raises:
            ValueError: An iterator is read a second time, or something is no pair of images and labels.
        """
        if self._used_up:
            raise ValueError(
                "This iterator of batches has been read and cannot start again: give a list, or an object whose "
                "__iter__ makes a new iterator, for a second epoch or a validation after every epoch"
            )
        iterator = iter(self._source)
        self._used_up = iterator is self._source
        index, count = shard
        for number, batch in enumerate(iterator):
            if number >= start:
                images, labels = _as_batch(batch, number)
                part = slice(index * len(images) // count, (index + 1) * len(images) // count)
                yield images[part], labels[part]


def as_dataset(data: Any) -> Dataset:
    """What `fit` takes, as a `Dataset`.

    Args:
        data: A Dataset, which is returned as it is; a tuple of two arrays, images and labels; or an iterable of
            batches, each such a tuple.

    Returns:
        The dataset.

    Raises:
        TypeError: It is none of these.
        ValueError: The arrays do not fit each other.
    """
    if callable(getattr(data, "batches", None)):
        return data  # type: ignore[no-any-return]  # what has `batches` is taken at its word
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(part, tuple) for part in data):
        return ArrayDataset(*data)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict | np.ndarray):
        return BatchStream(data)
    advice = "; of a folder train.image_folder(path) makes one" if isinstance(data, str | os.PathLike) else ""
    raise TypeError(
        "Data is a tuple (images, labels) of arrays, train.image_folder(...), train.image_table(...), or an iterable "
        f"of batches (images, labels); got {type(data).__name__}{advice}"
    )


def _as_images(images: NDArray[Any]) -> NDArray[Any]:
    return images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)


def _as_labels(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.astype(np.int32 if labels.dtype.kind in "biu" else np.float32, copy=False)


def _as_batch(batch: Any, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"Batch {number} should be a tuple (images, labels), got {type(batch).__name__}")
    images, labels = _as_images(np.asarray(batch[0])), _as_labels(np.asarray(batch[1]))
    if images.ndim == 0 or labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"Batch {number} has images of shape {images.shape} and labels of shape {labels.shape}")
    return images, labels


def _check_examples(images: NDArray[Any], labels: NDArray[Any], class_names: tuple[str, ...] | None) -> None:
    if images.ndim == 0 or labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"Each image has a label: got images of shape {images.shape}, labels of shape {labels.shape}")
    if not len(images):
        raise ValueError("There are no images: the arrays are empty")
    if labels.dtype == np.int32 and labels.ndim == 1:
        if labels.min() < 0:
            raise ValueError(f"Class indices count from 0, got {labels.min()}")
        if class_names is not None and labels.max() >= len(class_names):
            raise ValueError(f"There are {len(class_names)} class names, but a label is {labels.max()}")
    elif class_names is not None and labels.shape[-1] not in (1, len(class_names)):
        raise ValueError(f"There are {len(class_names)} class names, but labels of shape {labels.shape}")


def _summary(array: NDArray[Any], step: int) -> str:
    digest = hashlib.sha256()
    for example in array[::step]:
        digest.update(np.ascontiguousarray(example).data)
    part = "" if step == 1 else f" of image 0, {step}, {2 * step}, ..."
    return f"{array.dtype} {array.shape}, SHA-256{part} {digest.hexdigest()}"
