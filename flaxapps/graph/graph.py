"""The graph between given inputs and outputs, with layers in Keras's order.

Keras sorts `model.layers` by depth from the output, not by creation, and matches weight files by that order. The order
is therefore computed exactly as in Keras (keras/src/ops/function.py, `map_graph`).
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from flaxapps.graph.symbolic import Call, Layer, Node, Shape, Weight, join_recordings

Value = TypeVar("Value")


class LayerInGraph:
    """A layer with its calls in a graph. The config fields of the layer are attributes too.

    Attributes:
        layer: The configuration, a frozen dataclass.
        calls: The calls in the graph; more than one for a shared layer.
    """

    layer: Layer
    calls: tuple[Call, ...]

    def __init__(self, layer: Layer, calls: tuple[Call, ...]):
        self.__dict__.update(layer=layer, calls=calls)

    def __setattr__(self, name: str, value: Any) -> None:
        how = "make a layer with other options and build the model with it"
        if name == "trainable":  # Keras's way to freeze; set here, it would change nothing
            how = (
                f"give fit(frozen=train.frozen_layers(model, names=[{self.layer.name!r}])), or until= for all layers "
                "up to one"
            )
        raise AttributeError(f"Layers cannot be changed, so {self.layer.name!r} has no {name} to set: {how}")

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
        """Shape of the output, batch dimension (None) first; a list if `output` is one."""
        return [node.shape for node in self.output] if isinstance(self.output, list) else self.output.shape

    @property
    def weights(self) -> dict[str, Weight]:
        """The arrays the layer owns, keyed by leaf name, in Keras's order."""
        return self.layer.weights(*self.input_shapes)

    def __repr__(self) -> str:
        return f"<{self.layer.class_name} {self.layer.name} output_shape={self.output_shape}>"


class Step(NamedTuple):
    """One call as plain data. Values are numbered: the inputs of the graph first, then the outputs of every call."""

    layer: Layer
    inputs: tuple[int, ...]
    training: bool | None


class Graph:
    """The symbolic calls between inputs and outputs. Hashable; graphs of equal computations are equal.

    Attributes:
        inputs: The input nodes. Usually outputs of an InputLayer; any other node cuts the graph there.
        outputs: The output nodes.
        layers: The layers in Keras's order.
        steps: The calls in topological order.
        results: Numbers of the values that are the outputs.
    """

    def __init__(self, inputs: Iterable["Node"], outputs: Iterable["Node"]):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        join_recordings((*self.inputs, *self.outputs))  # unconnected nodes must share one set of names too
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

    def follow(self, inputs: Iterable[Value], visit: Callable[[Step, list[Value]], Iterable[Value]]) -> list[Value]:
        """Visits the steps in order, and returns a value for every output: arrays, shapes, or whatever `visit` returns.

        Args:
            inputs: A value for every input.
            visit: Takes a step and the values of its inputs; returns a value for every output of the step.
        """
        values = list(inputs)
        for step in self.steps:
            values += visit(step, [values[index] for index in step.inputs])
        return [values[index] for index in self.results]

    def new_inputs(self) -> list[Node]:
        """Creates new input nodes to rebuild the graph on, so that its own symbolic calls are not modified.

        An input that cuts another graph in the middle is returned itself.
        """
        return [node if node.call.inputs else Call(node.layer, ()).outputs[0] for node in self.inputs]

    def rebuild(self, replace: Callable[[Layer], Layer], inputs: Iterable[Node] | None = None) -> "Graph":
        """Records the graph again, with other layers. Shared layers stay shared.

        Args:
            replace: Takes a layer and returns the one in its place; called once for a layer with several calls.
            inputs: New input nodes; None takes `new_inputs()`.
        """
        sources = self.new_inputs() if inputs is None else list(inputs)
        replaced: dict[int, Layer] = {}

        def visit(step: Step, nodes: list[Node]) -> tuple[Node, ...]:
            key = id(step.layer)
            if key not in replaced:
                replaced[key] = replace(step.layer)
            return replaced[key].record(nodes, step.training).outputs

        return Graph(sources, self.follow(sources, visit))

    @functools.cached_property
    def _value(self) -> tuple[Any, ...]:
        sources = tuple(node.shape if node.call.inputs else node.layer for node in self.inputs)
        return sources, self.steps, self.results

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._value)

    def __getstate__(self) -> dict[str, Any]:
        # Cached hashes are invalid in another process, as Python randomizes hashes of strings.
        return {key: value for key, value in self.__dict__.items() if key not in ("_hash", "_value")}

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and hash(self) == hash(other) and self._value == other._value)


def source_inputs(node: Node) -> list[Node]:
    """Returns the Input nodes that `node` depends on, in depth-first order."""
    calls, _ = _traverse((), (node,))
    return [call.outputs[0] for call in calls if not call.inputs]


def _traverse(inputs: tuple[Node, ...], outputs: tuple[Node, ...]) -> tuple[list[Call], dict[int, int]]:
    """Walks depth-first from the outputs, along each call's inputs in order.

    Returns:
        The calls in post-order, which is a topological order, and the pre-order position of each layer by id.
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
    # Inputs that no output depends on are layers of the model too, as in Keras.
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
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise ValueError(
            f"Layer names must be unique, but several layers are called {repeated}. Give them other names, or call the "
            "whole model as one layer: model(node)."
        )
