"""Our own files: the description of any network as JSON, with its arrays in the same `.npz` file.

They hold networks that Keras does not know, such as those of `flaxapps.quantize` and `flaxapps.optimize`. The
description names layers of `flaxapps.layers` and their options; no code is stored or executed.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.initializers import VarianceScaling
from flaxapps.graph.symbolic import Call, Layer, Node
from flaxapps.graph.variables import weight_paths
from flaxapps.model import Model, Network
from flaxapps.saving.to_config import NAMES
from weight_port import WeightError
from weight_port.atomic import replacing
from weight_port.readers import damage_named
from weight_port.trees import DESCRIPTION, is_npz, join_path, nest, split_path
from weight_port.writers import leaves

SUFFIX = ".npz"
VERSION = 1
ARGUMENTS: Mapping[str, Any] = {
    kind.__name__: kind for kind in (layers.Constant, layers.Slice, layers.Slot, VarianceScaling)
}


class StoredGraph(NamedTuple):
    """The content of a file: a network and settings that were stored with it.

    Attributes:
        network: The model and its variables.
        settings: JSON values, such as names of classes; may be empty.
    """

    network: Network
    settings: Mapping[str, Any]


def save_graph(
    model: Model,
    variables: Mapping[str, Any],
    path: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Saves a network of any layers with its arrays. The write is atomic.

    Args:
        model: The network.
        variables: Its arrays; dtypes are kept.
        path: Path ending in `.npz`.
        settings: JSON values to store beside the network.

    Raises:
        WeightError: The variables do not fit the model; or it has a layer of a class that is neither in
            `flaxapps.layers` nor registered, a function without a name, or an input in the middle of a graph.
        FileNotFoundError: The folder does not exist.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise WeightError(f"{os.fspath(path)} has to end in {SUFFIX}")
    arrays = {keys: np.asarray(leaf) for keys, leaf in leaves(variables)}
    _check_arrays(model, arrays, "The variables do not fit the model")
    description: dict[str, Any] = {
        "version": VERSION,
        "name": model.name,
        "single": [isinstance(model.inputs, Node), isinstance(model.outputs, Node)],
        "graph": _graph_entry(model.graph),
        "settings": dict(settings or {}),
    }
    named = {join_path(keys): array for keys, array in arrays.items()}
    halves = [name for name, array in named.items() if array.dtype == jnp.bfloat16]
    if halves:  # which NumPy's files do not know
        description["bfloat16"] = halves
        named |= {name: named[name].view(np.uint16) for name in halves}
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    with replacing(path) as part, open(part, "wb") as file:  # given a name, NumPy would append .npz
        np.savez(file, allow_pickle=False, **{DESCRIPTION: text}, **named)


def is_graph_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file was written by `save_graph`.

    Raises:
        FileNotFoundError: `path` does not exist.
        WeightError: The file is a damaged archive.
    """
    if os.path.isdir(path) or not is_npz(path):
        return False
    with damage_named(os.fspath(path)), np.load(path, allow_pickle=False) as file:
        return DESCRIPTION in file.files


def load_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Loads the settings in a file of `save_graph`, without its network and arrays.

    Raises:
        WeightError: The file is damaged or of a newer version.
        FileNotFoundError: `path` does not exist.
    """
    name = os.fspath(path)
    with damage_named(name), np.load(path, allow_pickle=False) as file:
        array = file[DESCRIPTION]
    with _damage_told(name):
        return dict(_description(array, name)["settings"])


@contextlib.contextmanager
def _damage_told(name: str) -> Iterator[None]:
    """Raises what a description of another form leads to as a `WeightError` that names the file."""
    try:
        yield
    except WeightError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WeightError(f"{name}: the description of the network is damaged: {error!r}") from error


def _description(array: Any, name: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(array.tobytes())
    if description["version"] != VERSION:
        raise WeightError(f"{name} has version {description['version']!r} of the format; known is {VERSION}")
    return description


def load_graph(path: str | os.PathLike[str]) -> StoredGraph:
    """Loads a file of `save_graph`, to the default device.

    Raises:
        WeightError: The file is damaged, of a newer version, has layers that are not known here, or its arrays do not
            fit the network.
        FileNotFoundError: `path` does not exist.
    """
    name = os.fspath(path)
    with damage_named(name), np.load(path, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    with _damage_told(name):
        description = _description(found.pop(DESCRIPTION), name)
        graph = _graph(description["graph"])
        single = description["single"]
        inputs, outputs = (
            nodes[0] if one else list(nodes) for one, nodes in zip(single, (graph.inputs, graph.outputs), strict=True)
        )
        model = Model(inputs, outputs, name=description["name"])
        settings = dict(description["settings"])
        found |= {key: found[key].view(jnp.bfloat16) for key in description.get("bfloat16", ())}
    arrays = {split_path(key): array for key, array in found.items()}
    _check_arrays(model, arrays, f"{name} does not hold the arrays of its network")
    return StoredGraph(Network(model, dict(jax.device_put(nest(arrays)))), settings)


def _check_arrays(model: Model, arrays: Mapping[tuple[str, ...], Any], complaint: str) -> None:
    wanted = dict(weight_paths(model.graph))
    shown = {path: f"{join_path(path)} {weight.dtype}{weight.shape}" for path, weight in wanted.items()}
    missing = [shown[path] for path in wanted if path not in arrays]
    unexpected = [f"{join_path(path)} {array.shape}" for path, array in arrays.items() if path not in wanted]
    misshapen = [
        f"{shown[path]}: got {array.dtype}{array.shape}"
        for path, array in arrays.items()
        if path in wanted and not _fits(array, wanted[path])
    ]
    if missing or unexpected or misshapen:
        raise WeightError(complaint, missing, unexpected, misshapen)


def _fits(array: Any, weight: Any) -> bool:
    wanted = np.dtype(weight.dtype)
    narrowed = array.dtype == jnp.bfloat16 and wanted == np.float32  # by `optimize(precision="bfloat16")`
    return bool(array.shape == weight.shape and (narrowed or array.dtype == wanted))


def known_layers() -> dict[str, type[Layer]]:
    """Returns the layer classes that files can name: those of `flaxapps.layers`, and registered ones."""
    return {
        name: kind
        for name, kind in {**vars(layers), **layers.registered()}.items()
        if isinstance(kind, type) and issubclass(kind, Layer)
    }


def _graph_entry(graph: Graph) -> dict[str, Any]:
    """Converts a graph to JSON. Layers are listed once, so that shared ones stay shared."""
    if any(node.call.inputs for node in graph.inputs):
        raise WeightError("The model starts in the middle of a graph: build it on an Input to save it")
    numbers: dict[int, int] = {}
    entries: list[Any] = []
    for step in graph.steps:
        if id(step.layer) not in numbers:
            numbers[id(step.layer)] = len(entries)
            entries.append(_layer_entry(step.layer))
    steps = [[numbers[id(step.layer)], list(step.inputs), step.training] for step in graph.steps]
    inputs = [_layer_entry(node.layer) for node in graph.inputs]
    return {"inputs": inputs, "layers": entries, "steps": steps, "results": list(graph.results)}


def _layer_entry(layer: Layer) -> dict[str, Any]:
    kind = type(layer)
    if known_layers().get(kind.__name__) is not kind:
        raise WeightError(
            f"Layer {layer.name!r} is of class {kind.__name__}, which is not in flaxapps.layers: "
            f"flaxapps.layers.register({kind.__name__!r}) adds it"
        )
    options = {
        field.name: _plain(getattr(layer, field.name), f"Layer {layer.name!r} of kind {kind.__name__}: {field.name}")
        for field in dataclasses.fields(layer)
        if field.init and getattr(layer, field.name) != field.default
    }
    return {"class": kind.__name__, "options": options}


def _plain(value: Any, place: str) -> Any:
    """Converts an option to JSON: tuples to lists, layers and graphs to objects, functions to their names."""
    # Types are compared exactly: a Slot is an int, and a Slice a tuple, but they mean something else.
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in ARGUMENTS.values():
        fields = [int(value)] if isinstance(value, int) else value
        return {"argument": type(value).__name__, "fields": [_plain(part, place) for part in fields]}
    if type(value) in (tuple, list):
        return [_plain(part, place) for part in value]
    if isinstance(value, Layer):
        return {"layer": _layer_entry(value)}
    if isinstance(value, Graph):
        return {"graph": _graph_entry(value)}
    name = NAMES.get(value) if callable(value) else None
    if name is None:
        raise WeightError(f"{place}={value!r} cannot be written to a file")
    return name


def _graph(entry: Mapping[str, Any]) -> Graph:
    sources = [Call(_layer(each), ()).outputs[0] for each in entry["inputs"]]
    known = [_layer(each) for each in entry["layers"]]
    values: list[Node] = list(sources)
    for number, inputs, training in entry["steps"]:
        values += known[_index(number)].record([values[_index(index)] for index in inputs], training).outputs
    return Graph(sources, [values[_index(index)] for index in entry["results"]])


def _index(number: Any) -> int:
    if not isinstance(number, int) or number < 0:  # a negative one would count from the end
        raise ValueError(f"{number!r} is not the number of a tensor or layer")
    return number


def _layer(entry: Mapping[str, Any]) -> Layer:
    kind = known_layers().get(entry["class"])
    if kind is None:
        raise WeightError(
            f"The file has a layer of class {entry['class']!r}, which is not known here: "
            "flaxapps.layers.register adds one; newer versions of flaxapps may know it"
        )
    return kind(**{name: _value(value) for name, value in entry["options"].items()})


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, Mapping) and "argument" in value:
        return ARGUMENTS[value["argument"]](*map(_value, value["fields"]))
    if isinstance(value, Mapping):
        return _layer(value["layer"]) if "layer" in value else _graph(value["graph"])
    return value
