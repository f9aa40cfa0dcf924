"""What users give in place of batches (images, labels): functions, endless iterables, dicts; each as one form."""

import inspect
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.runtime.console import listed

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "inputs", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "y")


class FunctionSource:
    """Batches from a function without arguments, such as a generator function: every epoch calls it."""

    def __init__(self, function: Callable[[], Iterable[Any]]):
        self._function = function

    def __iter__(self) -> Iterator[Any]:
        batches = self._function()
        if not isinstance(batches, Iterable):
            raise TypeError(
                f"data is a function that should return batches (images, labels), got {type(batches).__name__}"
            )
        return iter(batches)


class SteppedSource:
    """Epochs of a fixed number of batches, from an iterable that may be endless.

    As in Keras, an epoch continues where the last one ended, and an iterable that ends is read again if it can be.

    >>> source = SteppedSource([1, 2, 3], 2)
    >>> [list(source) for _ in range(3)]
    [[1, 2], [3, 1], [2, 3]]
    """

    def __init__(self, source: Iterable[Any], steps: int):
        """Stores the iterable.

        Args:
            source: Batches.
            steps: Batches in an epoch, at least 1.
        """
        self._source, self._steps = source, steps
        self._iterator: Iterator[Any] | None = None
        self._next: list[Any] = []  # a batch that `peek` read
        self._read = 0  # batches of this epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Any]:
        self._read = 0
        while self._read < self._steps:
            self._read += 1
            yield self._next.pop() if self._next else self._read_next()

    def on_epoch_begin(self) -> None:
        """Starts an epoch."""
        self._read = 0

    def on_epoch_end(self) -> None:
        """Skips what was not read of the epoch, which is all of one that a resumed run leaves out."""
        for _ in range(self._steps - self._read):
            self._read_next()
        self._read = self._steps

    def peek(self) -> Any:
        """Returns the next batch without using it up."""
        if not self._next:
            self._next.append(self._read_next())
        return self._next[0]

    def _read_next(self) -> Any:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self._source)
            for batch in self._iterator:
                return batch
            if self._iterator is self._source:  # it cannot start again
                break
            self._iterator = None
        raise ValueError(
            f"The data ended within an epoch of steps_per_epoch={self._steps}: it needs as many batches in each, or "
            "should be an iterable that can be read again, such as a list or a generator function"
        )


def takes(function: Any, count: int) -> bool:
    """Whether a callable takes a number of positional arguments; True if that is unknown."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # no signature, as some of C
        return True
    return True


def is_example(item: Any) -> bool:
    """Whether an item is one example, (image, label) or a dict of these, with a single number as label."""
    if isinstance(item, Mapping):
        names = [name for name in LABEL_KEYS if name in item]
        label = item[names[0]] if names else None
    else:
        label = item[1] if isinstance(item, tuple | list) and len(item) == 2 else None
    return isinstance(label, numbers.Number) or getattr(label, "ndim", None) == 0


def pair_in(batch: Any) -> Any:
    """Returns the images and labels of a dict, as those of Hugging Face; other batches as they are.

    Raises:
        ValueError: The dict has no images or no labels by a known name, or several.

    >>> pair_in({"pixel_values": [[0.5]], "labels": [1]})
    ([[0.5]], [1])
    """
    if not isinstance(batch, Mapping):
        return batch
    found = [[name for name in known if name in batch] for known in (IMAGE_KEYS, LABEL_KEYS)]
    if [len(names) for names in found] != [1, 1]:
        raise ValueError(
            f"The data is a dict of {listed([repr(str(name)) for name in batch])}: it should have images under one of "
            f"{', '.join(IMAGE_KEYS)}, and labels under one of {', '.join(LABEL_KEYS)}; or give (images, labels)"
        )
    return batch[found[0][0]], batch[found[1][0]]


def as_array(given: Any) -> NDArray[Any]:
    """Converts images to an array; one of NumPy is returned as it is.

    Args:
        given: An array of numbers, or a list of arrays or Pillow images, all of one size.

    Raises:
        ValueError: The sizes differ, or they are no real numbers.
    """
    if isinstance(given, list | tuple) and given and hasattr(given[0], "mode"):
        given = [as_image(each) for each in given]
    try:
        images = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, of a tensor on a GPU or with gradients
        raise ValueError(f"Images should be numbers in arrays of one size, as after resizing: {error}") from error
    if images.dtype.kind not in "biuf" and images.dtype.name != "bfloat16":
        advice = "; train.image_folder and train.image_table read files" if images.dtype.kind in "US" else ""
        raise ValueError(f"Images should be numbers, got {images.dtype}{advice}")
    return images


def as_images(given: Any) -> NDArray[Any]:
    """Converts images to uint8 or float32, as `as_array` takes them."""
    images = as_array(given)
    return images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)


def as_image(given: Any) -> NDArray[Any]:
    """Returns one image as an array; a greyscale one of Pillow gets an axis of channels."""
    image = np.asarray(given)
    return image[..., None] if hasattr(given, "mode") and image.ndim == 2 else image
