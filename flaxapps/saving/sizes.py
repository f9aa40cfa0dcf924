"""Replace operations that split arrays by slices, and operations on shapes by constants.

The outputs of `tf.split` become slices. The sizes that `tf.shape` gives are known when the network is built, except for
the batch size, which Reshape infers.
"""

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flaxapps import layers
from flaxapps.graph.shapes import in_layout
from flaxapps.graph.symbolic import Node
from flaxapps.saving.calls import TENSOR

Sizes = tuple[int | None, ...]  # None is the batch size or a free size
ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {
    "Add": operator.add, "FloorDivide": operator.floordiv, "Multiply": operator.mul, "Subtract": operator.sub,
}  # fmt: skip # kept on few lines on purpose
PARTED = ("Split", "Unstack")


class Known(NamedTuple):
    """A known size, or the known sizes of an array, in place of a tensor of the file.

    Attributes:
        value: The size or sizes.
    """

    value: int | Sizes | None


class Parts(NamedTuple):
    """The outputs that replace those of a call: slices or known sizes."""

    outputs: tuple[Any, ...]


def parts(name: str, kind: str, node: Node, options: Mapping[str, Any], channels_first: bool) -> Parts:
    """The outputs of Split or Unstack as GetItem operations.

    Args:
        name: Name of the operation.
        kind: "Split" or "Unstack".
        node: The array to split.
        options: `sections` are sizes, as in TensorFlow; `indices_or_sections` are positions, as in Keras 3.
        channels_first: Whether axes refer to channels_first images.

    Raises:
        ValueError: The size along the axis is unknown or not divisible.
    """
    shape = in_layout(node.shape, channels_first)
    axis = int(options.get("axis") or 0) % len(shape)
    length = shape[axis]
    if length is None:
        raise ValueError(f"{name} ({kind} along a dimension of free size, which is not imported)")
    keys: list[Any]
    if kind == "Unstack":
        keys = list(range(length))
    else:
        sections = options.get("sections", options.get("indices_or_sections"))
        places = _places(name, sections, length, "sections" in options)
        keys = [layers.Slice(start, stop, None) for start, stop in itertools.pairwise(places)]
    everything = (layers.Slice(None, None, None),) * axis
    return Parts(
        tuple(
            layers.Operation("GetItem", (layers.Slot(0), (*everything, key)), (), channels_first)(node) for key in keys
        )
    )


def _places(name: str, sections: Any, length: int, are_sizes: bool) -> list[int]:
    """The boundaries of the parts."""
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ValueError(f"{name} (Split of {length} into {sections} parts, which would not be equal)")
        return list(range(0, length + 1, length // sections))
    if not are_sizes:
        return [0, *(int(place) for place in sections), length]
    sizes = [int(size) for size in sections]
    if -1 in sizes:
        sizes[sizes.index(-1)] = length - sum(size for size in sizes if size != -1)
    return [sum(sizes[:count]) for count in range(len(sizes) + 1)]


def of_known(name: str, kind: str, nodes: Sequence[Any], arguments: Sequence[Any]) -> Known:
    """Apply an operation to known sizes.

    Raises:
        ValueError: The operation is not supported for sizes.
    """
    if kind == "GetItem" and isinstance(nodes[0], Known) and isinstance(nodes[0].value, tuple):
        (key,) = arguments[1] if isinstance(arguments[1], list | tuple) else [arguments[1]]
        if isinstance(key, int):
            return Known(nodes[0].value[key])
        if isinstance(key, Mapping):
            bounds = key["config"]
            return Known(nodes[0].value[slice(bounds["start"], bounds["stop"], bounds["step"])])
    if kind in ("Stack", "Concatenate"):
        return Known(known_sizes(name, arguments[0], nodes))
    if kind == "Cast" and isinstance(nodes[0], Known):
        return nodes[0]
    if kind in ARITHMETIC and isinstance(nodes[0], Known) and len(nodes) == 1:
        return _computed(ARITHMETIC[kind], nodes[0].value, arguments[1])
    raise ValueError(f"{name} (the operation {kind} on the shape of an array, which is not imported)")


def _computed(function: Callable[[int, int], int], sizes: Any, argument: Any) -> Known:
    """Apply an arithmetic function to sizes and one number, or one per size; free sizes stay free."""
    numbers = argument["config"]["value"] if isinstance(argument, Mapping) else argument
    if not isinstance(sizes, tuple):
        return Known(None if sizes is None else int(function(sizes, int(numbers))))
    factors = numbers if isinstance(numbers, list) else [numbers] * len(sizes)
    pairs = zip(sizes, factors, strict=True)
    return Known(tuple(None if size is None else int(function(size, int(number))) for size, number in pairs))


def known_sizes(name: str, argument: Any, nodes: Sequence[Any]) -> Sizes:
    """Resolve a size argument that is a tensor, or contains tensors, in the file.

    Args:
        name: Name of the operation.
        argument: A tensor, or a list of numbers and tensors.
        nodes: The replacements of the tensors, in order.

    Raises:
        ValueError: A size is computed from the values of an array.
    """
    tensors = iter(nodes)
    found: list[int | None] = []
    for part in argument if isinstance(argument, list | tuple) else [argument]:
        value = part
        if isinstance(part, Mapping) and part.get("class_name") == TENSOR:
            known = next(tensors)
            if not isinstance(known, Known):
                raise ValueError(f"{name} (a shape that is computed from the values of arrays, which is not imported)")
            value = known.value
        if isinstance(value, Mapping):  # numbers
            value = tuple(value["config"]["value"])
        found += value if isinstance(value, tuple | list) else [None if value is None else int(value)]
    return tuple(found)
