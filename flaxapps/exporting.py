"""Writes whole Keras models: a graph as Keras's configuration, and its weights, in a `.keras` archive.

Source: keras/src/models/functional.py (`get_config`, `functional_from_config`) and keras/src/saving/saving_lib.py.
"""

import datetime
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax.numpy as jnp

from flaxapps.graph import Graph, Step, source_inputs
from flaxapps.keras_configs import input_entry, layer_entry, operation_entry, outside_shape, policy
from flaxapps.layers import Functional, ImageByImage, InputLayer, Operation, Sequential, Slot, merging
from flaxapps.model import Model
from flaxapps.paths import in_bucket
from flaxapps.recording import Layer, Node, Shape
from weight_port import WeightError
from weight_port.archives import CONFIG_MEMBER, WEIGHTS_MEMBER
from weight_port.writers import check_variables, replacing, scratch_file, write_file, write_tree

METADATA_MEMBER = "metadata.json"
KERAS_VERSION = "3.15.1"  # whose format this is
SUFFIX = ".keras"


def save_model(model: Model, variables: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a model and its weights to a file that `keras.models.load_model(path)` opens.

    The file is written beside its target and then renamed, so that an interrupted save leaves an old file whole.
    Where the model cuts a larger graph at a node, the Keras model has an InputLayer.

    Args:
        model: The network. Layers that compute in bfloat16 or float16 get Keras's mixed policies; a channels_first
            model is one in Keras.
        variables: `{"params": ..., "batch_stats": ...}`, keyed by layer name; NumPy or JAX arrays.
        path: Has to end in `.keras`.

    Raises:
        WeightError: The variables are not the model's, or Keras has no such model: a layer of a kind that only exists
            here, a function without a name, an axis that channels_first images do not have. Nothing is written.
        FileNotFoundError: There is no such folder.
        ImportError: The path is in a bucket, and what that needs is not there.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise WeightError(f"{os.fspath(path)} has to end in {SUFFIX}. weight_port.save_weights writes weights alone.")
    config = json.dumps(model_config(model))
    arrays = check_variables(model, variables)
    if in_bucket(path):
        from flaxapps.reports import replacing as sent  # Rich is not loaded to compute

        with TemporaryDirectory() as folder, sent(path, "wb") as stream:
            local = Path(folder, f"model{SUFFIX}")
            save_model(model, variables, local)
            stream.write(local.read_bytes())
        return
    date = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    with replacing(path) as part, scratch_file(path) as weights:
        write_file(weights, write_tree, model, arrays)
        with zipfile.ZipFile(part, "w") as archive:  # stored, as Keras does: then readers need no second copy
            archive.writestr(METADATA_MEMBER, json.dumps({"keras_version": KERAS_VERSION, "date_saved": date}))
            archive.writestr(CONFIG_MEMBER, config)
            archive.write(weights, WEIGHTS_MEMBER)


def model_config(model: Model) -> dict[str, Any]:
    """Keras's configuration of a model, as `config.json` in a `.keras` archive holds it; see `save_model`."""
    inputs = model.graph.inputs
    dtypes = [_dtype_name(source_inputs(node)[0].layer.dtype) for node in inputs]
    channels_first = any(getattr(node.layer, "data_format", "") == "channels_first" for node in inputs)
    single = isinstance(model.inputs, Node), isinstance(model.outputs, Node)
    return _Exporter(model.graph, dtypes, channels_first).functional(model.name or "functional", *single)


class Value(NamedTuple):
    """One tensor of a graph.

    Attributes:
        layer: Name of the layer whose output it is.
        call: Number of the layer's call.
        output: Number of the call's output.
        shape: Channels last.
        dtype: What the layer computes it in.
    """

    layer: str
    call: int
    output: int
    shape: Shape
    dtype: str


class _Exporter:
    """Keras's configuration of one graph.

    Attributes:
        inputs: The tensors that enter.
        outputs: The tensors that leave.
    """

    def __init__(self, graph: Graph, dtypes: Sequence[str], channels_first: bool):
        self.channels_first = channels_first
        self.layers: dict[str, Layer] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.values: list[Value] = []
        self.inside: dict[str, list[Value]] = {}  # what nested models return
        taken = {node.layer.name for node in graph.inputs} | {step.layer.name for step in graph.steps}
        for node, dtype in zip(graph.inputs, dtypes, strict=True):
            name = _input_name(node, taken)
            self._add(node.layer, name, input_entry(name, outside_shape(node.shape, channels_first), dtype))
            self.values.append(Value(name, 0, 0, node.shape, dtype))
        self.inputs = self.values.copy()
        for step in graph.steps:
            self._call(step)
        self.outputs = [self.values[index] for index in graph.results]

    def functional(self, name: str, single_input: bool, single_output: bool) -> dict[str, Any]:
        """The entry of a Functional model."""
        inputs, outputs = ([self._end(value) for value in values] for values in (self.inputs, self.outputs))
        config = {
            "name": name,
            "trainable": True,
            "layers": list(self.entries.values()),
            "input_layers": inputs[0] if single_input else inputs,
            "output_layers": outputs[0] if single_output else outputs,
        }
        return {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": config,
            "registered_name": "Functional",
            "build_config": {"input_shape": None},
        }

    def sequential(self, name: str) -> dict[str, Any]:
        """The entry of a Sequential model."""
        entries = [{key: entry[key] for key in entry if key not in _OF_PLACE} for entry in self.entries.values()]
        shape = list(outside_shape(self.inputs[0].shape, self.channels_first))
        config = {
            "name": name,
            "trainable": True,
            "dtype": policy(self.inputs[0].dtype),
            "layers": entries,
            "build_input_shape": shape,
        }
        return {
            "module": "keras",
            "class_name": "Sequential",
            "config": config,
            "registered_name": None,
            "build_config": {"input_shape": shape},
        }

    def _end(self, value: Value) -> list[Any]:
        # Keras counts the construction of a Functional model as its first call, here but not in `inbound_nodes`.
        nested = self.entries[value.layer]["class_name"] == "Functional"
        return [value.layer, value.call + nested, value.output]

    def _add(self, layer: Layer, name: str, entry: dict[str, Any]) -> None:
        if "/" in name:
            raise WeightError(f"Layer {name!r}: Keras has no '/' in the names of layers")
        if name in self.entries:
            raise WeightError(f"Two layers are called {name!r}; Keras wants the names of operations to be unique too")
        self.layers[name] = layer
        self.entries[name] = {**entry, "name": name, "inbound_nodes": []}

    def _call(self, step: Step) -> None:
        layer, name = step.layer, step.layer.name or ""
        inputs = [self.values[index] for index in step.inputs]
        shapes = [value.shape for value in inputs]
        if not _is_same(self.layers.get(name), layer):
            self._add(layer, name, self._entry(layer, inputs))
        records = self.entries[name]["inbound_nodes"]
        dtypes = self._output_dtypes(layer, inputs)
        for number, (shape, dtype) in enumerate(zip(layer.output_shapes(*shapes), dtypes, strict=True)):
            self.values.append(Value(name, len(records), number, shape, dtype))
        records.append(self._record(step, inputs))

    def _entry(self, layer: Layer, inputs: Sequence[Value]) -> dict[str, Any]:
        shapes = [value.shape for value in inputs]
        if isinstance(layer, Operation):
            return operation_entry(layer, shapes, self.channels_first)
        if not isinstance(layer, Functional) or isinstance(layer, ImageByImage):
            return layer_entry(layer, _computed_in(layer, inputs), shapes, self.channels_first)
        nested = _Exporter(layer.graph, [_computed_in(layer, [value]) for value in inputs], self.channels_first)
        name = layer.name or ""
        self.inside[name] = nested.outputs
        if isinstance(layer, Sequential):
            _check_chain(layer)
            return nested.sequential(name)
        return nested.functional(name, len(nested.inputs) == 1, len(nested.outputs) == 1)

    def _output_dtypes(self, layer: Layer, inputs: Sequence[Value]) -> list[str]:
        if isinstance(layer, Functional):
            return [value.dtype for value in self.inside[layer.name or ""]]
        dtype = _computed_in(layer, inputs)
        # The activation "softmax" returns half precision as float32.
        return ["float32" if getattr(layer, "activation", None) == "softmax" and dtype != "float64" else dtype]

    def _record(self, step: Step, inputs: Sequence[Value]) -> dict[str, Any]:
        """The arguments of one call."""
        tensors = [self._tensor(value) for value in inputs]
        if isinstance(step.layer, Operation):
            return {"args": [_filled(each, tensors) for each in step.layer.arguments], "kwargs": {}}
        several = len(tensors) > 1 or step.layer.class_name in vars(merging)
        options = {} if step.training is None else {"training": step.training}
        return {"args": [tensors] if several else tensors, "kwargs": options}

    def _tensor(self, value: Value) -> dict[str, Any]:
        config = {
            "shape": list(outside_shape(value.shape, self.channels_first)),
            "dtype": value.dtype,
            "keras_history": [value.layer, value.call, value.output],
        }
        return {"class_name": "__keras_tensor__", "config": config}


_OF_PLACE = ("name", "inbound_nodes")  # what an entry says about its place in a Functional model


def _filled(argument: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(argument, Slot):
        return tensors[argument]
    return [_filled(part, tensors) for part in argument] if isinstance(argument, tuple) else argument


def _is_same(known: Layer | None, layer: Layer) -> bool:
    """Whether this is another call of a layer; every call of an operation has its own arguments."""
    if isinstance(known, Operation) and isinstance(layer, Operation):
        return (known.function, known.options) == (layer.function, layer.options)
    return known is layer


def _check_chain(layer: Sequential) -> None:
    """Checks that Keras can have the model as a Sequential one."""
    steps = layer.graph.steps
    chained = all(step.inputs == (number,) for number, step in enumerate(steps))
    if not chained or layer.graph.results != (len(steps),) or any(step.training is not None for step in steps):
        raise WeightError(f"Layer {layer.name!r} is no chain of layers: let it be Functional, not Sequential")


def _dtype_name(dtype: Any) -> str:
    name: str = jnp.dtype(dtype or "float32").name
    return name


def _computed_in(layer: Layer, inputs: Sequence[Value]) -> str:
    return _dtype_name(layer.dtype or inputs[0].dtype)


def _input_name(node: Node, taken: set[str | None]) -> str:
    """Name of an InputLayer; for a node in the middle of a graph, of the one that Keras needs there."""
    if isinstance(node.layer, InputLayer):
        return node.layer.name or ""
    names: Iterator[str] = (f"{node.layer.name}_input{suffix}" for suffix in ("", *(f"_{n}" for n in range(1, 99))))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
