"""Validate the structure of a configuration before it is used; later code relies on it.

A file that violates the structure is damaged or was not written by Keras. Errors name the location and the value.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
# Levels of JSON; a nested model takes three to five. Functions that walk through a configuration are recursive, so the
# limit stays below Python's recursion limit.
DEEPEST = 200
LARGEST = (1 << 31) - 1  # upper bound of sizes
LONGEST = 1000  # characters in a name
TENSORS = ("__keras_tensor__", "__legacy_tensor__")
CONSTANT = "_CONSTANT_VALUE"  # in place of a layer name, marks a constant argument of a TensorFlow function
TUPLES = ("__tuple__", "TensorShape", "__list__")


def check_structure(config: Entry) -> None:
    """Check a stored configuration: the entries of all layers and models, and their references.

    Raises:
        ValueError: The structure is not one that any version of Keras writes; names the location and the value.
    """
    _check_depth(config)
    version = config.get("keras_version")
    if version is not None and not (isinstance(version, str) and re.match(r"\d+\.\d+", version)):
        raise ValueError(f"keras_version is {shown(version)}, which is not a version of Keras")
    _check_entry(config, "The model")
    inside = config["config"]
    for name in (config.get("name"), inside.get("name") if isinstance(inside, Mapping) else None):
        if not (name is None or _is_text(name)):
            raise ValueError(f"The model: its name is {shown(name)}")


def model_kind(entry: Entry) -> str | None:
    """The kind of model an entry describes, or None for a layer.

    A subclass of Model whose configuration has the graph counts as Functional; one of Sequential that has only layers
    counts as Sequential. The code of such subclasses concerns training and is not in the file.
    """
    config = entry["config"]
    if entry["class_name"] == "Sequential":
        return "Sequential"
    if entry["class_name"] in ("Functional", "Model"):
        return "Functional"
    if isinstance(config, Mapping) and isinstance(config.get("layers"), list):
        if {"input_layers", "output_layers"} <= set(config):
            return "Functional"
        alone = set(config) == {"name", "layers"} and entry["class_name"] != "Pipeline"  # which is a layer
        if "build_input_shape" in config or alone:
            return "Sequential"
    return None


def stored_shape(value: Any, where: str) -> list[int | None] | None:
    """Convert a stored shape to a list, or None if there is none.

    Raises:
        ValueError: `value` is not a list of sizes.
    """
    if isinstance(value, Mapping) and value.get("class_name") in TUPLES:
        value = value.get("items")
    if value is None:
        return None
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    if not isinstance(value, list | tuple) or any(not (each is None or _is_count(each)) for each in sizes):
        raise ValueError(f"{where} is {shown(value)}, which is not a shape")
    return sizes


def shown(value: Any) -> str:
    """Format a value for a message, truncated if it is long."""
    return shortened(repr(value), 100)


def shortened(text: str, length: int = 2000) -> str:
    """Truncate a message that quotes a file."""
    return text if len(text) <= length else f"{text[:length]}..."


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST  # not isinstance, which accepts bool


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _check_depth(config: Any) -> None:
    level = [config]
    for _ in range(DEEPEST):
        level = [
            part
            for value in level
            if isinstance(value, Mapping | list)
            for part in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return
    raise ValueError(f"The configuration is nested more than {DEEPEST} levels deep")


def _check_entry(entry: Any, where: str) -> None:
    """Check the entry of a layer or model, and of all layers inside it."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {shown(entry)}, not an object")
    kind, config = entry.get("class_name"), entry.get("config")
    if not _is_text(kind) or not kind:
        raise ValueError(f"{where}: class_name is {shown(kind)}, not the name of a class")
    if not isinstance(config, Mapping) and not (kind == "Sequential" and isinstance(config, list)):
        raise ValueError(f"{where} of kind {kind}: config is {shown(config)}, not an object")
    for key in ("module", "registered_name"):
        if not (entry.get(key) is None or _is_text(entry[key])):
            raise ValueError(f"{where} of kind {kind}: {key} is {shown(entry[key])}, not a name")
    form = model_kind(entry)
    if form is None:
        _check_layer(kind, entry, config, where)
    else:
        _check_model(form, config, where)


def _check_layer(kind: str, entry: Entry, config: Any, where: str) -> None:
    _check_name(entry, where)
    if isinstance(config.get("layer"), Mapping):  # a wrapper
        _check_entry(config["layer"], f"{where}, the layer inside")
    if kind == "Pipeline":
        for number, layer in enumerate(_list_in(config, "layers", where)):
            _check_entry(layer, f"{where}, layer {number}")
    activation = config.get("activation")
    if isinstance(activation, Mapping):
        is_function = activation.get("class_name") == "function" and isinstance(activation.get("config"), str)
        if not is_function:
            _check_entry(activation, f"{where}, its activation")


def _check_model(form: str, config: Any, where: str) -> None:
    entries = config if isinstance(config, list) else _list_in(config, "layers", where)
    for number, entry in enumerate(entries):
        _check_entry(entry, f"{where}, layer {number}{_title(entry)}")
        if form == "Functional" or not isinstance(entry["config"], list):  # an entry with a list as config has no name
            _check_name(entry, f"{where}, layer {number}")
    if form == "Sequential":
        return
    names = {_name(entry) for entry in entries}
    for key in ("input_layers", "output_layers"):
        found = list(_ends(config.get(key), f"{where}: {key}"))
        if not found:
            raise ValueError(f"{where}: {key} is {shown(config.get(key))}, which does not name a layer")
        _check_known(found, names, f"{where}: {key}")
    for number, entry in enumerate(entries):
        place = f"{where}, layer {number}{_title(entry)}: inbound_nodes"
        for record in _list_in(entry, "inbound_nodes", place):
            if entry["class_name"] == "InputLayer":  # some versions write records for it, which are not used
                continue
            _check_known(list(_tensors_of_record(record, place)), names, place)


def _list_in(config: Entry, key: str, where: str) -> list[Any]:
    found = config.get(key)
    if not isinstance(found, list):
        raise ValueError(f"{where}: {key} is {shown(found)}, not a list")
    return found


def _title(entry: Any) -> str:
    """The name of a layer for messages, if it has one."""
    name = _name(entry) if isinstance(entry, Mapping) else None
    return f" ({shown(name)})" if isinstance(name, str) else ""


def _name(entry: Entry) -> Any:
    config = entry.get("config")
    # A TensorFlowOpLayer has two names; the one in the configuration is that of the graph node.
    return entry.get("name", config.get("name") if isinstance(config, Mapping) else None)


def _check_name(entry: Entry, where: str) -> None:
    config = entry["config"]
    names = [_name(entry), *([config["name"]] if isinstance(config, Mapping) and "name" in config else [])]
    if not all(map(_is_text, names)):
        raise ValueError(f"{where} of kind {entry['class_name']}: its name is {' and '.join(map(shown, names))}")


def _check_known(references: Sequence[str], names: set[Any], where: str) -> None:
    unknown = sorted({name for name in references if name not in names})
    if unknown:
        raise ValueError(f"{where}: the model has no layer of the name {', '.join(map(shown, unknown))}")


def _is_reference(value: Any) -> bool:
    """Whether a value is [layer, call, output], optionally followed by options."""
    counts = value[1:3] if isinstance(value, list) else ()
    return len(counts) == 2 and isinstance(value[0], str) and all(type(each) is int and each >= 0 for each in counts)


def _ends(value: Any, where: str) -> Iterator[str]:
    """Yield the layers of a model's inputs or outputs: one reference, a list, or a mapping."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        if not _is_reference(value):
            raise ValueError(f"{where}: {shown(value)} is not [layer, call, output]")
        yield value[0]
    elif isinstance(value, list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _ends(part, where)
    else:
        raise ValueError(f"{where}: {shown(value)} is not [layer, call, output]")


def _tensors_of_record(record: Any, where: str) -> Iterator[str]:
    """Yield the layers whose outputs a call takes."""
    if isinstance(record, Mapping) and record and all(map(_is_reference, record.values())):
        yield from (name for name, *_ in record.values())  # tf.keras, of a model that is called on a dictionary
        return
    if isinstance(record, Mapping):  # Keras 3
        if not isinstance(record.get("args"), list) or not isinstance(record.get("kwargs"), Mapping):
            raise ValueError(f"{where}: {shown(record)} is not a call with args and kwargs")
        yield from _tensors(record, where)
        return
    single = isinstance(record, list) and record and isinstance(record[0], str)
    if not isinstance(record, list) or not record:
        raise ValueError(f"{where}: {shown(record)} is not a call")
    for tensor in [record] if single else record:
        constant = isinstance(tensor, list) and len(tensor) > 2 and tensor[0] == CONSTANT
        if not constant and not _is_reference(tensor):
            raise ValueError(f"{where}: {shown(tensor)} is not [layer, call, output]")
        if len(tensor) > 3 and not isinstance(tensor[3], Mapping):
            raise ValueError(f"{where}: the options of the call are {shown(tensor[3])}, not an object")
        if not constant:
            yield tensor[0]


def _tensors(value: Any, where: str) -> Iterator[str]:
    """Yield the layers of all tensors in the arguments of a Keras 3 call."""
    if isinstance(value, Mapping) and value.get("class_name") in TENSORS:
        config = value.get("config")
        history = config.get("keras_history") if isinstance(config, Mapping) else None
        if not isinstance(history, list) or not _is_reference(history) or len(history) != 3:
            raise ValueError(f"{where}: {shown(value)} is not a tensor")
        yield history[0]
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part, where)
