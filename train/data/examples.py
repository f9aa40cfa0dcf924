"""Datasets of single examples with a length, such as those of Hugging Face and torch, in batches."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.train.data.labels import as_labels
from flaxapps.train.data.pipeline import pipeline
from flaxapps.train.data.sources import LABEL_KEYS, as_image, as_images, pair_in


class ExampleDataset:
    """Examples read by index, as `Dataset` has them: shuffled anew in every epoch. Made by `as_dataset`.

    Attributes:
        class_names: Names that a Hugging Face dataset has for its labels, or a torchvision one in `classes`; else None.
    """

    fingerprint = "unknown"

    def __init__(self, source: Any):
        """Stores the source.

        Args:
            source: `len(source)` examples, `source[index]`: (image, label) or a dict of these. An image is an array or
                a Pillow image, all of one size, and a label a number.
        """
        self._source = source
        self.class_names: tuple[str, ...] | None = _class_names(source)

    def __len__(self) -> int:
        return len(self._source)

    def manifest(self) -> dict[str, str]:
        """Returns nothing, as examples are not read for a manifest."""
        return {}

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Reads one epoch, as `Dataset.batches`."""
        options: Any = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return iter(pipeline(self._load, len(self), **options))

    def _load(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        examples = [pair_in(self._source[index]) for index in indices.tolist()]
        images = [as_image(image) for image, _ in examples]
        other = next((number for number, image in enumerate(images) if image.shape != images[0].shape), None)
        if other is not None:
            raise ValueError(
                f"Images should have one size, but example {indices[0]} is {images[0].shape} and example "
                f"{indices[other]} {images[other].shape}: resize them, for example in the transform of the dataset"
            )
        return as_images(images), as_labels(np.asarray([label for _, label in examples]))


def _class_names(source: Any) -> tuple[str, ...] | None:
    features = getattr(source, "features", None)  # of Hugging Face
    if isinstance(features, Mapping):
        names = next((getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None)
    else:
        names = getattr(source, "classes", None)  # of torchvision
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if listed else None  # type: ignore[arg-type]  # checked in the line above
