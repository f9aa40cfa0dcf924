"""Keras's configuration of a model: layers, their calls, inputs and outputs.

Source: keras/src/models/functional.py (`get_config`, `functional_from_config`).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from flaxapps.graph.graph import Graph, Step, source_inputs
from flaxapps.graph.shapes import in_layout
from flaxapps.graph.symbolic import Layer, Node, Shape
from flaxapps.layers import (
    Constant,
    Functional,
    ImageByImage,
    InputLayer,
    Operation,
    Sequential,
    Slice,
    Slot,
    TimeDistributedModel,
    merging,
)
from flaxapps.model import Model
from flaxapps.saving.calls import INPUTS, LISTS, TENSORS
from flaxapps.saving.to_config import (
    OPTIONS_OF_CALLS,
    input_entry,
    keras_name,
    layer_entry,
    operation_entry,
    policy,
)
from weight_port import WeightError


def model_config(model: Model) -> dict[str, Any]:
    """Keras's configuration of a model, the content of `config.json` in a `.keras` archive; see `save_model`."""
    inputs = model.graph.inputs
    dtypes = [_dtype_name(source_inputs(node)[0].layer.dtype) for node in inputs]
    channels_first = any(getattr(node.layer, "data_format", "") == "channels_first" for node in inputs)
    single = isinstance(model.inputs, Node), isinstance(model.outputs, Node)
    return _Exporter(model.graph, dtypes, channels_first).functional(model.name or "functional", *single)


class Value(NamedTuple):
    """One tensor of a graph.

    Attributes:
        layer: Name of the layer that computes it.
        call: Index of the layer's call.
        output: Index of the call's output.
        shape: Shape, channels last.
        dtype: Its dtype.
    """

    layer: str
    call: int
    output: int
    shape: Shape
    dtype: str


class _Exporter:
    """Builds Keras's configuration of one graph.

    Attributes:
        inputs: The input tensors.
        outputs: The output tensors.
    """

    def __init__(self, graph: Graph, dtypes: Sequence[str], channels_first: bool, trainable: bool = True):
        self.trainable = trainable
        self.channels_first = channels_first
        self.layers: dict[str, Layer] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.inputs: list[Value] = []
        self.inside: dict[str, list[Value]] = {}  # outputs of nested models
        taken = {node.layer.name for node in graph.inputs} | {step.layer.name for step in graph.steps}
        for node, dtype in zip(graph.inputs, dtypes, strict=True):
            name = _input_name(node, taken)
            self._add(node.layer, name, input_entry(name, in_layout(node.shape, channels_first), dtype))
            self.inputs.append(Value(name, 0, 0, node.shape, dtype))
        self.outputs = graph.follow(self.inputs, self._call)

    def functional(self, name: str, single_input: bool, single_output: bool) -> dict[str, Any]:
        """The entry of a Functional model."""
        inputs, outputs = ([self._end(value) for value in values] for values in (self.inputs, self.outputs))
        config = {
            "name": name,
            "trainable": self.trainable,
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
        shape = list(in_layout(self.inputs[0].shape, self.channels_first))
        config = {
            "name": name,
            "trainable": self.trainable,
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
        # In `input_layers` and `output_layers`, but not in `inbound_nodes`, Keras counts the construction of a
        # Functional model as its first call.
        nested = self.entries[value.layer]["class_name"] == "Functional"
        return [value.layer, value.call + nested, value.output]

    def _add(self, layer: Layer, name: str, entry: dict[str, Any]) -> None:
        if name in self.entries:
            raise WeightError(f"Two layers are called {name!r}; in Keras names must be unique, also of operations")
        self.layers[name] = layer
        self.entries[name] = {**entry, "name": name, "inbound_nodes": []}

    def _call(self, step: Step, inputs: list[Value]) -> list[Value]:
        layer, name = step.layer, keras_name(step.layer.name)
        shapes = [value.shape for value in inputs]
        if not _is_same(self.layers.get(name), layer):
            self._add(layer, name, self._entry(layer, inputs))
        records = self.entries[name]["inbound_nodes"]
        dtypes = self._output_dtypes(layer, inputs)
        records.append(self._record(step, inputs))
        ends = enumerate(zip(layer.output_shapes(*shapes), dtypes, strict=True))
        return [Value(name, len(records) - 1, number, shape, dtype) for number, (shape, dtype) in ends]

    def _entry(self, layer: Layer, inputs: Sequence[Value]) -> dict[str, Any]:
        shapes = [value.shape for value in inputs]
        if isinstance(layer, Operation):
            return operation_entry(layer, shapes, self.channels_first)
        if isinstance(layer, TimeDistributedModel):
            return self._time_distributed(layer, inputs)
        if not isinstance(layer, Functional) or isinstance(layer, ImageByImage):
            return layer_entry(layer, _computed_in(layer, inputs), shapes, self.channels_first)
        nested = _Exporter(
            layer.graph, [_computed_in(layer, [value]) for value in inputs], self.channels_first, layer.trainable
        )
        name = keras_name(layer.name)
        self.inside[name] = nested.outputs
        if isinstance(layer, Sequential):
            _check_chain(layer)
            return nested.sequential(name)
        return nested.functional(name, len(nested.inputs) == 1, len(nested.outputs) == 1)

    def _time_distributed(self, layer: TimeDistributedModel, inputs: Sequence[Value]) -> dict[str, Any]:
        """The entry of a model that is applied to every step."""
        dtype = _computed_in(layer, inputs)
        step = _Exporter(layer.graph, [dtype] * len(layer.graph.inputs), self.channels_first, layer.trainable)
        self.inside[keras_name(layer.name)] = step.outputs
        name = f"{keras_name(layer.name)}_step"
        model = step.functional(name, len(step.inputs) == 1, len(step.outputs) == 1)
        config = {"name": keras_name(layer.name), "trainable": layer.trainable, "dtype": policy(dtype), "layer": model}
        return {"module": "keras.layers", "class_name": "TimeDistributed", "config": config, "registered_name": None}

    def _output_dtypes(self, layer: Layer, inputs: Sequence[Value]) -> list[str]:
        if isinstance(layer, Functional):
            return [value.dtype for value in self.inside[keras_name(layer.name)]]
        dtype = _computed_in(layer, inputs)
        # The activation "softmax" returns half precision as float32.
        widened = getattr(layer, "activation", None) == "softmax" and dtype != "float64"
        return ["float32" if widened else dtype] * len(layer.output_shapes(*(value.shape for value in inputs)))

    def _record(self, step: Step, inputs: Sequence[Value]) -> dict[str, Any]:
        """The arguments of one call."""
        tensors = [self._tensor(value) for value in inputs]
        if isinstance(step.layer, Operation):
            options = dict(step.layer.options)
            of_call = {key: options[key] for key in OPTIONS_OF_CALLS if key in options}
            return {"args": [_filled(each, tensors) for each in step.layer.arguments], "kwargs": of_call}
        options = {} if step.training is None else {"training": step.training}
        options |= {name: getattr(step.layer, name) for name in step.layer.call_fields if name != "given"}
        kind, given = step.layer.class_name, getattr(step.layer, "given", ())
        if kind in LISTS and given:
            by_name = dict(zip(given, tensors, strict=True))
            asked, masks = ([by_name.get(name) for name in names] for names in LISTS[kind])
            return {"args": [[each for each in asked if each]], "kwargs": {**options, "mask": masks[:2]}}
        if kind in TENSORS:
            names = given or TENSORS[kind]
            # Keras takes queries, values and keys by position, other tensors by name.
            placed = sum(
                1 for pair in zip(names, TENSORS[kind], strict=False) if pair[0] == pair[1] and pair[0] in INPUTS
            )
            named = dict(zip(names[placed:], tensors[placed:], strict=False))
            return {"args": tensors[:placed], "kwargs": named | options}
        several = len(tensors) > 1 or step.layer.class_name in vars(merging)
        return {"args": [tensors] if several else tensors, "kwargs": options}

    def _tensor(self, value: Value) -> dict[str, Any]:
        config = {
            "shape": list(in_layout(value.shape, self.channels_first)),
            "dtype": value.dtype,
            "keras_history": [value.layer, value.call, value.output],
        }
        return {"class_name": "__keras_tensor__", "config": config}


_OF_PLACE = ("name", "inbound_nodes")  # keys of an entry that exist in Functional models only


def _filled(argument: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(argument, Slot):
        return tensors[argument]
    if isinstance(argument, Slice):
        return {"class_name": "__slice__", "config": argument._asdict()}
    if isinstance(argument, Constant):
        return {"class_name": "__numpy__", "config": {"value": _lists(argument.values), "dtype": argument.dtype}}
    if argument is ...:
        return {"class_name": "__ellipsis__", "config": {}}
    return [_filled(part, tensors) for part in argument] if isinstance(argument, tuple) else argument


def _lists(values: Any) -> Any:
    return [_lists(value) for value in values] if isinstance(values, tuple) else values


def _is_same(known: Layer | None, layer: Layer) -> bool:
    """Whether this is another call of a known layer. Operations are the same if function and options are."""
    if isinstance(known, Operation) and isinstance(layer, Operation):
        return (known.function, known.options) == (layer.function, layer.options)
    return known is layer


def _check_chain(layer: Sequential) -> None:
    """Check that the model is a chain, as Keras's Sequential requires."""
    steps = layer.graph.steps
    chained = all(step.inputs == (number,) for number, step in enumerate(steps))
    if not chained or layer.graph.results != (len(steps),) or any(step.training is not None for step in steps):
        raise WeightError(f"Layer {layer.name!r} is no chain of layers: make it Functional instead of Sequential")


def _dtype_name(dtype: Any) -> str:
    name: str = jnp.dtype(dtype or "float32").name
    return name


def _computed_in(layer: Layer, inputs: Sequence[Value]) -> str:
    return _dtype_name(layer.dtype or inputs[0].dtype)


def _input_name(node: Node, taken: set[str | None]) -> str:
    """Name of an InputLayer, or a new name for the InputLayer that replaces an inner node of a graph."""
    if isinstance(node.layer, InputLayer):
        return keras_name(node.layer.name)
    names: Iterator[str] = (f"{node.layer.name}_input{suffix}" for suffix in ("", *(f"_{n}" for n in range(1, 99))))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
