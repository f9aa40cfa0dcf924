"""Build the graph of a model from its normalized configuration."""

import dataclasses
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.shapes import in_layout
from flaxapps.graph.symbolic import Call, Layer, Node, Shape
from flaxapps.saving.calls import Record, call_number, counted_models, ends, records, references, renumbered
from flaxapps.saving.conventions import Conventions, UnknownInputShape, as_called, layer_named, recorded_call
from flaxapps.saving.dialects.models import MODELS, STORED_CLASS
from flaxapps.saving.entries import layer_name
from flaxapps.saving.from_config import compute_dtype, handlers, is_operation, layer_from_config
from flaxapps.saving.layouts import is_image_preprocessing
from flaxapps.saving.options import checked_flag
from flaxapps.saving.recorded_operations import operation_of
from flaxapps.saving.sizes import PARTED, Known, Parts, known_sizes, of_known, parts
from flaxapps.saving.transposed import recorded_shapes, shape_after

Entry = Mapping[str, Any]
Ends = tuple[list[Node], list[Node]]


class GraphBuilder(Conventions):
    """Records the calls of a configuration."""

    def ends(self, entry: Entry, shapes: Sequence[Shape] | None = None) -> Ends:
        """Record a model and return its inputs and outputs.

        Args:
            entry: The normalized entry of a model.
            shapes: Input shapes, channels last, for a Sequential model that does not store its input shape.
        """
        if entry["class_name"] == "Sequential":
            return self._sequential(entry["config"], shapes)
        return _FunctionalBuilder(self, entry["config"]).ends()

    def _sequential(self, config: Entry, shapes: Sequence[Shape] | None) -> Ends:
        entries = list(config["layers"])
        if entries and entries[0]["class_name"] == "InputLayer":
            source = Call(self.layer(entries.pop(0)), ()).outputs[0]
        elif shapes is None:
            raise UnknownInputShape(
                f"The Sequential model {config.get('name')!r} does not store its input shape, because it was saved "
                "before it was built. Give input_shape="
            )
        else:
            source = Call(self._deferred_input(config, shapes[0]), ()).outputs[0]
        node = source
        for number, entry in enumerate(entries):
            with layer_named(entry, [node]):
                layer = self.turned(self.layer(entry, [node.shape]), [node], entry)
                layer = self.padded(layer, [node], shape_after(entries[number + 1 :]))
                call = recorded_call(layer, self.taken(layer, (node,)))
                self.check_wanted_shape(entry, call)
                node = call.outputs[0]
        return [source], [node]

    def _deferred_input(self, config: Entry, shape: Shape) -> Layer:
        format_ = "channels_first" if self.channels_first and len(shape) == 4 else "channels_last"
        return layers.InputLayer((None, *shape[1:]), format_, name=f"{config.get('name', 'sequential')}_input")

    def layer(self, entry: Entry, shapes: Sequence[Shape] | None = None) -> Layer:
        """Build the layer of an entry, which may be a model."""
        name, kind = layer_name(entry), entry["class_name"]
        if kind in MODELS:
            model = layers.Sequential if kind == "Sequential" else layers.Functional
            graph = Graph(*self.ends(entry, shapes))
            trainable = checked_flag(entry["config"].get("trainable", True), f"Model {name!r}: trainable")
            return model(graph, name=name, stored_class=entry.get(STORED_CLASS), trainable=trainable)
        inside = entry["config"].get("layer")
        if _says_channels_first(inside) and not (self.channels_first and kind == "SpectralNormalization"):
            raise ValueError(f"Layer {name!r} of kind {kind} has a channels_first layer inside, which is not imported")
        if kind == "TimeDistributed" and isinstance(inside, Mapping) and inside["class_name"] in MODELS:
            step = None if shapes is None else [(shapes[0][0], *shapes[0][2:])]
            dtype = compute_dtype(entry["config"].get("dtype"))
            return layers.TimeDistributedModel(Graph(*self.ends(inside, step)), name=name, dtype=dtype)
        handler = handlers()[kind]
        if not isinstance(handler, type):
            made: Layer = handler(entry["config"])  # a registered function
            return dataclasses.replace(made, name=name, stored_class=entry.get(STORED_CLASS))
        layer = dataclasses.replace(layer_from_config(entry, handler), stored_class=entry.get(STORED_CLASS))
        if self.legacy and self.whole and is_image_preprocessing(layer):
            layer = dataclasses.replace(layer, as_floats=True)
        if self.channels_first and isinstance(layer, layers.InputLayer) and len(layer.batch_shape) == 4:
            batch, channels, *sizes = layer.batch_shape
            return dataclasses.replace(layer, batch_shape=(batch, *sizes, channels), data_format="channels_first")
        return layer


class _FunctionalBuilder:
    """Records one Functional model: every call as soon as its inputs have been recorded."""

    def __init__(self, models: GraphBuilder, config: Entry):
        self._models = models
        self._config = config
        self._entries = {layer_name(entry): entry for entry in config["layers"]}
        if len(self._entries) < len(config["layers"]):
            names = Counter(map(layer_name, config["layers"]))
            repeated = sorted(name for name, times in names.items() if times > 1)
            raise ValueError(f"Several layers have one name: {repeated}")
        self._nested = counted_models(config)
        self._configured: dict[str, Layer] = {}
        self._made: dict[str, Layer] = {}  # with the options of their calls
        self._numbers: Mapping[str, Mapping[int, int]] = {}
        self._shapes: Mapping[tuple[str, int], list[int | None]] = {}
        # By call index: calls of a shared layer are not always recorded in order.
        self._calls: dict[str, dict[int, Call | Parts]] = {name: {} for name in self._entries}

    def ends(self) -> Ends:
        """Record all calls and return the inputs and outputs."""
        calls = {name: records(entry, self._nested) for name, entry in self._entries.items()}
        if self._models.lacks_output_padding:
            self._shapes = dict(recorded_shapes([each.get("inbound_nodes") for each in self._entries.values()]))
        if self._models.version.known and self._models.version.numbers[:2] == (3, 0):
            self._numbers = renumbered(calls, self._end_calls(self._config["output_layers"]))
        ready = deque((name, number, record) for name, made in calls.items() for number, record in enumerate(made))
        waiting: dict[tuple[str, int], list[tuple[str, int, Record]]] = {}  # by the call they wait for
        while ready:
            name, number, record = ready.popleft()
            needed = [(*self._place(source, call), output) for source, call, output in references(record["args"])]
            unknown = [source for source, _, _ in needed if source not in self._calls]
            if unknown:
                raise ValueError(f"Layer {name!r} takes the output of {unknown[0]!r}, which the model does not have")
            absent = next(((source, call) for source, call, _ in needed if call not in self._calls[source]), None)
            if absent is not None:
                waiting.setdefault(absent, []).append((name, number, record))
                continue
            self._calls[name][number] = self._call(name, record, tuple(self._output(*each) for each in needed))
            ready.extend(waiting.pop((name, number), ()))
        if waiting:
            names = sorted({name for each in waiting.values() for name, _, _ in each})
            raise ValueError(f"Layers with inputs that the model does not compute: {names}")
        return self._nodes(self._config["input_layers"]), self._nodes(self._config["output_layers"])

    def _call(self, name: str, record: Record, nodes: tuple[Any, ...]) -> Call | Parts:
        entry = self._entries[name]
        with layer_named(entry, [node for node in nodes if isinstance(node, Node)]):
            return self._made_call(name, entry, record, nodes)

    def _made_call(self, name: str, entry: Entry, record: Record, nodes: tuple[Any, ...]) -> Call | Parts:
        if is_operation(entry) and entry["class_name"] == "Shape":
            return Parts((Known(in_layout(nodes[0].shape, self._models.channels_first)),))
        if any(isinstance(node, Known) for node in nodes):
            if entry["class_name"] not in ("Reshape", "Resizing"):
                return Parts((of_known(name, entry["class_name"], nodes, record["args"]),))
            entry, record = self._with_sizes(entry, record, nodes[1:])
            nodes = nodes[:1]
        if is_operation(entry):
            first = self._models.channels_first and any(len(node.shape) == 4 for node in nodes)
            if entry["class_name"] in PARTED:
                return parts(name, entry["class_name"], nodes[0], entry["config"] | record["kwargs"], first)
            operation = operation_of(entry, record, first)
            return recorded_call(operation, self._models.taken(operation, nodes))
        if name not in self._made:
            layer = self._models.turned(self._models.layer(entry, [node.shape for node in nodes]), nodes, entry)
            self._configured[name] = self._models.padded(layer, nodes, self._shapes.get((name, 0)))
            self._made[name] = as_called(self._configured[name], record["kwargs"])
        layer = self._made[name]
        if as_called(self._configured[name], record["kwargs"]) != layer:
            raise ValueError(f"Layer {name!r} of kind {layer.class_name} is called in different ways")
        mode = self._models.mode(layer, record["kwargs"])
        call = recorded_call(layer, self._models.taken(layer, nodes), mode)
        self._models.check_wanted_shape(entry, call)
        return call

    def _with_sizes(self, entry: Entry, record: Record, known: Sequence[Any]) -> tuple[Entry, Record]:
        """Resolve the sizes of a Reshape or Resizing that the file computes from the shape of an array."""
        name, (x, *rest) = layer_name(entry), record["args"]
        sizes = known_sizes(name, rest[0], known)
        if entry["class_name"] == "Reshape" and sizes.count(None) <= 1 and (-1 not in sizes or None not in sizes):
            newshape = [-1 if size is None else size for size in sizes]
            return entry, {**record, "args": [x], "kwargs": {**record["kwargs"], "newshape": newshape}}
        if entry["class_name"] == "Resizing" and len(sizes) == 2 and None not in sizes:
            config = {**entry["config"], "height": sizes[0], "width": sizes[1]}
            return {**entry, "config": config}, {**record, "args": [x]}
        raise ValueError(f"{name} ({entry['class_name']} to free sizes {sizes}, which is not imported)")

    def _place(self, name: str, call: int) -> tuple[str, int]:
        return name, self._numbers.get(name, {}).get(call, call)

    def _end_calls(self, value: Any) -> list[tuple[str, int, int]]:
        return [(name, call_number(index, name in self._nested), output) for name, index, output in ends(value)]

    def _nodes(self, value: Any) -> list[Node]:
        nodes = [self._output(*self._place(name, call), output) for name, call, output in self._end_calls(value)]
        if not all(isinstance(node, Node) for node in nodes):
            raise ValueError("The model returns sizes of an array, which is not imported")
        return nodes

    def _output(self, name: str, number: int, output: int) -> Any:
        call = self._calls[name].get(number)
        if call is None or type(output) is not int or not 0 <= output < len(call.outputs):
            raise ValueError(f"Layer {name!r} has no output {output} of a call {number}, which the model refers to")
        return call.outputs[output]


def _says_channels_first(value: Any) -> bool:
    """Whether a layer inside a wrapper, at any depth, has channels_first images."""
    if isinstance(value, Mapping):
        return value.get("data_format") == "channels_first" or any(map(_says_channels_first, value.values()))
    return isinstance(value, list) and any(map(_says_channels_first, value))
