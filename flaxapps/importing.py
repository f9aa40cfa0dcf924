"""Rebuilds a Keras model from its configuration, as a graph."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import weight_port
from flaxapps import layers
from flaxapps.graph import Call, Graph, Layer, Node
from flaxapps.model import Model
from flaxapps.network import Network, on_device
from weight_port import WeightError

KINDS: Mapping[str, type[Layer]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in vars(layers).values()
        if isinstance(kind, type) and issubclass(kind, Layer) and not kind.__name__.startswith("_")
    }
)
# What a configuration says about training only. Initializers do not matter where weights are loaded.
FOR_TRAINING = re.compile(r"trainable|synchronized|seed|autocast|\w+_(initializer|regularizer|constraint)")


def load_model(path: str | os.PathLike[str]) -> Network:
    """Loads a whole Keras model: its network and its weights.

    Args:
        path: A `.keras` archive of Keras 3. Functional models, nested to any depth, of the kinds in `flaxapps.layers`.

    Returns:
        Network(model, variables). Nothing stored in the file is executed.

    Raises:
        WeightError: The file is damaged, holds no model, or holds layers that cannot be imported; all are listed.
        FileNotFoundError: There is no file.
    """
    model = load_architecture(path)
    return Network(model, on_device(weight_port.load_weights(path, model)))


def load_architecture(path: str | os.PathLike[str]) -> Model:
    """Rebuilds the network of a Keras model file without reading its weights; see `load_model`."""
    config = weight_port.read_config(path)
    try:
        inputs, outputs = _functional(config)
        name = config["config"]["name"]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise WeightError(f"{os.fspath(path)}: the model configuration is damaged: {error!r}") from error
    except ValueError as error:
        raise WeightError(f"{os.fspath(path)}: {error}") from error
    return Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs, name=name)


def _functional(entry: Mapping[str, Any]) -> tuple[list[Node], list[Node]]:
    """Inputs and outputs of a Functional model's configuration."""
    if entry["class_name"] not in ("Functional", "Model"):
        raise ValueError(f"Models of kind {entry['class_name']} cannot be imported, only Functional ones")
    config = entry["config"]
    _refuse_unknown(config)
    made = {layer["name"]: _layer(layer) for layer in config["layers"]}
    calls: dict[str, list[Call]] = {name: [] for name in made}
    waiting = [(layer["name"], node) for layer in config["layers"] for node in _node_records(layer)]
    while waiting:
        later = []
        for name, record in waiting:
            if all(len(calls[source]) > index for source, index, _ in _references(record)):
                calls[name].append(_call(made[name], record, calls))
            else:
                later.append((name, record))
        if len(later) == len(waiting):
            raise ValueError(f"Layers whose inputs are nowhere: {[name for name, _ in later]}")
        waiting = later

    def nodes(references: list[Any]) -> list[Node]:
        found = []
        for name, index, output in [references] if isinstance(references[0], str) else references:
            # Keras counts a nested model's own construction as its first node here, and here only.
            found.append(calls[name][index - isinstance(made[name], layers.Functional)].outputs[output])
        return found

    return nodes(config["input_layers"]), nodes(config["output_layers"])


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    refused = []
    for layer in config["layers"]:
        kind = layer["class_name"]
        if kind == "Lambda":
            refused.append(f"{layer['name']} (Lambda: it carries Python code, which is never run)")
        elif kind not in KINDS and kind != "Model":
            refused.append(f"{layer['name']} ({kind})")
    if refused:
        raise ValueError(f"These layers cannot be imported: {', '.join(refused)}. Known kinds: {', '.join(KINDS)}")


def _layer(entry: Mapping[str, Any]) -> Layer:
    kind = entry["class_name"]
    if kind in ("Functional", "Model"):
        return layers.Functional(Graph(*_functional(entry)), name=entry["name"])
    config = dict(entry["config"])
    dtype = config.pop("dtype", None)
    if isinstance(dtype, dict):
        dtype = dtype["config"]["name"]
    dtype = str(dtype or "float32").removeprefix("mixed_")
    if kind == "InputLayer":
        shape = config.get("batch_shape") or config["batch_input_shape"]
        return layers.InputLayer((None, *shape[1:]), dtype=dtype, name=entry["name"])
    if config.pop("data_format", "channels_last") not in (None, "channels_last"):
        raise ValueError(f"Layer {entry['name']!r} is channels_first, which cannot be imported yet")
    fields = {field.name for field in dataclasses.fields(KINDS[kind])}
    options = {key: value for key, value in config.items() if not FOR_TRAINING.fullmatch(key)}
    unknown = {key: value for key, value in options.items() if key not in fields and value is not None}
    if unknown:
        raise ValueError(f"Layer {entry['name']!r} of kind {kind} has options that are not known: {unknown}")
    known = {key: _hashable(value) for key, value in options.items() if key in fields}
    return KINDS[kind](**known, dtype=dtype)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _node_records(layer: Mapping[str, Any]) -> list[Any]:
    records: list[Any] = layer["inbound_nodes"]
    return records if records or layer["class_name"] != "InputLayer" else [{"args": [], "kwargs": {}}]


def _references(record: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """The tensors in a call's arguments, in order: layer, number of its call, number of the output."""

    def visit(value: Any) -> Iterator[tuple[str, int, int]]:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            name, index, output = value["config"]["keras_history"]
            yield name, index, output
        elif isinstance(value, list | tuple):
            for part in value:
                yield from visit(part)

    return visit(record["args"])


def _call(layer: Layer, record: Mapping[str, Any], calls: Mapping[str, list[Call]]) -> Call:
    arguments = {key: value for key, value in record["kwargs"].items() if value is not None}
    training = arguments.pop("training", None)
    if arguments:
        raise ValueError(f"Layer {layer.name!r} is called with {arguments}, which is not known")
    nodes = tuple(calls[name][index].outputs[output] for name, index, output in _references(record))
    return Call(layer, nodes, training)
