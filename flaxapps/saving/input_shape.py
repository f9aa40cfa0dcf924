"""Infer the input shape of a Sequential model that does not store it from the shapes of its weights."""

import math
import os
import warnings
from collections.abc import Callable

from flaxapps.graph.symbolic import Shape
from flaxapps.model import Model
from weight_port import WeightError
from weight_port.layout import all_targets
from weight_port.readers import open_weights
from weight_port.stored import LegacyFile

LARGEST = 2048  # largest side in pixels that is tried
Build = Callable[[Shape], Model]


def infer_model(build: Build, path: str | os.PathLike[str]) -> Model:
    """Build a model with the input shape that its weights fit.

    Convolutions alone accept images of any size. Dense layers after them determine the number of pixels; the image is
    then assumed to be square.

    Args:
        build: Builds the model for an input shape, batch dimension first; raises ValueError if the shape is invalid.
        path: The file with the weights.

    Raises:
        WeightError: No shape fits, or several do.

    Warns:
        UserWarning: Always, because the shape is guessed.
    """
    unsorted, in_order = _stored_shapes(path)
    if not in_order:
        return _warned(path, build, _vector(path, build, unsorted))
    first = next((shape for shape in unsorted if len(shape) > 1), ())
    stored = sorted(unsorted)
    if len(first) == 2:
        return _warned(path, build, (None, first[0]))
    if len(first) != 4:
        raise WeightError(f"{os.fspath(path)} does not determine the shape of its input: give input_shape=")
    channels = first[2]
    if _shapes(build, None, channels) == stored:
        return _warned(path, build, (None, None, None, channels))
    fitting = [size for size in _sizes(build, stored, channels) if _shapes(build, size, channels) == stored]
    if len(fitting) != 1:
        found = ", ".join(f"({size}, {size}, {channels})" for size in fitting[:3]) or "no square"
        raise WeightError(
            f"{os.fspath(path)} does not store the input shape, and its weights fit {found}: give "
            "input_shape=(height, width, channels)"
        )
    return _warned(path, build, (None, fitting[0], fitting[0], channels))


def _warned(path: str | os.PathLike[str], build: Build, shape: Shape) -> Model:
    model = build(shape)
    warnings.warn(
        f"{os.fspath(path)} does not store the input shape; its weights fit {shape[1:]}, which is taken. Give "
        "input_shape= for another",
        stacklevel=4,
    )
    return model


def _stored_shapes(path: str | os.PathLike[str]) -> tuple[list[tuple[int, ...]], bool]:
    """Shapes of the arrays, and whether they are in layer order (legacy files only)."""
    with open_weights(path) as file:
        return [array.shape for array in file.all_arrays], isinstance(file, LegacyFile)


def _vector(path: str | os.PathLike[str], build: Build, stored: list[tuple[int, ...]]) -> Shape:
    """The only vector shape that the weights fit, regardless of their order.

    Raises:
        WeightError: No shape fits, or several do.
    """
    lengths = {shape[0] for shape in stored if len(shape) == 2}
    fitting = [(None, length) for length in lengths if _shapes_for(build, (None, length)) == sorted(stored)]
    if len(fitting) != 1:
        raise WeightError(
            f"{os.fspath(path)} does not store the input shape, and it cannot be inferred: give input_shape="
        )
    return fitting[0]


def _shapes(build: Build, size: int | None, channels: int) -> list[tuple[int, ...]]:
    """Sorted shapes of all weights for square images; empty if they are too small or a layer needs a fixed size."""
    return _shapes_for(build, (None, size, size, channels))


def _shapes_for(build: Build, shape: Shape) -> list[tuple[int, ...]]:
    try:
        return sorted(target.shape for target in all_targets(build(shape).layers))
    except ValueError:
        return []


def _sizes(build: Build, stored: list[tuple[int, ...]], channels: int) -> list[int]:
    """Sizes with as many parameters as are stored, by binary search: the number grows with the size."""
    wanted = sum(map(math.prod, stored))

    def count(size: int) -> int:
        return sum(map(math.prod, _shapes(build, size, channels)))

    low, high = 1, LARGEST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle + 1, high)
    found = []
    while low <= LARGEST and count(low) == wanted:
        found.append(low)
        low += 1
    return found
