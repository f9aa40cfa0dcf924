"""Rebuilds a Keras model from its configuration, as a graph, and loads its weights."""

import dataclasses
import itertools
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import weight_port
from flaxapps import layers
from flaxapps.configs import channels_last, default_mode, hashable, is_operation, layer_from_config, refusal
from flaxapps.graph import Graph
from flaxapps.model import Model
from flaxapps.network import Network, load_variables
from flaxapps.paths import local_file
from flaxapps.recording import Call, Layer, Node
from weight_port import WeightError

ABSTRACT = (layers.Augmentation, layers.Functional, layers.Noise, layers.Operation, layers.Sequential)
OURS = (layers.Bfloat16Conv2D, layers.ImageByImage, layers.WinogradConv2D)  # made by `optimize`
KINDS: Mapping[str, type[Layer]] = MappingProxyType(
    {
        name: kind
        for name, kind in vars(layers).items()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind not in ABSTRACT + OURS
    }
)
MODELS = ("Functional", "Model", "Sequential")


def load_model(path: str | os.PathLike[str]) -> Network:
    """Loads a whole Keras model: its network and its weights.

    Args:
        path: A `.keras` archive of Keras 3, or a whole-model `.h5` of Keras 2.0 to 3. Functional and Sequential models,
            nested to any depth, of the kinds in `flaxapps.layers`.

    Returns:
        Network(model, variables). Nothing stored in the file is executed.

    Raises:
        WeightError: The file is damaged, holds no model, or holds layers that cannot be imported; all are listed.
        FileNotFoundError: There is no file.
        ImportError: The path is in a bucket, and what that needs is not there.
    """
    path = local_file(path)
    model = load_architecture(path)
    return Network(model, load_variables(path, model))


def load_architecture(path: str | os.PathLike[str]) -> Model:
    """Rebuilds the network of a Keras model file without reading its weights; see `load_model`."""
    config = weight_port.read_config(path)
    try:
        refused = list(_refusals(config))
        if refused:
            raise ValueError(
                f"These layers cannot be imported: {', '.join(refused)}. Known kinds: {', '.join(sorted(KINDS))}; "
                'flaxapps.layers.register("ClassName") adds one.'
            )
        inputs, outputs = _graph_ends(config, _is_channels_first(config))
        name = _content(config).get("name")
        return Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs, name=name)
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WeightError(f"{os.fspath(path)}: the model configuration is damaged: {error!r}") from error
    except ValueError as error:
        raise WeightError(f"{os.fspath(path)}: {error}") from error


def _content(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a model; that of a Sequential model of Keras 2.0 is a bare list."""
    config = entry["config"]
    return {"layers": config, "name": entry.get("name", "sequential")} if isinstance(config, list) else config


def _refusals(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["class_name"] not in MODELS:
        yield f"the model itself ({entry['class_name']})"
        return
    for layer in _content(entry)["layers"]:
        if layer["class_name"] in MODELS:
            yield from _refusals(layer)
        elif reason := refusal(layer, {**KINDS, **layers.registered()}):
            yield reason


def _is_channels_first(entry: Mapping[str, Any]) -> bool:
    formats = {each for each in _data_formats(entry) if each is not None}
    if len(formats) > 1:
        raise ValueError(f"Layers differ in their data_format: {sorted(formats)}")
    return formats == {"channels_first"}


def _data_formats(entry: Mapping[str, Any]) -> Iterator[str | None]:
    for layer in _content(entry)["layers"]:
        if layer["class_name"] in MODELS:
            yield from _data_formats(layer)
        elif layer["class_name"] != "Flatten":  # always written, and of no consequence where nothing else says it
            yield layer["config"].get("data_format")


def _graph_ends(entry: Mapping[str, Any], channels_first: bool) -> tuple[list[Node], list[Node]]:
    """Inputs and outputs of a model's configuration."""
    ends = _sequential if entry["class_name"] == "Sequential" else _functional
    return ends(_content(entry), channels_first)


def _sequential(config: Mapping[str, Any], channels_first: bool) -> tuple[list[Node], list[Node]]:
    first, *others = config["layers"]
    if first["class_name"] != "InputLayer":
        shape = first["config"].get("batch_input_shape") or config.get("build_input_shape")
        if shape is None:
            raise ValueError(
                "The Sequential model does not say what shape its input has: it was saved before it was built"
            )
        others = [first, *others]
        first = {
            "class_name": "InputLayer",
            "config": {"name": f"{first['config']['name']}_input", "batch_shape": shape},
        }
    source = node = Call(_layer(first, channels_first), ()).outputs[0]
    for entry in others:
        layer = _layer(entry, channels_first)
        node = Call(channels_last(layer, [node.shape]) if channels_first else layer, (node,)).outputs[0]
    return [source], [node]


def _functional(config: Mapping[str, Any], channels_first: bool) -> tuple[list[Node], list[Node]]:
    entries = {_name(entry): entry for entry in config["layers"]}
    if len(entries) < len(config["layers"]):
        names = Counter(map(_name, config["layers"]))
        raise ValueError(f"Several layers have one name: {sorted(name for name, times in names.items() if times > 1)}")
    # Which models Keras counts the construction of as their first call; Sequential was one of them before Keras 3.
    legacy = any(isinstance(record, list) for entry in entries.values() for record in entry["inbound_nodes"])
    counted = MODELS if legacy else ("Functional", "Model")
    nested = {name for name, entry in entries.items() if entry["class_name"] in counted}
    made = {name: _layer(entry, channels_first) for name, entry in entries.items() if not is_operation(entry)}
    calls: dict[str, list[Call]] = {name: [] for name in entries}
    ready = deque((name, record) for name, entry in entries.items() for record in _records(entry, nested))
    waiting: dict[tuple[str, int], list[tuple[str, Mapping[str, Any]]]] = {}  # by the call that is still to be made
    while ready:
        name, record = ready.popleft()
        references = list(_references(record["args"]))
        absent = next(((source, index) for source, index, _ in references if len(calls[source]) <= index), None)
        if absent is not None:
            waiting.setdefault(absent, []).append((name, record))
            continue
        nodes = tuple(calls[source][index].outputs[output] for source, index, output in references)
        if name not in made:
            if channels_first and entries[name]["class_name"] in layers.ALONG_AXES:
                raise ValueError(f"Operation {name!r} cannot be turned from channels_first images")
            calls[name].append(Call(_operation(entries[name], record), nodes))
        else:
            if channels_first and nodes and not calls[name]:
                made[name] = channels_last(made[name], [node.shape for node in nodes])
            calls[name].append(Call(made[name], nodes, _training(made[name], record["kwargs"])))
        ready.extend(waiting.pop((name, len(calls[name]) - 1), ()))
    if waiting:
        raise ValueError(
            f"Layers whose inputs are nowhere: {sorted({name for each in waiting.values() for name, _ in each})}"
        )

    def nodes_of(references: Any) -> list[Node]:
        if isinstance(references, Mapping):
            raise ValueError(f"Inputs and outputs in a dictionary cannot be imported: {sorted(references)}")
        found = []
        for name, index, output in [references] if isinstance(references[0], str) else references:
            found.append(calls[name][_call_number(index, name in nested)].outputs[output])
        return found

    return nodes_of(config["input_layers"]), nodes_of(config["output_layers"])


def _call_number(index: int, nested: bool) -> int:
    """Keras counts the construction of a nested model as its first call, in some places."""
    return index - 1 if nested and index else index


def _name(entry: Mapping[str, Any]) -> str:
    name = entry["config"]["name"]
    if not isinstance(name, str) or entry.get("name", name) != name:
        raise ValueError(f"A layer is called {name!r} here and {entry.get('name')!r} there")
    return name


def _layer(entry: Mapping[str, Any], channels_first: bool) -> Layer:
    name, kind = _name(entry), entry["class_name"]
    if kind in MODELS:
        model = layers.Sequential if kind == "Sequential" else layers.Functional
        return model(Graph(*_graph_ends(entry, channels_first)), name=name)
    handler = layers.registered().get(kind, KINDS.get(kind))
    if not isinstance(handler, type):
        layer: Layer = handler(entry["config"])  # type: ignore[misc]  # _refusals has seen to it that there is one
        return dataclasses.replace(layer, name=name)
    layer = layer_from_config(entry, handler)
    if channels_first and isinstance(layer, layers.InputLayer) and len(layer.batch_shape) == 4:
        batch, channels, *sizes = layer.batch_shape
        return dataclasses.replace(layer, batch_shape=(batch, *sizes, channels), data_format="channels_first")
    return layer


def _records(entry: Mapping[str, Any], nested: set[str]) -> list[Mapping[str, Any]]:
    """The calls of a layer, in the form of Keras 3: arguments with tensors in them, and options."""
    if entry["class_name"] == "InputLayer":
        return [{"args": [], "kwargs": {}}]
    records = []
    for record in entry["inbound_nodes"]:
        if isinstance(record, Mapping):
            records.append(record)
            continue
        history = [(name, _call_number(index, name in nested), output) for name, index, output, *_ in record]
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": each}} for each in history]
        options = record[0][3] if len(record[0]) > 3 else {}
        records.append({"args": tensors, "kwargs": options})
    return records


def _references(value: Any) -> Iterator[tuple[str, int, int]]:
    """The tensors in a call's arguments, in order: layer, number of its call, number of the output."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        name, index, output = value["config"]["keras_history"]
        yield name, index, output
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _references(part)


def _training(layer: Layer, options: Mapping[str, Any]) -> bool | None:
    """The mode a call is fixed to, or None: Keras also records defaults, which fix nothing."""
    given = {key: value for key, value in options.items() if not _says_nothing(value)}
    training: bool | None = given.pop("training", None)
    if given:
        raise ValueError(f"Layer {layer.name!r} is called with options that are not known: {given}")
    return None if training == default_mode(layer) else training


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_says_nothing, value)))


def _operation(entry: Mapping[str, Any], record: Mapping[str, Any]) -> Layer:
    count = itertools.count()

    def fill(argument: Any) -> Any:
        if isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
            return layers.Slot(next(count))
        return tuple(map(fill, argument)) if isinstance(argument, list) else argument

    options = {key: value for key, value in (entry["config"] | record["kwargs"]).items() if key != "name"}
    known = tuple((key, hashable(options[key])) for key in sorted(options) if options[key] is not None)
    return layers.Operation(entry["class_name"], tuple(map(fill, record["args"])), known, name=_name(entry))
