"""The recorded graph: layers called on nodes, in Keras's order. Nothing is computed here.

A layer is a frozen dataclass whose fields are its Keras config. Calling one on a `Node` records a `Call` and infers
the output shape; `Graph` closes a recording between inputs and outputs into a value that hashes and compares.

Keras sorts `model.layers` by depth from the output, not by creation, and matches weight files by that order, so the
order is computed here exactly as in Keras (keras/src/ops/function.py, `map_graph`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax

from weight_port.naming import snake_case

Shape = tuple[int | None, ...]
Weights = Mapping[str, jax.Array]


class Weight(NamedTuple):
    """One array a layer owns: its shape, how Keras initializes it, and the variable collection it lives in."""

    shape: tuple[int, ...]
    initializer: str = "glorot_uniform"
    collection: str = "params"


@dataclass(frozen=True)
class Layer:
    """One layer kind with its configuration; subclasses add Keras's config keys as fields.

    Attributes:
        name: Key of the layer in the variable trees; None takes the name of a fresh Keras session (`conv2d_1`).
        dtype: Compute dtype; None computes in the dtype of the input.
    """

    name: str | None = field(default=None, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)
    # Keras names layers in the order in which they are made, not called: Dense(2)(Dense(3)(x)) makes the outer first.
    made: int = field(default_factory=itertools.count().__next__, init=False, repr=False, compare=False)
    listed: ClassVar[bool] = True  # Keras records `x + y` as a call too, but not as one of `model.layers`

    @property
    def class_name(self) -> str:
        """The Keras class, such as `"Conv2D"`."""
        return type(self).__name__

    def __call__(self, inputs: "Node | Sequence[Node]", *, training: bool | None = None) -> "Node":
        """Records a call of this layer.

        Args:
            inputs: A node, or a list of nodes for a merging layer.
            training: Fixes the mode of this call, as `layer(x, training=False)` does in Keras; None follows the model.

        Returns:
            The output node.

        Raises:
            ValueError: The layer does not fit inputs of these shapes.
        """
        return self.record(inputs, training).outputs[0]

    def record(self, inputs: "Node | Sequence[Node]", training: bool | None) -> "Call":
        """Records a call; `__call__` returns its output."""
        return Call(self, as_nodes(inputs, self.class_name), training)

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Shapes of all outputs for inputs of `shapes`; layers with one output define `output_shape`."""
        return (self.output_shape(*shapes),)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, batch dimension first, None where a dimension is free."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The arrays the layer owns for inputs of `shapes`, keyed by leaf name, in Keras's order."""
        return {}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Computes the output in inference mode."""
        raise NotImplementedError(f"{self.class_name} does not compute anything")

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the output in training mode, and the new values of the `batch_stats` that change.

        Args:
            weights: The layer's arrays by leaf name.
            *inputs: The input arrays.
            make_key: Gives a new random key at each call (the `dropout` stream of the model).
        """
        return self.call(weights, *inputs), {}


class Call:
    """One application of a layer to nodes. Calls have identity: equal layers on equal nodes are two calls."""

    def __init__(self, layer: Layer, inputs: "tuple[Node, ...]", training: bool | None = None):
        self.raw_layer = layer
        self.inputs = inputs
        self.training = training
        try:
            self.output_shapes = layer.output_shapes(*(node.shape for node in inputs))
        except Exception as error:
            name = repr(layer.name) if layer.name else "(not named yet)"
            error.add_note(f"In layer {name} of kind {layer.class_name}, on {[node.shape for node in inputs]}.")
            raise
        self.outputs = tuple(Node(self, index) for index in range(len(self.output_shapes)))
        self._recording = join_recordings(inputs)
        self._recording.calls.append(self)

    @property
    def recording(self) -> "Recording":
        """The recording this call belongs to now: recordings join where their nodes meet."""
        self._recording = self._recording.joined()
        return self._recording

    @property
    def layer(self) -> Layer:
        """The layer, with its name."""
        return self.recording.named(self.raw_layer)


class Node:
    """One output of a recorded call: a tensor that does not exist yet."""

    def __init__(self, call: Call, index: int):
        self.call = call
        self.index = index

    @property
    def shape(self) -> Shape:
        """Shape with the batch dimension first (None), channels last; None where a dimension is free."""
        return self.call.output_shapes[self.index]

    @property
    def layer(self) -> Layer:
        """The layer whose output this is."""
        return self.call.layer

    def __repr__(self) -> str:
        return f"<Node {self.layer.name}:{self.index} shape={self.shape}>"


class Recording:
    """All calls on nodes that grew from the same inputs: what automatic names are counted over.

    Keras counts over the session, which is global state. Counted over the connected calls, in the order their layers
    were made, the names of a network are the same whenever and wherever it is built. Names are given when first asked
    for and stay.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._named: dict[int, Layer] = {}
        self._joined: Recording | None = None

    def joined(self) -> "Recording":
        """The recording that this one has become part of."""
        return self if self._joined is None else self._joined.joined()

    def join(self, other: "Recording") -> "Recording":
        """Appends the calls of `other`, which is a part of this recording from now on."""
        if other is self:
            return self
        if not self.calls:
            return other
        self.calls += other.calls
        self._named = other._named | self._named
        other._joined = self
        return self

    def named(self, raw: Layer) -> Layer:
        """The layer with its name; all calls recorded so far get theirs now, in order."""
        if id(raw) not in self._named:
            layers = [call.raw_layer for call in self.calls]
            taken = {layer.name for layer in [*layers, *self._named.values()] if layer.name}
            for layer in sorted(layers, key=lambda layer: layer.made):
                if id(layer) not in self._named:
                    name = layer.name or next(name for name in _candidates(layer.class_name) if name not in taken)
                    taken.add(name)
                    self._named[id(layer)] = layer if layer.name else dataclasses.replace(layer, name=name)
        return self._named[id(raw)]

    def __getstate__(self) -> dict[str, Any]:
        raw = {id(call.raw_layer): call.raw_layer for call in self.calls}
        return {
            "calls": self.calls,
            "joined": self._joined,
            "named": [(raw[key], self._named[key]) for key in self._named],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.calls, self._joined = state["calls"], state["joined"]
        self._named = {id(raw): named for raw, named in state["named"]}  # in a copy, layers have other identities


def join_recordings(nodes: Iterable["Node"]) -> Recording:
    """The one recording of all nodes from now on."""
    return functools.reduce(Recording.join, (node.call.recording for node in nodes), Recording())


def as_nodes(value: Any, caller: str) -> tuple["Node", ...]:
    """A Node or a list of Nodes as a tuple.

    Raises:
        ValueError: It is neither.
    """
    nodes = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not nodes or not all(isinstance(node, Node) for node in nodes):
        raise ValueError(f"{caller} takes Nodes, which Input(...) and layers return, or a list of them; got {value!r}")
    return nodes


def _candidates(class_name: str) -> Iterator[str]:
    """Keras's automatic names for a class: `conv2d`, `conv2d_1`, ..."""
    base = snake_case(class_name)
    yield base
    number = 0
    while True:
        number += 1
        yield f"{base}_{number}"


class LayerInGraph:
    """A layer at its place in a graph: its config fields as attributes, and what the place adds.

    Attributes:
        layer: The configuration, a frozen dataclass.
        calls: Where the graph calls it; more than one for a shared layer.
    """

    def __init__(self, layer: Layer, calls: tuple[Call, ...]):
        self.layer = layer
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        if name == "layer":  # while unpickling, before __init__ has run
            raise AttributeError(name)
        return getattr(self.layer, name)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shapes of the inputs of the first call."""
        return tuple(node.shape for node in self.calls[0].inputs)

    @property
    def output(self) -> Any:
        """The output node, or a list of all of them for a layer with several outputs or several calls."""
        nodes = [node for call in self.calls for node in call.outputs]
        return nodes[0] if len(nodes) == 1 else nodes

    @property
    def output_shape(self) -> Any:
        """Shape of the output, batch dimension (None) first; a list where `output` is one."""
        return [node.shape for node in self.output] if isinstance(self.output, list) else self.output.shape

    @property
    def weights(self) -> dict[str, Weight]:
        """The arrays the layer owns, keyed by leaf name, in Keras's order."""
        return self.layer.weights(*self.input_shapes)

    def __repr__(self) -> str:
        return f"<{self.layer.class_name} {self.layer.name} output_shape={self.output_shape}>"


class Step(NamedTuple):
    """One call as plain data: values are numbered, the inputs of the graph first, then every call's outputs."""

    layer: Layer
    inputs: tuple[int, ...]
    training: bool | None


class Graph:
    """A part of a recording, closed between inputs and outputs: hashable, equal where it computes the same.

    Attributes:
        inputs: The input nodes. Usually outputs of an InputLayer; any other node cuts the graph there.
        outputs: The output nodes.
        layers: The layers in Keras's order.
        steps: The calls in an order in which they can be computed.
        results: Which values are the outputs.
    """

    def __init__(self, inputs: Iterable["Node"], outputs: Iterable["Node"]):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        join_recordings((*self.inputs, *self.outputs))  # they need not meet, but share one set of names
        calls, order = _traverse(self.inputs, self.outputs)
        self.layers = _keras_order(calls, order, self.inputs)
        number = {node: index for index, node in enumerate(self.inputs)}
        count = len(self.inputs)
        steps = []
        for call in calls:
            if call.inputs:
                steps.append(Step(call.layer, tuple(number[node] for node in call.inputs), call.training))
                for node in call.outputs:
                    number.setdefault(node, count)
                    count += 1
        self.steps = tuple(steps)
        self.results = tuple(number[node] for node in self.outputs)

    @functools.cached_property
    def _value(self) -> tuple[Any, ...]:
        sources = tuple(node.shape if node.call.inputs else node.layer for node in self.inputs)
        return sources, self.steps, self.results

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._value)

    def __getstate__(self) -> dict[str, Any]:
        # Hashes of strings differ between processes.
        return {key: value for key, value in self.__dict__.items() if key not in ("_hash", "_value")}

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and hash(self) == hash(other) and self._value == other._value)


def source_inputs(node: Node) -> list[Node]:
    """The Input nodes that `node` grew from, in the order they are met."""
    calls, _ = _traverse((), (node,))
    return [call.outputs[0] for call in calls if not call.inputs]


def _traverse(inputs: tuple[Node, ...], outputs: tuple[Node, ...]) -> tuple[list[Call], dict[int, int]]:
    """Walks depth-first from the outputs, along each call's inputs in order.

    Returns:
        The calls in post-order (computable one after the other), and the pre-order position of each layer, by id.
    """
    cut = {node for node in inputs if node.call.inputs}
    finished: list[Call] = []
    order: dict[int, int] = {}
    entered: set[Call] = set()
    stack: list[tuple[Call, Iterator[Node]]] = []

    def enter(node: Node) -> None:
        if node not in cut and node.call not in entered:
            entered.add(node.call)
            order.setdefault(id(node.call.layer), len(order))
            stack.append((node.call, iter(node.call.inputs)))

    for output in outputs:
        enter(output)
        while stack:
            call, remaining = stack[-1]
            node = next(remaining, None)
            if node is not None:
                enter(node)
            else:
                finished.append(call)
                stack.pop()
    return finished, order


def _keras_order(calls: list[Call], order: dict[int, int], inputs: tuple[Node, ...]) -> tuple[LayerInGraph, ...]:
    """Sorts the layers by depth from the output, deepest first; ties in pre-order of the traversal."""
    call_depth: dict[Call, int] = {}
    layer_depth: dict[int, int] = {}
    layer_calls: dict[int, list[Call]] = {}
    inside = set(calls)
    for call in reversed(calls):
        key = id(call.layer)
        depth = max(call_depth.get(call, 0), layer_depth.get(key, 0))
        call_depth[call] = layer_depth[key] = depth
        for node in call.inputs:
            if node.call in inside:
                call_depth[node.call] = max(depth + 1, call_depth.get(node.call, 0))
    for call in [node.call for node in inputs if node.call not in inside and not node.call.inputs] + calls:
        layer_calls.setdefault(id(call.layer), []).append(call)
    listed = [key for key, (first, *_) in layer_calls.items() if first.layer.listed]
    keys = sorted(listed, key=lambda key: (-layer_depth.get(key, 0), order.get(key, -1)))
    layers = tuple(LayerInGraph(layer_calls[key][0].layer, tuple(layer_calls[key])) for key in keys)
    _check(calls, layers, inputs)
    return layers


def _check(calls: list[Call], layers: tuple[LayerInGraph, ...], inputs: tuple[Node, ...]) -> None:
    given = {node.call for node in inputs}
    missing = [call.layer.name for call in calls if not call.inputs and call not in given]
    if missing:
        raise ValueError(f"The outputs depend on {missing}, which `inputs` does not list")
    names = [layer.name for layer in layers]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Layer names must be unique, but {repeated} stand for several layers. Give them other names, or call the "
            "whole model as one layer: model(node)."
        )
