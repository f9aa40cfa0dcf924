"""Shape arithmetic of layers; None is a free dimension."""

import math
from collections.abc import Sequence

from flaxapps.graph.symbolic import Shape

Pair = tuple[int, int]
Window = int | Sequence[int]


def pair(value: Window) -> Pair:
    """Expands Keras's shorthand: 3 becomes (3, 3)."""
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def check_images(shape: Shape) -> Shape:
    """Checks that a shape is (batch, height, width, channels), and returns it."""
    if len(shape) != 4:
        raise ValueError(f"Expected images (batch, height, width, channels), got shape {shape}")
    return shape


def channel_count(shape: Shape) -> int:
    """Returns the last dimension. It cannot be free, because weight shapes depend on it."""
    if shape[-1] is None:
        raise ValueError(f"The last dimension must be known, got shape {shape}; give the input a fixed size")
    return shape[-1]


def product(sizes: Sequence[int | None]) -> int | None:
    """Returns the product, or None if a size is free."""
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def compatible(shape: Shape, other: Shape) -> bool:
    """Whether an array can match both shapes."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


def in_layout(shape: Shape, channels_first: bool) -> Shape:
    """Converts a channels_last shape to the layout of a model with channels_first images; other ranks are unchanged.

    >>> in_layout((None, 8, 6, 3), channels_first=True)
    (None, 3, 8, 6)
    """
    return (shape[0], shape[-1], *shape[1:-1]) if channels_first and len(shape) == 4 else shape


def advice_on_shape(wanted: Shape, got: tuple[int, ...]) -> str:
    """Says what to do about an array of another shape than an input; empty if that is not known.

    Args:
        wanted: Shape of one example; None for free sizes.
        got: Shape of the batch.

    >>> advice_on_shape((8, 8, 3), (16, 3, 8, 8))
    ': these have channels first, but it takes channels last: np.moveaxis(images, 1, -1)'
    >>> advice_on_shape((8, 8, 1), (16, 8, 8))
    ': give them their one channel with x[..., None]'
    """
    if got[1:] == wanted[:-1] and wanted[-1] == 1:  # the advice below would be wrong for grey images without channels
        return ": give them their one channel with x[..., None]"
    if len(got) == len(wanted):
        return ": put one image into a batch with x[None]"
    moved = (("first", "last", "1, -1", (*got[2:], *got[1:2])), ("last", "first", "-1, 1", (*got[-1:], *got[1:-1])))
    for found, needed, axes, shape in moved if (len(got), len(wanted)) == (4, 3) else ():
        if all(want in (None, size) for want, size in zip(wanted, shape, strict=True)):
            return f": these have channels {found}, but it takes channels {needed}: np.moveaxis(images, {axes})"
    return ""
