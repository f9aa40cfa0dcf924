"""Read the graph nodes that TensorFlowOpLayer stores: their function and its arguments.

Source: tensorflow/python/keras/engine/base_layer.py (2.1).
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flaxapps.saving.dialects.tensorflow_names import DTYPES, NODE_ATTRIBUTES, NODE_INPUTS, NODES, RESIZING

Entry = Mapping[str, Any]
Call = tuple[list[Any], dict[str, Any]]  # positional and keyword arguments
LEGACY_TENSOR = "__legacy_tensor__"  # class of a tensor with call indices as before Keras 3


def tensor(history: Sequence[Any]) -> dict[str, Any]:
    """A tensor argument from [layer, call index, output index]."""
    name, call, output = history[:3]
    return {"class_name": LEGACY_TENSOR, "config": {"keras_history": [name, call, output]}}


def node_function(config: Entry, name: Any) -> tuple[str, Callable[[Any], Call]]:
    """The function of a TensorFlowOpLayer, and a reader of its arguments."""
    node = config["node_def"]
    if isinstance(node, str):
        if not node.lstrip().startswith("{"):
            raise ValueError(f"{name} (TensorFlowOpLayer: its node is not written as JSON)")
        node = json.loads(node)
    function = "__operators__.getitem" if node["op"] in ("Slice", "StridedSlice") else NODES.get(node["op"])
    if function is None:
        raise ValueError(f"{name} (the TensorFlow node {node['op']}, which is not among those that are imported)")
    constants = {int(index): value for index, value in (config.get("constants") or {}).items()}
    attributes = {key: _attribute(value) for key, value in node.get("attr", {}).items()}
    named = {NODE_ATTRIBUTES[key]: value for key, value in attributes.items() if key in NODE_ATTRIBUTES}
    if node["op"] in RESIZING:
        named |= {"method": _method(node["op"], bool(named.pop("half_pixel_centers", False)), name)}
    if node["op"] not in ("MaxPool", "AvgPool"):
        named = {key: value for key, value in named.items() if key not in ("ksize", "padding", "strides")}

    def read(record: Any) -> Call:
        tensors = iter([record] if isinstance(record[0], str) else record)
        count = len(node["input"])
        inputs = [constants[index] if index in constants else tensor(next(tensors, ())) for index in range(count)]
        if node["op"] == "StridedSlice":
            return [inputs[0], _strided(attributes, *inputs[1:])], {}
        if function in ("concat", "stack", "math.add_n"):
            options = {"axis": inputs.pop()} if function == "concat" else {}
            return [inputs], named | options
        if node["op"] == "Slice":
            return [inputs[0], _sliced(*inputs[1:])], {}
        if node["op"] == "Split":
            return inputs[1:], named | {"axis": inputs[0]}
        if function == "einsum":
            return [named["equation"], *inputs], {}
        extra = NODE_INPUTS.get(node["op"], ())
        split = len(inputs) - len(extra)
        return inputs[:split], named | dict(zip(extra, inputs[split:], strict=True))

    return function, read


def _method(op: str, centred: bool, name: Any) -> str:
    """The resizing method of a node.

    Raises:
        ValueError: The method is not imported.
    """
    method = RESIZING[op][0 if centred else 1]
    if method is None:
        raise ValueError(f"{name} (the TensorFlow node {op} without half_pixel_centers, which is not imported)")
    return method


def _sliced(begin: Any, size: Any) -> list[Any]:
    """The key of `x[key]` from the begin and size of a Slice."""
    ends = [None if count == -1 else start + count for start, count in zip(begin, size, strict=True)]
    return [{"start": start, "stop": stop, "step": None} for start, stop in zip(begin, ends, strict=True)]


def _strided(attributes: Mapping[str, Any], begin: Any, end: Any, strides: Any) -> list[Any]:
    """The key of `x[key]` from the bit masks and bounds of a StridedSlice."""

    def has(mask: str, axis: int) -> bool:
        return bool(int(attributes.get(mask, 0)) >> axis & 1)

    key: list[Any] = []
    for axis, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        if has("ellipsis_mask", axis):
            key.append({"class_name": "__ellipsis__"})
        elif has("new_axis_mask", axis):
            key.append(None)
        elif has("shrink_axis_mask", axis):
            key.append(start)
        else:
            bounds = (None if has("begin_mask", axis) else start, None if has("end_mask", axis) else stop)
            key.append({"start": bounds[0], "stop": bounds[1], "step": step})
    return key


def _attribute(value: Any) -> Any:
    """Decode an attribute of a node, in JSON {"b": true}, {"f": 0.2}, {"i": "3"} or {"list": ...}."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, inside),) = value.items()
        if kind == "i":
            return int(inside)
        if kind == "list":
            return [int(each) for each in inside.get("i", [])]
        if kind == "s":  # bytes
            return base64.b64decode(inside).decode("utf-8", "replace")
        if kind == "type":
            return DTYPES.get(inside, inside)
        return inside
    return value
