"""The scores a model computes before its last activation: cross-entropies of those are exact where others round."""

import copy
import dataclasses
from typing import Any

import jax

from flaxapps import activations, layers
from flaxapps.graph import Graph, Step
from flaxapps.model import Model
from flaxapps.recording import Layer

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


def last_activation(model: Model) -> str | None:
    """Keras's name of the activation that ends a model with one output.

    Args:
        model: The model; nested models are looked into.

    Returns:
        The name, "linear" where a layer that could have an activation has none, None where another kind of layer or
        an unknown function comes last.

    Raises:
        ValueError: The model has several outputs.

    >>> x = layers.Input((4,))
    >>> last_activation(Model(x, layers.Dense(3, activation="softmax")(x)))
    'softmax'
    """
    if len(model.graph.outputs) != 1:
        raise ValueError(f"Losses are of models with one output, got {len(model.graph.outputs)}")
    step = _last_step(model.graph)
    while step is not None and isinstance(step.layer, layers.Functional):
        step = _last_step(step.layer.graph)
    return None if step is None else _activation_name(step.layer)


def without_last_activation(model: Model) -> Model:
    """The model that computes what the last activation of `model` is applied to, from the same variables.

    Args:
        model: A model with one output, which `last_activation` knows.

    Returns:
        A model with the same layer names, so that variables and frozen sets fit both; hashable and equal as models are.

    Raises:
        ValueError: The last layer has no activation to take away.

    >>> x = layers.Input((4,))
    >>> last_activation(without_last_activation(Model(x, layers.Dense(3, activation="softmax")(x))))
    'linear'
    """
    if last_activation(model) is None:
        raise ValueError("The last layer of the model has no activation that could be taken away")
    return Model(model.inputs, model.outputs, name=model.name, recorded=_linear_end(model.graph))


def holds_probabilities(activation: str | None) -> bool | None:
    """Whether outputs of this activation are probabilities; None where its name does not tell."""
    return True if activation in _PROBABILITIES else False if activation in _SCORES else None


def _last_step(graph: Graph) -> Step | None:
    """The step that computes the only output; None where that is an input, or one of several outputs of a layer."""
    index = _last_index(graph)
    return None if index is None else graph.steps[index]


def _last_index(graph: Graph) -> int | None:
    end = len(graph.inputs)
    for index, step in enumerate(graph.steps):
        count = len(step.layer.graph.results) if isinstance(step.layer, layers.Functional) else 1
        if count == 1 and len(graph.results) == 1 and graph.results[0] == end:
            return index
        end += count
    return None


def _linear_end(graph: Graph) -> Graph:
    # Only the step changes, not the recording: a layer that is called elsewhere too keeps its activation there.
    index = _last_index(graph)
    assert index is not None
    step = graph.steps[index]
    layer: Any = step.layer
    if isinstance(layer, layers.Functional):
        layer = dataclasses.replace(layer, graph=_linear_end(layer.graph))
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
