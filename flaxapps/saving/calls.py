"""Layer calls of a Functional configuration, converted to the form of Keras 3: tensor arguments and options."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxapps.saving.dialects.models import MODELS
from flaxapps.saving.dialects.tensorflow_nodes import LEGACY_TENSOR

TENSOR = "__keras_tensor__"
ATTENTION = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")
# Tensor arguments of calls by class, in Keras's order. The first is always positional.
TENSORS: Mapping[str, tuple[str, ...]] = {
    "BatchNormalization": ("inputs", "mask"),
    "CategoryEncoding": ("inputs", "count_weights"),
    "GlobalAveragePooling1D": ("inputs", "mask"),
    "GroupedQueryAttention": ATTENTION,
    "MultiHeadAttention": ATTENTION,
    "Softmax": ("inputs", "mask"),
    "TimeDistributed": ("inputs", "mask"),
}
# Classes whose first argument is a list of query, value and key, and whose masks are a list too.
LISTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AdditiveAttention": (("query", "value", "key"), ("query_mask", "value_mask", "key_mask")),
    "Attention": (("query", "value", "key"), ("query_mask", "value_mask", "key_mask")),
}
INPUTS = ("inputs", "x", "query", "value", "key")  # names that are redundant for leading positional arguments
Record = Mapping[str, Any]
Reference = tuple[str, int, int]  # layer name, call index, output index


def call_number(index: int, nested: bool) -> int:
    """The index of a call, corrected where Keras counts the construction of a nested model as its first call."""
    return index - 1 if nested and index else index


def counted_models(config: Mapping[str, Any]) -> set[str]:
    """Names of the nested models whose construction Keras counts as their first call.

    Before Keras 3 these are the models built before they were called, so nothing refers to their call 0. A Sequential
    model built by its first call starts at 0. Keras 3 counts the construction only for Functional models, and only in
    `input_layers` and `output_layers`.
    """
    kinds = {entry["config"]["name"]: entry["class_name"] for entry in config["layers"]}
    written = [record for entry in config["layers"] for record in entry.get("inbound_nodes", ())]
    legacy = list(_legacy_references(written))
    if not legacy and any(isinstance(record, Mapping) for record in written):
        return {name for name, kind in kinds.items() if kind == "Functional"}
    outputs = [(name, call) for name, call, _ in ends(config["output_layers"])]
    called_first = {name for name, call in legacy + outputs if not call}
    return {name for name, kind in kinds.items() if kind in MODELS and name not in called_first}


def _legacy_references(value: Any) -> Iterator[tuple[str, int]]:
    """Layers and call indices that records of versions before Keras 3 refer to."""
    if isinstance(value, Mapping):
        if value.get("class_name") == LEGACY_TENSOR:
            name, call, _ = value["config"]["keras_history"]
            yield name, call
            return
        value = list(value.values()) if "class_name" not in value else []
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0], value[1]
        for part in value:
            yield from _legacy_references(part)


def records(entry: Mapping[str, Any], nested: set[str]) -> list[Record]:
    """The calls of a layer.

    Args:
        entry: The layer.
        nested: Names of the nested models whose construction Keras counts as a call.
    """
    if entry["class_name"] == "InputLayer":
        return [{"args": [], "kwargs": {}}]
    found: list[Record] = []
    for record in entry["inbound_nodes"]:
        if isinstance(record, Mapping) and "args" in record:
            arguments = [_in_order(argument, entry) for argument in record["args"]]
            found.append(_positional(entry, {**record, "args": _numbered(arguments, nested)}))
            continue
        if isinstance(record, Mapping):  # tf.keras: a model called on a dictionary
            record = _in_order(record, entry)
        # Some versions of tf.keras omit a level of brackets for a single tensor.
        tensors = [record] if record and isinstance(record[0], str) else record
        history = [(name, call_number(index, name in nested), output) for name, index, output, *_ in tensors]
        arguments = [{"class_name": TENSOR, "config": {"keras_history": each}} for each in history]
        options = dict(tensors[0][3]) if len(tensors[0]) > 3 else {}
        for name, value in options.items():
            if name in TENSORS.get(entry["class_name"], ()) and isinstance(value, list):
                if len(value) != 3 or not isinstance(value[0], str):
                    raise ValueError(f"{name} of a call should be [layer, call, output], got {value}")
                source, index, output = value  # tf.keras writes keyword tensors as [layer, call, output]
                place = [source, call_number(index, source in nested), output]
                options[name] = {"class_name": TENSOR, "config": {"keras_history": place}}
        if entry["class_name"] in LISTS:
            found.append({"args": arguments, "kwargs": options})
        else:
            found.append(_positional(entry, {"args": arguments, "kwargs": options}))
    return found


def renumbered(calls: Mapping[str, Sequence[Record]], outputs: Sequence[Reference]) -> dict[str, dict[int, int]]:
    """Map call indices in the file to positions in the list of calls, for layers where they differ.

    If a layer is shared with other models, Keras 3.0 omits the calls of those models but keeps the indices of the rest.
    """
    found: dict[str, set[int]] = {}
    made = [record["args"] for records_ in calls.values() for record in records_]
    for name, call, _ in [*outputs, *references(made)]:
        found.setdefault(name, set()).add(call)
    return {
        name: {call: number for number, call in enumerate(sorted(numbers))}
        for name, numbers in found.items()
        if max(numbers) >= len(calls.get(name, ())) == len(numbers)
    }


def _in_order(argument: Any, entry: Mapping[str, Any]) -> Any:
    """Convert a dictionary of tensors that a model is called on to a list in the order of its inputs.

    Raises:
        ValueError: The keys are not the names of its inputs.
    """
    if not isinstance(argument, Mapping) or "class_name" in argument or entry["class_name"] not in MODELS:
        return argument
    inputs = entry["config"].get("input_layers")
    names = sorted(inputs) if isinstance(inputs, Mapping) else [name for name, *_ in ends(inputs or [])]
    if set(names) != set(argument):
        raise ValueError(f"{entry['config']['name']} is called on {sorted(argument)}, its inputs are {names}")
    return [argument[name] for name in names]


def _positional(entry: Mapping[str, Any], record: Record) -> Record:
    """The record with keyword tensors appended to the positional ones.

    If there are masks among them, the option `given` names all tensors.
    """
    kind = entry["class_name"]
    options, arguments = dict(record["kwargs"]), list(record["args"])
    if any(isinstance(each, Mapping) and "class_name" not in each for each in arguments):
        name = entry["config"].get("name")
        raise ValueError(
            f"Layer {name!r} of kind {kind} is called on a dictionary, such as images with boxes or labels; only calls "
            "on tensors are imported"
        )
    if not arguments and _is_tensors(options.get("inputs")):
        arguments = [options.pop("inputs")]
    if kind in LISTS:
        inputs, masks = LISTS[kind]
        given = [*zip(inputs, arguments[0], strict=False), *zip(masks, options.pop("mask", None) or (), strict=False)]
        arguments = arguments[1:]
    elif kind in TENSORS:
        names = TENSORS[kind]
        given = list(zip(names, arguments, strict=False))
        arguments = arguments[len(names) :]
        given += [(name, options.pop(name)) for name in names if _is_tensors(options.get(name))]
    else:
        return {"args": arguments, "kwargs": options}
    given = [(name, value) for name, value in given if _is_tensors(value) and not _is_unused(entry, name)]
    if any(name not in INPUTS for name, _ in given):
        options["given"] = [name for name, _ in given]
    return {"args": [*(value for _, value in given), *arguments], "kwargs": options}


def _is_unused(entry: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor of a call has no effect at inference: a mask that the layer, or the wrapped layer, ignores.

    Warns:
        UserWarning: The mask affects training.
    """
    if name != "mask":
        return False
    if entry["class_name"] == "BatchNormalization":
        warnings.warn(
            f"Layer {entry['config'].get('name')!r} of kind BatchNormalization is called with a mask. Keras excludes "
            "masked steps from the batch statistics in training; here they are included",
            stacklevel=2,
        )
        return True
    kind = entry["config"]["layer"]["class_name"] if entry["class_name"] == "TimeDistributed" else entry["class_name"]
    return kind not in TENSORS and kind not in LISTS and kind not in MODELS


def _is_tensors(value: Any) -> bool:
    return next(references(value), None) is not None


def _numbered(argument: Any, nested: set[str]) -> Any:
    """An argument with its tensors in the form of Keras 3, including the call indices."""
    if isinstance(argument, Mapping) and argument.get("class_name") == LEGACY_TENSOR:
        name, index, output = argument["config"]["keras_history"]
        return {"class_name": TENSOR, "config": {"keras_history": [name, call_number(index, name in nested), output]}}
    return [_numbered(part, nested) for part in argument] if isinstance(argument, list) else argument


def references(value: Any) -> Iterator[Reference]:
    """Yield the references of the tensors in a call's arguments, in order."""
    if isinstance(value, Mapping) and value.get("class_name") == TENSOR:
        name, index, output = value["config"]["keras_history"]
        yield name, index, output
    elif isinstance(value, list | tuple):
        for part in value:
            yield from references(part)


def ends(value: Any) -> list[tuple[str, int, int]]:
    """The inputs or outputs of a model as a flat list; those of a dictionary are sorted by key, as in Keras."""
    if isinstance(value, Mapping):
        return [end for key in sorted(value) for end in ends(value[key])]
    if value and isinstance(value[0], str):
        name, index, output = value[:3]
        return [(name, index, output)]
    return [end for part in value for end in ends(part)]
