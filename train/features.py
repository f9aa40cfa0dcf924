"""Outputs of a frozen trunk, computed once: what the epochs read in place of images."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.inference import Function, predict_batches
from flaxapps.model import Model
from train.datasets import Dataset
from train.pipeline import pipeline

MEMORY_LIMIT = 1 << 30  # bytes


class FeatureDataset:
    """Features and labels of another dataset: a `Dataset` with its examples, their order in every epoch, and its names.

    Attributes:
        features: An array (examples, ...) for every tensor at the cut; float32.
        labels: As the other dataset has them.
    """

    def __init__(self, features: list[NDArray[np.float32]], labels: NDArray[Any], source: Dataset):
        self.features = features
        self.labels = labels
        self.class_names = source.class_names
        self._source = source

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """That of the other dataset."""
        return self._source.fingerprint

    def manifest(self) -> dict[str, str]:
        """That of the other dataset."""
        return self._source.manifest()

    def batches(
        self, batch_size: int, *, seed: int | None, epoch: int = 0, start: int = 0, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Any, NDArray[Any]]]:
        """Reads one epoch, as `Dataset.batches`: the features as the head takes them, and labels."""
        options: Any = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return iter(pipeline(self._load, len(self), **options))

    def _load(self, indices: NDArray[np.int64]) -> tuple[Any, NDArray[Any]]:
        rows = [np.asarray(array[indices]) for array in self.features]
        return rows[0] if len(rows) == 1 else rows, self.labels[indices]


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
    """Runs a trunk over a dataset, once, in the way of `predict`.

    Args:
        trunk: From `split_at_frozen`; it takes single arrays.
        variables: Those of the whole model; only the trunk's are used.
        data: The images; they are read in order.
        batch_size: Images in a batch, over all devices together.
        preprocess: As for `predict`; nothing random.
        memory_limit: Bytes of features that are kept in memory. More go to memory-mapped temporary files, which have
            no name and vanish with the result, or with the process, however it ends.
        folder: Where such files are; None takes the system's folder for temporary files.
        verbose: Whether to show a progress bar.

    Returns:
        The features, as a dataset that the head can be trained on in place of `data`.

    Raises:
        ValueError: Nobody knows how many examples `data` has, so that its epochs may differ; or as `predict`.
        OSError: There is no space for the features.
    """
    try:
        count = len(data)
    except TypeError as error:
        raise ValueError(
            "Features are computed once for data that is the same in every epoch: a tuple of arrays, or what "
            "train.image_folder and train.image_table return; these are batches that may differ"
        ) from error
    labels: list[NDArray[Any]] = []

    def images() -> Iterator[NDArray[Any]]:
        for batch, its_labels in data.batches(batch_size, seed=None):
            labels.append(its_labels)
            yield batch

    own = trunk.init_variables(base=variables)
    features: list[NDArray[np.float32]] = []
    done = 0
    options: Any = {"batch_size": batch_size, "preprocess": preprocess, "verbose": verbose}
    for rows in predict_batches(trunk, own, images(), **options):
        if not features:
            size = sum(4 * count * math.prod(array.shape[1:]) for array in rows)
            features = [_allocate((count, *array.shape[1:]), size > memory_limit, folder) for array in rows]
        for array, new in zip(features, rows, strict=True):
            array[done : done + len(new)] = new
        done += len(rows[0])
    if not done:
        raise ValueError("There are no features: no image could be read")
    # Fewer than promised where broken images were skipped.
    return FeatureDataset([array[:done] for array in features], np.concatenate(labels), data)


def _allocate(shape: tuple[int, ...], on_disk: bool, folder: str | os.PathLike[str] | None) -> NDArray[np.float32]:
    if not on_disk:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder, prefix="flaxapps-features-") as file:
        _reserve(file.fileno(), 4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=shape)


def _reserve(file: int, size: int) -> None:
    """Takes the space now: a full disk is an error here, where writing to mapped memory would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
