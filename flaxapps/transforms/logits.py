"""Removal of a model's last activation: cross-entropies of logits are accurate where those of probabilities round."""

import copy
import dataclasses
from typing import Any

import jax

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Layer
from flaxapps.layers import activations
from flaxapps.model import Model

_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax", "sparse_sigmoid")
_SCORES = ("linear", "log_softmax")
_ENDING_IN_ACTIVATION = (
    layers.Dense,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
    layers.Activation,
)


def last_activation(model: Model, output: int | None = None) -> str | None:
    """Returns Keras's name of the last activation of a model.

    Args:
        model: The model; if a nested model comes last, its last layer counts.
        output: Index of the output; None for a model with one.

    Returns:
        The name; "linear" if the last layer could have an activation but has none; None if it is of another kind, or
        its activation is an unknown function.

    Raises:
        ValueError: The model has several outputs, and `output` does not say which.

    >>> x = layers.Input((4,))
    >>> last_activation(Model(x, layers.Dense(3, activation="softmax")(x)))
    'softmax'
    """
    if output is None and len(model.graph.outputs) != 1:
        raise ValueError(f"Losses need a model with one output, got {len(model.graph.outputs)} outputs")
    layer = _last_layer(model.graph, output or 0)
    return None if layer is None else _activation_name(layer)


def without_last_activation(model: Model, output: int | None = None) -> Model:
    """Returns the model without its last activation, with the same variables.

    Args:
        model: A model whose `last_activation` is not None.
        output: Index of the output; None for a model with one.

    Returns:
        A model with the same layer names, so that variables and frozen sets fit both.

    Raises:
        ValueError: `last_activation` is None, or another layer or output takes its result too.

    >>> x = layers.Input((4,))
    >>> last_activation(without_last_activation(Model(x, layers.Dense(3, activation="softmax")(x))))
    'linear'
    """
    if last_activation(model, output) is None or not ends_alone(model, output or 0):
        raise ValueError("The last layer of the model has no activation that could be removed")
    return Model(model.inputs, model.outputs, name=model.name, recorded=_linear_end(model.graph, output or 0))


def last_layer(model: Model, output: int = 0) -> Layer | None:
    """Returns the layer that computes an output, inside nested models; None if the output is an input.

    Args:
        model: The model.
        output: Index of the output.
    """
    return _last_layer(model.graph, output)


def ends_alone(model: Model, output: int) -> bool:
    """Whether nothing but this output takes what its last layer computes.

    Args:
        model: The model.
        output: Index of the output.
    """
    return _ends_alone(model.graph, output)


def with_softmax(model: Model) -> Model:
    """Returns the model with a softmax at its end, unless its outputs are probabilities already. Same variables.

    Args:
        model: A model with one output.

    Raises:
        ValueError: The model has several outputs.

    >>> x = layers.Input((4,))
    >>> last_activation(with_softmax(Model(x, layers.Dense(3)(x))))
    'softmax'
    """
    if holds_probabilities(last_activation(model)):
        return model
    return Model(model.input, layers.Activation("softmax")(model.output), name=model.name)


def holds_probabilities(activation: str | None) -> bool | None:
    """Whether outputs of this activation are probabilities; None if unknown."""
    return True if activation in _PROBABILITIES else False if activation in _SCORES else None


def _last_call(graph: Graph, output: int) -> tuple[int, int] | None:
    """Returns the step that computes an output, and which of its results that is; None if the output is an input."""
    end = len(graph.inputs)
    for index, step in enumerate(graph.steps):
        count = len(step.layer.graph.results) if isinstance(step.layer, layers.Functional) else 1
        if end <= graph.results[output] < end + count:
            return index, graph.results[output] - end
        end += count
    return None


def _last_layer(graph: Graph, output: int) -> Layer | None:
    found = _last_call(graph, output)
    if found is None:
        return None
    layer = graph.steps[found[0]].layer
    return _last_layer(layer.graph, found[1]) if isinstance(layer, layers.Functional) else layer


def _ends_alone(graph: Graph, output: int) -> bool:
    value = graph.results[output]
    found = _last_call(graph, output)
    users = [step for step in graph.steps if value in step.inputs]
    if found is None or users or graph.results.count(value) > 1:
        return False
    layer = graph.steps[found[0]].layer
    return not isinstance(layer, layers.Functional) or _ends_alone(layer.graph, found[1])


def _linear_end(graph: Graph, output: int) -> Graph:
    # Only the step changes, not the symbolic calls, so that other calls of a shared layer keep their activation.
    found = _last_call(graph, output)
    assert found is not None
    index, inner = found
    step = graph.steps[index]
    layer: Any = step.layer
    if isinstance(layer, layers.Functional):
        layer = dataclasses.replace(layer, graph=_linear_end(layer.graph, inner))
    elif isinstance(layer, layers.Softmax):
        layer = layers.Activation("linear", name=layer.name, dtype=layer.dtype)
    else:
        layer = dataclasses.replace(layer, activation="linear")
    changed = copy.copy(graph)
    changed.steps = (*graph.steps[:index], step._replace(layer=layer), *graph.steps[index + 1 :])
    return changed


def _activation_name(layer: Layer) -> str | None:
    if isinstance(layer, layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    if not isinstance(layer, _ENDING_IN_ACTIVATION):
        return None
    activation = layer.activation or "linear"
    if isinstance(activation, str):
        return activation
    if isinstance(activation, Layer):
        return _activation_name(activation)
    known = {activations.softmax: "softmax", jax.nn.softmax: "softmax", jax.nn.sigmoid: "sigmoid"}
    return known.get(activation)
