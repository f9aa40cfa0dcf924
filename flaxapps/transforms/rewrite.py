"""Graph rewriting: a rule is called for every layer and keeps or replaces it."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.symbolic import Layer, Node, Weight, Weights, as_given, join_recordings
from flaxapps.graph.variables import fresh_variables, weight_paths
from flaxapps.layers import Functional
from flaxapps.model import Model, Network
from weight_port.trees import nest
from weight_port.writers import leaves

Path = tuple[str, ...]
Replacement = Node | tuple[Node, Mapping[str, Weights]] | None
Rule = Callable[[Layer, list[Node], Weights], Replacement]


def rewrite(model: Model, variables: Mapping[str, Any], rule: Rule) -> Network:
    """Replaces layers of a model. The given model and variables are not modified.

    Args:
        model: The network. Layers inside nested models are rewritten too.
        variables: Its arrays.
        rule: Called for every layer except models and inputs, in topological order, with the layer, its inputs (Nodes
            of the new model), and its arrays by leaf name. It returns

            - None to keep the layer,
            - a replacement Node, computed from the inputs with layers; one of the inputs removes the layer,
            - or such a Node and its arrays: `{layer name: {leaf: array}}`.

            The rule is called once for a shared layer, and the replacement is shared too.

    Returns:
        The new model and its variables. A new layer has the arrays of the rule, else those of the model for a layer of
        its name, else Keras's initial values.

    Raises:
        ValueError: The variables do not fit the model, or the arrays of a rule have wrong shapes or names; all are
            listed. Errors of layers whose inputs do not fit are passed on.

    Replace every relu by another activation:

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

    Add a probe after every convolution: a layer that returns its input and calls a function with it.

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
    """The model or a nested model, for rules that depend on the surroundings of a layer.

    Attributes:
        graph: The graph before rewriting.
        weights: The arrays of its layers, by layer and leaf name.
        training: Whether a call of this model, or of one around it, may fix training mode.
    """

    graph: Graph
    weights: Mapping[str, Weights]
    training: bool


def rewrite_levels(model: Model, variables: Mapping[str, Any], make_rule: Callable[[Level], Rule]) -> Network:
    """Rewrites a model with a separate rule for the model and for every nested one; see `rewrite`."""
    rewriter = _Rewriter(make_rule, model_arrays(model, variables))
    graph = rewriter.rewrite(model.graph, (), training=False)
    return Network(rebuilt_model(model, graph), rewriter.variables(graph))


def rebuilt_model(model: Model, graph: Graph) -> Model:
    """Creates a model of another graph, with the name of `model`, and lists of inputs and outputs if it has them."""
    return Model(as_given(model.inputs, graph.inputs), as_given(model.outputs, graph.outputs), name=model.name)


def model_arrays(model: Model, variables: Mapping[str, Any]) -> dict[Path, Any]:
    """Returns the arrays of a model by path, without the collection.

    Raises:
        ValueError: Arrays are missing or have another shape; all are listed.
    """
    arrays = dict(leaves(variables))
    paths = weight_paths(model.graph)
    _check(paths, arrays, "The variables are not those of the model")
    return {path[1:]: arrays[path] for path, _ in paths}


class _Rewriter:
    """State of one rewriting: the arrays of the model, and those given by the rules."""

    def __init__(self, make_rule: Callable[[Level], Rule], arrays: Mapping[Path, Any]):
        self.make_rule = make_rule
        self.arrays = arrays
        self.given: dict[Path, Any] = {}

    def rewrite(self, graph: Graph, above: Path, training: bool) -> Graph:
        """Rewrites the graph of a model nested in the layers `above`."""
        level = Level(graph, self._weights(graph, above), training)
        rule = self.make_rule(level)
        sources = graph.new_inputs()
        # Layers that a rule adds must not take the automatic name of a layer that is kept later.
        join_recordings(sources).reserved.update(step.layer.name or "" for step in graph.steps)
        calls = Counter(id(step.layer) for step in graph.steps)
        again: dict[int, Any] = {}  # replacements of shared layers

        def visit(step: Step, inputs: list[Node]) -> Iterable[Node]:
            layer = step.layer
            if isinstance(layer, Functional):
                if id(layer) not in again:
                    modes = {each.training for each in graph.steps if each.layer is layer}
                    inside = self.rewrite(layer.graph, (*above, layer.name or ""), training or True in modes)
                    again[id(layer)] = dataclasses.replace(layer, graph=inside)
                nodes: tuple[Node, ...] = again[id(layer)].record(inputs, step.training).outputs
                return nodes
            recorded = len(inputs[0].call.recording.calls)
            if id(layer) in again:
                (node,) = replay(again[id(layer)], inputs)
            else:
                node = self._replace(rule, layer, inputs, level.weights.get(layer.name or "", {}), above)
                if calls[id(layer)] > 1:
                    again[id(layer)] = Graph(inputs, [node])
            for call in node.call.recording.calls[recorded:]:
                call.training = step.training if call.training is None else call.training
            return [node]

        return Graph(sources, graph.follow(sources, visit))

    def variables(self, graph: Graph) -> dict[str, Any]:
        """Returns the variables of the new model."""
        paths = weight_paths(graph)
        arrays = {**self.arrays, **self.given}
        tree = {path: arrays[path[1:]] for path, _ in paths if path[1:] in arrays}
        _check([(path, weight) for path, weight in paths if path in tree], tree, "The rule gives wrong shapes")
        unknown = self.given.keys() - {path[1:] for path, _ in paths}
        if unknown:
            names = sorted("/".join(path) for path in unknown)
            raise ValueError(f"The rule gives arrays that no layer of the new model has: {', '.join(names)}")
        return fresh_variables(graph, 0, nest(tree))

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
        self.given |= {(*above, *path): array for path, array in leaves(given)}
        return node


def on_host(weights: Weights) -> dict[str, Any]:
    """Copies arrays to host memory for NumPy arithmetic, which does not compile. Tracers are kept."""
    return {leaf: array if isinstance(array, jax.core.Tracer) else np.asarray(array) for leaf, array in weights.items()}


def replay(graph: Graph, inputs: list[Node], training: bool | None = None) -> list[Node]:
    """Repeats the calls of a graph on other nodes, and returns the outputs.

    Args:
        graph: The graph.
        inputs: Nodes in place of its inputs.
        training: Mode for all calls; None keeps that of each call.
    """

    def visit(step: Step, nodes: list[Node]) -> tuple[Node, ...]:
        return step.layer.record(nodes, step.training if training is None else training).outputs

    return graph.follow(inputs, visit)


def _check(paths: list[tuple[Path, Weight]], arrays: Mapping[Path, Any], complaint: str) -> None:
    shapes = {path: getattr(arrays.get(path), "shape", "nothing") for path, _ in paths}
    wrong = [
        f"{'/'.join(path)}: {shapes[path]} instead of {weight.shape}"
        for path, weight in paths
        if shapes[path] != weight.shape
    ]
    if wrong:
        raise ValueError("\n  ".join([f"{complaint}:", *wrong]))
