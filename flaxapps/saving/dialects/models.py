"""Normalize model entries of any version to Functional or Sequential entries with normalized layers."""

from collections.abc import Mapping
from typing import Any

from flaxapps.saving.dialects.meaning import with_meaning
from flaxapps.saving.dialects.spelling import spelled
from flaxapps.saving.dialects.structure import model_kind, shortened, stored_shape
from flaxapps.saving.dialects.tensorflow_ops import RECORDED, as_operations
from flaxapps.saving.dialects.version import Version

Entry = Mapping[str, Any]
# Exceptions that malformed options cause in the conversion tables; `structure` does not check options.
DAMAGE = (KeyError, TypeError, AttributeError, IndexError, ArithmeticError)
MODELS = ("Functional", "Sequential")
GROUPS = {"GroupQueryAttention": "GroupedQueryAttention"}  # Keras exports the class under another name
REFUSED = "refused"  # key for the reason why an entry cannot be imported
STORED_CLASS = "stored_class"  # key for the class name that weight files use


def normalized(entry: Entry, version: Version) -> dict[str, Any]:
    """Convert the configuration of a layer or model to the form of Keras 3.15.

    Returns:
        A new entry. A model is "Functional" or "Sequential" and its `config` a mapping with `layers`. A Sequential
        model starts with an InputLayer if the file has its shape. Entries that cannot be imported have the key
        `REFUSED`.
    """
    kind = model_kind(entry)
    if kind is None:
        try:
            return {STORED_CLASS: GROUPS.get(entry["class_name"], entry["class_name"]), **_layer(entry, version)}
        except (ValueError, *DAMAGE) as error:
            return _refused(entry, error)
    config = entry["config"]
    if isinstance(config, list):  # Sequential before Keras 2.2.3
        config = {"layers": config, "name": entry.get("name", "sequential")}
    elif "name" in entry:
        config = {"name": entry["name"], **config}
    inside = [part for layer in _named(config["layers"]) for part in _parts(layer, version)]
    if kind == "Sequential" and inside:
        inside = _with_input(inside, config["layers"][0], config)
    return {**entry, STORED_CLASS: entry["class_name"], "class_name": kind, "config": {**config, "layers": inside}}


def _parts(entry: Entry, version: Version) -> list[dict[str, Any]]:
    """The normalized entries of a layer: one, or several for a TensorFlow function made of several operations."""
    if entry["class_name"] not in RECORDED:
        return [normalized(entry, version)]
    try:
        return [{STORED_CLASS: entry["class_name"], **part} for part in as_operations(entry)]
    except (ValueError, *DAMAGE) as error:
        return [_refused(entry, error)]


def _refused(entry: Entry, error: Exception) -> dict[str, Any]:
    name = _name(entry)
    reason = shortened(str(error) if isinstance(error, ValueError) else f"damaged, {error!r}")
    return {**entry, REFUSED: reason if str(name) in reason else f"{name} ({entry['class_name']}: {reason})"}


def _named(entries: list[Entry]) -> list[Entry]:
    """Name unnamed layers: Sequential models before Keras 2.2.3, whose configuration is a list."""
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry["config"], list) and "name" not in entry:
            number = sum(isinstance(each["config"], list) for each in found)
            entry = {**entry, "name": f"sequential_{number}" if number else "sequential"}
        found.append(entry)
    return found


def _layer(entry: Entry, version: Version) -> Entry:
    if ">" in entry["class_name"]:  # a custom class: "Custom>MyLayer"
        name = entry["class_name"]
        entry = {"registered_name": name, **entry, "class_name": name.rpartition(">")[2]}
    if "name" in entry and "name" not in entry["config"]:  # operations of Keras 3.0 to 3.10
        entry = {**entry, "config": {**entry["config"], "name": entry["name"]}}
    config = entry["config"]
    if isinstance(config.get("layer"), Mapping):  # a wrapper
        entry = {**entry, "config": {**config, "layer": normalized(config["layer"], version)}}
    elif entry["class_name"] == "Pipeline" and isinstance(config.get("layers"), list):
        inside = [normalized(layer, version) for layer in config["layers"]]
        entry = {**entry, "config": {**config, "layers": inside}}
    return with_meaning(spelled(entry, version), version)


def _with_input(inside: list[dict[str, Any]], first: Entry, config: Entry) -> list[dict[str, Any]]:
    """The layers of a Sequential model, preceded by an InputLayer if the input shape is stored anywhere."""
    if inside[0]["class_name"] == "InputLayer":
        # tf.keras writes this for vectors if the first layer (Normalization) was created without their length.
        shape = stored_shape(inside[0]["config"].get("batch_shape"), f"batch_shape of {_name(inside[0])!r}")
        vague = len(inside) > 1 and shape == [None, None]
        return inside[1:] if vague else inside
    shape, dtype = first_layer_shape(first), None
    if not isinstance(first["config"], list):
        dtype = first["config"].get("input_dtype")
    shape = shape or stored_shape(config.get("build_input_shape"), f"build_input_shape of {config.get('name')!r}")
    if not shape:
        return inside
    name = f"{_name(inside[0])}_input"
    return [{"class_name": "InputLayer", "config": {"name": name, "batch_shape": list(shape), "dtype": dtype}}, *inside]


def first_layer_shape(entry: Entry) -> list[int | None] | None:
    """The input shape, batch dimension first, stored in the first layer of a Sequential model, or None.

    Args:
        entry: The stored entry of the layer, or of a model, whose shape is stored inside it.
    """
    config = entry["config"]
    kind = model_kind(entry)
    if kind == "Functional":
        ends = config["input_layers"]
        name = ends[0] if isinstance(ends[0], str) else ends[0][0]
        return next((first_layer_shape(layer) for layer in config["layers"] if _name(layer) == name), None)
    if kind == "Sequential":
        inside = config if isinstance(config, list) else config["layers"]
        own = None if isinstance(config, list) else config.get("build_input_shape")
        inner = first_layer_shape(inside[0]) if inside else None
        return inner or stored_shape(own, f"build_input_shape of {_name(entry)!r}")
    for option in ("batch_input_shape", "batch_shape"):
        if config.get(option):
            return stored_shape(config[option], f"Layer {_name(entry)!r}: {option}")
    if config.get("input_shape"):
        return [None, *(stored_shape(config["input_shape"], f"Layer {_name(entry)!r}: input_shape") or ())]
    if isinstance(config.get("input_dim"), int) and entry["class_name"] == "Dense":
        return [None, config["input_dim"]]
    return None


def _name(entry: Entry) -> Any:
    config = entry["config"]
    return config.get("name") if isinstance(config, Mapping) else entry.get("name")
