"""Models from models: every layer is kept, or replaced by what a rule makes of it."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from flaxapps.graph import Graph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.recording import Call, Layer, Node, Weight, Weights, join_recordings
from flaxapps.variables import fresh_variables, weight_paths

Path = tuple[str, ...]
Replacement = Node | tuple[Node, Mapping[str, Weights]] | None
Rule = Callable[[Layer, list[Node], Weights], Replacement]
_flatten: Any = traverse_util.flatten_dict  # Flax leaves these two untyped
unflatten: Any = traverse_util.unflatten_dict


def rewrite(model: Model, variables: Mapping[str, Any], rule: Rule) -> Network:
    """A model in which layers are replaced, and its variables. The given ones stay as they are.

    Args:
        model: The network. Layers inside nested models are rewritten too.
        variables: Its arrays.
        rule: Called with every layer that is no model and no input, in an order in which they can be computed: the
            layer, its inputs (Nodes of the new model), and its arrays by leaf name. It returns

            - None to keep the layer,
            - the Node that takes its place, made with layers on the inputs; one of the inputs removes the layer,
            - or that Node and arrays: `{layer name: {leaf: array}}`.

            A layer that the model calls several times is shown once, and so is what takes its place shared.

    Returns:
        The new model and its variables. A new layer has the arrays the rule gave, else those the model had for a layer
        of its name, else Keras's initial values.

    Raises:
        ValueError: The variables are not the model's, or a new layer's arrays have wrong shapes or names; all are
            listed. What layers say about inputs that do not fit is raised as it is.

    Another activation wherever there is a relu:

    >>> import dataclasses
    >>> import jax.numpy as jnp
    >>> from flaxapps import Input, layers
    >>> x = Input((8, 8, 3))
    >>> y = layers.Activation("relu", name="relu")(layers.Conv2D(4, 3, name="conv")(x))
    >>> model = Model(x, y)
    >>> def smooth(layer, inputs, weights):
    ...     if getattr(layer, "activation", None) == "relu":
    ...         return dataclasses.replace(layer, activation="gelu")(inputs)
    >>> model, variables = rewrite(model, model.init_variables(), smooth)
    >>> [getattr(layer, "activation", None) for layer in model.layers]
    [None, None, 'gelu']

    A probe after every convolution: a layer that computes nothing, but calls a function with what passes through.

    >>> shapes = []
    >>> def probe(layer, inputs, weights):
    ...     def note(x):
    ...         shapes.append((layer.name, x.shape))
    ...         return x
    ...     if isinstance(layer, layers.Conv2D):
    ...         return layers.Activation(note, name=f"{layer.name}_probe")(layer(inputs))
    >>> model, variables = rewrite(model, variables, probe)
    >>> _ = model.apply(variables, jnp.zeros((1, 8, 8, 3)))
    >>> shapes
    [('conv', (1, 6, 6, 4))]
    """
    return rewrite_levels(model, variables, lambda level: rule)


class Level(NamedTuple):
    """A model, or a model nested in it, for rules that depend on what is around a layer.

    Attributes:
        graph: The calls, before they are rewritten.
        weights: The arrays of its layers, by the layer's and the leaf's name.
        training: Whether a call around it fixes training mode, so that its layers may be in it.
    """

    graph: Graph
    weights: Mapping[str, Weights]
    training: bool


def rewrite_levels(model: Model, variables: Mapping[str, Any], make_rule: Callable[[Level], Rule]) -> Network:
    """`rewrite` with a rule of its own for the model and for every model nested in it."""
    rewriter = _Rewriter(make_rule, model_arrays(model, variables))
    graph = rewriter.rewrite(model.graph, (), training=False)
    return Network(rebuilt_model(model, graph), rewriter.variables(graph))


def rebuilt_model(model: Model, graph: Graph) -> Model:
    """The model with another graph: it keeps its name, and returns a list where it did."""
    inputs, outputs = (
        nodes[0] if isinstance(value, Node) else list(nodes)
        for nodes, value in ((graph.inputs, model.inputs), (graph.outputs, model.outputs))
    )
    return Model(inputs, outputs, name=model.name)


def model_arrays(model: Model, variables: Mapping[str, Any]) -> dict[Path, Any]:
    """The arrays of a model by the names of the layers around them and of the leaf.

    Raises:
        ValueError: Some are missing or have another shape; all are listed.
    """
    arrays = _flatten(dict(variables))
    paths = weight_paths(model.graph)
    _check(paths, arrays, "The variables are not those of the model")
    return {path[1:]: arrays[path] for path, _ in paths}


def new_inputs(graph: Graph) -> list[Node]:
    """Nodes to build a graph anew on, so that the recording of the given one stays as it is.

    Where it was cut in the middle of another graph, the node itself is the place.
    """
    return [node if node.call.inputs else Call(node.layer, ()).outputs[0] for node in graph.inputs]


class _Rewriter:
    """One rewriting of a model: its arrays, and those the rules give on the way."""

    def __init__(self, make_rule: Callable[[Level], Rule], arrays: Mapping[Path, Any]):
        self.make_rule = make_rule
        self.arrays = arrays
        self.given: dict[Path, Any] = {}

    def rewrite(self, graph: Graph, above: Path, training: bool) -> Graph:
        """The new graph of a model that is nested in the layers `above`."""
        level = Level(graph, self._weights(graph, above), training)
        rule = self.make_rule(level)
        sources = new_inputs(graph)
        join_recordings(sources).reserved.update(step.layer.name or "" for step in graph.steps)
        values = list(sources)
        calls = Counter(id(step.layer) for step in graph.steps)
        again: dict[int, Any] = {}  # what layers have become that are called again
        for step in graph.steps:
            layer, inputs = step.layer, [values[index] for index in step.inputs]
            if isinstance(layer, Functional):
                if id(layer) not in again:
                    modes = {each.training for each in graph.steps if each.layer is layer}
                    inside = self.rewrite(layer.graph, (*above, layer.name or ""), training or True in modes)
                    again[id(layer)] = dataclasses.replace(layer, graph=inside)
                values += again[id(layer)].record(inputs, step.training).outputs
                continue
            recorded = len(inputs[0].call.recording.calls)
            if id(layer) in again:
                (node,) = replay(again[id(layer)], inputs)
            else:
                node = self._replace(rule, layer, inputs, level.weights.get(layer.name or "", {}), above)
                if calls[id(layer)] > 1:
                    again[id(layer)] = Graph(inputs, [node])
            for call in node.call.recording.calls[recorded:]:
                call.training = step.training if call.training is None else call.training
            values.append(node)
        return Graph(sources, [values[index] for index in graph.results])

    def variables(self, graph: Graph) -> dict[str, Any]:
        """The variables of the new model."""
        paths = weight_paths(graph)
        arrays = {**self.arrays, **self.given}
        tree = {path: arrays[path[1:]] for path, _ in paths if path[1:] in arrays}
        _check([(path, weight) for path, weight in paths if path in tree], tree, "The rule gives wrong shapes")
        unknown = self.given.keys() - {path[1:] for path, _ in paths}
        if unknown:
            names = sorted("/".join(path) for path in unknown)
            raise ValueError(f"The rule gives arrays that no layer of the new model has: {', '.join(names)}")
        return fresh_variables(graph, 0, unflatten(tree))

    def _weights(self, graph: Graph, above: Path) -> dict[str, Weights]:
        names = {layer.name: layer.weights for layer in graph.layers}
        return {name: {leaf: self.arrays[*above, name, leaf] for leaf in weights} for name, weights in names.items()}

    def _replace(self, rule: Rule, layer: Layer, inputs: list[Node], weights: Weights, above: Path) -> Node:
        try:
            replacement = rule(layer, inputs, weights)
        except Exception as error:
            error.add_note(f"While rewriting layer {layer.name!r} of kind {layer.class_name}.")
            raise
        if replacement is None:
            return layer(inputs)
        node, given = (replacement, {}) if isinstance(replacement, Node) else replacement
        self.given |= {(*above, *path): array for path, array in _flatten(dict(given)).items()}
        return node


def on_host(weights: Weights) -> dict[str, Any]:
    """Arrays for arithmetic in NumPy, which compiles nothing; traced ones stay as they are."""
    return {leaf: array if isinstance(array, jax.core.Tracer) else np.asarray(array) for leaf, array in weights.items()}


def replay(graph: Graph, inputs: list[Node], training: bool | None = None) -> list[Node]:
    """Records the calls of a graph on other nodes; the outputs.

    Args:
        graph: The graph.
        inputs: What stands for its inputs.
        training: The mode that every call is fixed to; None keeps what each of them says.
    """
    values = list(inputs)
    for step in graph.steps:
        mode = step.training if training is None else training
        values += step.layer.record([values[index] for index in step.inputs], mode).outputs
    return [values[index] for index in graph.results]


def _check(paths: list[tuple[Path, Weight]], arrays: Mapping[Path, Any], complaint: str) -> None:
    shapes = {path: getattr(arrays.get(path), "shape", "nothing") for path, _ in paths}
    wrong = [
        f"{'/'.join(path)}: {shapes[path]} instead of {weight.shape}"
        for path, weight in paths
        if shapes[path] != weight.shape
    ]
    if wrong:
        raise ValueError("\n  ".join([f"{complaint}:", *wrong]))
