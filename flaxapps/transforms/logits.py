"""Removal of a model's last activation: cross-entropies of logits are accurate where those of probabilities round."""

import copy
import dataclasses
from typing import Any

import jax

from flaxapps import layers
from flaxapps.graph.graph import Graph, Step
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


def last_activation(model: Model) -> str | None:
    """Returns Keras's name of the last activation of a model with one output.

    Args:
        model: The model; if a nested model comes last, its last layer counts.

    Returns:
        The name; "linear" if the last layer could have an activation but has none; None if it is of another kind, or
        its activation is an unknown function.

    Raises:
        ValueError: The model has several outputs.

    >>> x = layers.Input((4,))
    >>> last_activation(Model(x, layers.Dense(3, activation="softmax")(x)))
    'softmax'
    """
    if len(model.graph.outputs) != 1:
        raise ValueError(f"Losses need a model with one output, got {len(model.graph.outputs)} outputs")
    step = _last_step(model.graph)
    while step is not None and isinstance(step.layer, layers.Functional):
        step = _last_step(step.layer.graph)
    return None if step is None else _activation_name(step.layer)


def without_last_activation(model: Model) -> Model:
    """Returns the model without its last activation, with the same variables.

    Args:
        model: A model with one output, whose `last_activation` is not None.

    Returns:
        A model with the same layer names, so that variables and frozen sets fit both.

    Raises:
        ValueError: `last_activation` is None.

    >>> x = layers.Input((4,))
    >>> last_activation(without_last_activation(Model(x, layers.Dense(3, activation="softmax")(x))))
    'linear'
    """
    if last_activation(model) is None:
        raise ValueError("The last layer of the model has no activation that could be removed")
    return Model(model.inputs, model.outputs, name=model.name, recorded=_linear_end(model.graph))


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


def _last_step(graph: Graph) -> Step | None:
    """Returns the step that computes the only output; None if it is an input, or one of several outputs of a layer."""
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
    # Only the step changes, not the symbolic calls, so that other calls of a shared layer keep their activation.
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
