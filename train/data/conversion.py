"""Converts the `data` argument of `fit` and `evaluate` to a `Dataset`."""

import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from flaxapps.train.data.datasets import ArrayDataset, BatchStream, Dataset
from flaxapps.train.data.examples import ExampleDataset
from flaxapps.train.data.sources import FunctionSource, SteppedSource, is_example, pair_in, takes
from flaxapps.train.data.structured import StructuredDataset, holds_arrays, is_structured


def as_dataset(data: Any, steps_per_epoch: int | None = None) -> Dataset:
    """Converts the `data` argument of `fit` to a `Dataset`.

    Args:
        data: A Dataset, which is returned unchanged; a tuple (images, labels) or (images, labels, sample_weights) of
            arrays; an iterable of batches, each such a tuple, or a function that returns one, such as a generator
            function; or examples with a length, as datasets of torch and Hugging Face. Dicts such as {"image": ...,
            "label": ...} may stand for tuples. Where a model has several inputs or outputs, images or labels are dicts
            by their names, or tuples in their order.
        steps_per_epoch: Batches in an epoch, for iterables that are endless or whose epochs should be shorter.

    Returns:
        The dataset.

    Raises:
        TypeError: `data` has another type.
        ValueError: The arrays do not fit each other, or `steps_per_epoch` is given for data that is not an iterable of
            batches.
    """
    dataset = _as_dataset(data, steps_per_epoch)
    if steps_per_epoch is not None and not isinstance(dataset, BatchStream):
        raise ValueError(
            f"steps_per_epoch={steps_per_epoch} is for iterables of batches, but an epoch of this data is its "
            f"{len(dataset)} examples: leave it out"
        )
    return dataset


def _as_dataset(data: Any, steps: int | None) -> Dataset:
    if callable(getattr(data, "batches", None)) and not isinstance(data, type):
        return data  # type: ignore[no-any-return]  # any object with a method `batches`
    if isinstance(data, dict):
        data = pair_in(data)
    if holds_arrays(data):
        return StructuredDataset(*data) if len(data) == 3 or is_structured(*data) else ArrayDataset(*data)
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")  # as tf.keras.utils.Sequence
    if indexed and not isinstance(data, str | bytes) and len(data) and is_example(data[0]):
        return ExampleDataset(data)
    if callable(data) and not isinstance(data, type | Iterable) and takes(data, 0):
        data = FunctionSource(data)
    if (isinstance(data, Iterable) or indexed) and not isinstance(data, str | bytes | np.ndarray | jax.Array):
        return BatchStream(data if steps is None else SteppedSource(data, steps))
    advice = "; train.image_folder(path) reads a folder" if isinstance(data, str | os.PathLike) else ""
    raise TypeError(
        "data should be a tuple (images, labels) of arrays, train.image_folder(...), train.image_table(...), or an "
        f"iterable of batches (images, labels); got {type(data).__name__}{advice}"
    )


def first_images(data: Dataset, batch_size: int) -> NDArray[Any] | None:
    """Returns the images of the first batch of a dataset; None if there is none. An iterator loses nothing by it."""
    if isinstance(data, BatchStream):
        return data.first_images()
    return next((images for images, _ in data.batches(batch_size, seed=None)), None)
