"""Recover output_padding of transposed convolutions, which Keras 3.0 to 3.14 does not store, from stored shapes."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxapps import layers
from flaxapps.graph.symbolic import Layer, Shape
from flaxapps.layers.spatial import spread
from flaxapps.saving.calls import TENSOR

RANKS: Mapping[type[Layer], int] = {
    layers.Conv1DTranspose: 1,
    layers.Conv2DTranspose: 2,
    layers.Conv3DTranspose: 3,
}


# Classes whose output shape is their input shape.
OF_ONE_SHAPE = ("Activation", "Dropout", "ELU", "LeakyReLU", "ReLU", "Softmax", "SpatialDropout2D")


def recorded_shapes(value: Any) -> Iterator[tuple[tuple[str, int], list[int | None]]]:
    """Yield the stored shapes of the tensors that calls take, by layer and call index."""
    if isinstance(value, Mapping) and value.get("class_name") == TENSOR:
        name, call, _ = value["config"]["keras_history"]
        if isinstance(value["config"].get("shape"), list):
            yield (name, call), value["config"]["shape"]
    elif isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from recorded_shapes(part)


def shape_after(entries: Sequence[Mapping[str, Any]]) -> Any:
    """The build shape of the first of these layers of a Sequential model, or None; not all layers store it."""
    for entry in entries:
        shape = (entry.get("build_config") or {}).get("input_shape")
        if shape or entry["class_name"] not in OF_ONE_SHAPE:
            return shape
    return None


def with_output_padding(layer: Layer, shape: Shape, wanted: Shape | None) -> Layer:
    """The layer with the output_padding that gives the shape in the file.

    Args:
        layer: Any layer; all but transposed convolutions are returned unchanged.
        shape: Its input shape.
        wanted: Its output shape in the file, in the same layout; None if unknown.

    Raises:
        ValueError: No output_padding gives the wanted shape.

    Warns:
        UserWarning: The file does not determine output_padding.
    """
    rank = RANKS.get(type(layer))
    if rank is None or getattr(layer, "output_padding", None) is not None:
        return layer
    strides = spread(getattr(layer, "strides", 1), rank)
    if wanted is None or len(wanted) != rank + 2 or None in wanted[1:-1]:
        if max(strides) > 1:  # output_padding is below the stride
            warnings.warn(
                f"Layer {layer.name!r} of kind {layer.class_name}: this version of Keras does not store "
                "output_padding, and no shape in the file determines it. It is assumed to be None, the default",
                stacklevel=2,
            )
        return layer
    if _agree(layer.output_shape(shape), wanted):
        return layer
    for padding in itertools.product(*map(range, strides)):
        changes: dict[str, Any] = {"output_padding": padding[0] if rank == 1 else padding}
        padded = dataclasses.replace(layer, **changes)
        if _agree(padded.output_shape(shape), wanted):
            return padded
    raise ValueError(
        f"Layer {layer.name!r} of kind {layer.class_name} gives shape {layer.output_shape(shape)} for {shape}, but in "
        f"the file {tuple(wanted)}; no output_padding gives that"
    )


def _agree(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        None in (size, other) or size == other for size, other in zip(shape, wanted, strict=True)
    )
