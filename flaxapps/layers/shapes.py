"""Arithmetic on shapes that layers share; None stands for a free dimension."""

import math
from collections.abc import Sequence

from flaxapps.recording import Shape

Pair = tuple[int, int]
Window = int | Sequence[int]


def pair(value: Window) -> Pair:
    """Keras's shorthand: 3 stands for (3, 3)."""
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def check_images(shape: Shape) -> Shape:
    """Returns the shape if it is one of images, (batch, height, width, channels)."""
    if len(shape) != 4:
        raise ValueError(f"Expected images (batch, height, width, channels), got shape {shape}")
    return shape


def channel_count(shape: Shape) -> int:
    """The last dimension, which arrays of weights depend on."""
    if shape[-1] is None:
        raise ValueError(f"The last dimension must be known, got shape {shape}; give the input a fixed size")
    return shape[-1]


def product(sizes: Sequence[int | None]) -> int | None:
    """The product, None where a size is free."""
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def compatible(shape: Shape, other: Shape) -> bool:
    """Whether an array can have both shapes."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))
