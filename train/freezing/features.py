"""Cached features: outputs of a frozen trunk, computed once and read in every epoch in place of images."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from flaxapps.inference.predict import predict_batches, show_progress
from flaxapps.inference.preprocessing import Function
from flaxapps.model import Model
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.data.pipeline import pipeline
from flaxapps.train.data.structured import rows as rows_of
from flaxapps.train.step.targets import in_order

MEMORY_LIMIT = 1 << 30  # bytes
PROGRESS = "Caching features"


class FeatureDataset:
    """Cached features of another dataset, with its labels, order and class names.

    Attributes:
        features: An array (examples, ...) for every tensor at the cut; float32.
        labels: The labels of the other dataset.
    """

    def __init__(self, features: list[NDArray[np.float32]], labels: Any, source: Dataset):
        self.features = features
        self.labels = labels
        self.class_names = source.class_names
        self._source = source

    def __len__(self) -> int:
        return len(self.features[0])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the other dataset."""
        return self._source.fingerprint

    def manifest(self) -> dict[str, str]:
        """Returns the manifest of the other dataset."""
        return self._source.manifest()

    def batches(
        self, batch_size: int, *, seed: int | None, epoch: int = 0, start: int = 0, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Any, NDArray[Any]]]:
        """Reads one epoch, as `Dataset.batches`: the features as the head takes them, and labels."""
        options: Any = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return iter(pipeline(self._load, len(self), **options))

    def _load(self, indices: NDArray[np.int64]) -> tuple[Any, NDArray[Any]]:
        rows = [np.asarray(array[indices]) for array in self.features]
        return rows[0] if len(rows) == 1 else rows, rows_of(self.labels, indices)


def compute_features(
    trunk: Model,
    variables: Mapping[str, Any],
    data: Dataset,
    *,
    batch_size: int = 32,
    preprocess: bool | str | Function = False,
    memory_limit: int = MEMORY_LIMIT,
    folder: str | os.PathLike[str] | None = None,
    verbose: bool = False,
) -> FeatureDataset:
    """Runs a trunk over a dataset once, as `predict` does.

    Args:
        trunk: From `split_at_frozen`; it takes single arrays.
        variables: Variables of the whole model; only the trunk's are used.
        data: The images; they are read in order.
        batch_size: Images in a batch, over all devices.
        preprocess: As for `predict`; it must not be random.
        memory_limit: Upper bound for features in memory, in bytes. Larger ones go to memory-mapped temporary files,
            which have no name and vanish with the result or the process, even if it is killed.
        folder: Folder for such files; None for the system's temporary folder.
        verbose: Whether to show a progress bar.

    Returns:
        The features, as a dataset to train the head on in place of `data`.

    Raises:
        ValueError: The length of `data` is unknown, so that its epochs may differ; or as `predict`.
        OSError: There is not enough disk space for the features.
    """
    try:
        count = len(data)
    except TypeError as error:
        raise ValueError(
            "Features can be cached only for data that is the same in every epoch, not for an iterable of batches: "
            "give a tuple of arrays, or what train.image_folder or train.image_table returns"
        ) from error
    labels: list[Any] = []

    def images() -> Iterator[NDArray[Any]]:
        for batch, its_labels in data.batches(batch_size, seed=None):
            labels.append(its_labels)
            yield in_order(trunk, batch)

    own = trunk.init_variables(base=variables)
    features: list[NDArray[np.float32]] = []
    done = 0
    batches = predict_batches(trunk, own, images(), batch_size=batch_size, preprocess=preprocess)
    for rows in show_progress(batches, PROGRESS, -(-count // batch_size)) if verbose else batches:
        if not features:
            size = sum(4 * count * math.prod(array.shape[1:]) for array in rows)
            features = [_allocate((count, *array.shape[1:]), size > memory_limit, folder) for array in rows]
        for array, new in zip(features, rows, strict=True):
            array[done : done + len(new)] = new
        done += len(rows[0])
    if not done:
        raise ValueError("There are no features: no image could be read")
    # Fewer than len(data) if unreadable images were skipped.
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *labels)
    return FeatureDataset([array[:done] for array in features], joined, data)


def _allocate(shape: tuple[int, ...], on_disk: bool, folder: str | os.PathLike[str] | None) -> NDArray[np.float32]:
    if not on_disk:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder, prefix="flaxapps-features-") as file:
        _reserve(file.fileno(), 4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=shape)


def _reserve(file: int, size: int) -> None:
    """Reserves the space now, so that a full disk raises here; writing to mapped memory would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
