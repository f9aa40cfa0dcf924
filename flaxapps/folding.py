"""Inference without BatchNormalization: its factor and offset go into the layer before it."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax

from flaxapps.graph import Step
from flaxapps.layers import BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Functional, SeparableConv2D
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.recording import Layer, Node, Weights
from flaxapps.rewriting import Level, Replacement, Rule, on_host, rewrite_levels

# The kernel that makes the outputs, by kind; exact kinds, for a subclass may compute something else.
KERNELS: Mapping[type[Layer], str] = {
    Conv2D: "kernel",
    Dense: "kernel",
    DepthwiseConv2D: "kernel",
    SeparableConv2D: "pointwise_kernel",
}


def fold_batch_norm(model: Model, variables: Mapping[str, Any]) -> Network:
    """A model that computes the same in inference mode, with fewer layers, and its variables.

    A BatchNormalization is folded into the Conv2D, DepthwiseConv2D, SeparableConv2D or Dense before it where that has
    no activation, feeds nothing else, is not an output, and neither of the two is called twice. Others stay. Layers
    keep their names; the given model and variables stay as they are.

    Args:
        model: The network.
        variables: Its arrays.

    Returns:
        The folded model and variables. Not for training: the statistics are part of the kernels.

    Raises:
        ValueError: The variables are not the model's.
    """
    return rewrite_levels(model, variables, _folding)


def _folding(level: Level) -> Rule:
    norms = _foldable(level)
    dropped = {norm.name for norm in norms.values()}

    def fold(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
        if layer.name in dropped:
            return inputs[0]
        norm = norms.get(layer.name)
        if norm is None:
            return None
        changes: dict[str, Any] = {"use_bias": True}
        merged = _merge(layer, weights, norm, level.weights[norm.name or ""])
        return dataclasses.replace(layer, **changes)(inputs), {layer.name or "": merged}

    return fold


def _foldable(level: Level) -> dict[str | None, BatchNormalization]:
    """The BatchNormalization that can be folded, by the name of the layer before it."""
    graph, training = level.graph, level.training
    calls = Counter(step.layer.name for step in graph.steps)
    uses = Counter([value for step in graph.steps for value in step.inputs] + list(graph.results))
    makers: list[Step | None] = [None] * len(graph.inputs)
    found = {}
    for step in graph.steps:
        makers += [step] * (len(step.layer.graph.results) if isinstance(step.layer, Functional) else 1)
        before, layer = makers[step.inputs[0]], step.layer
        if (
            type(layer) is BatchNormalization
            and before is not None
            and not (step.training or (training and step.training is None))
            and calls[layer.name] == calls[before.layer.name] == uses[step.inputs[0]] == 1
            and _takes(before.layer, layer)
        ):
            found[before.layer.name] = layer
    return found


def _takes(layer: Layer, norm: BatchNormalization) -> bool:
    plain = type(layer) in KERNELS and getattr(layer, "activation", None) in (None, "linear")
    return plain and norm.dtype in (None, layer.dtype)  # the axis is the last: a BatchNormalization takes no other


def _merge(layer: Layer, weights: Weights, norm: BatchNormalization, statistics: Weights) -> dict[str, jax.Array]:
    """The arrays of the layer, with a bias, after they have taken up those of the BatchNormalization."""
    arrays, moving = on_host(weights), on_host(statistics)
    factor = 1 / (moving["var"] + norm.epsilon) ** 0.5
    factor = factor * moving["scale"] if norm.scale else factor
    offset = -moving["mean"] * factor
    offset = offset + moving["bias"] if norm.center else offset
    leaf = KERNELS[type(layer)]
    kernel = arrays[leaf]
    # The outputs of a depthwise convolution are numbered by channel and multiplier, its last two axes.
    shape = kernel.shape[-2:] if type(layer) is DepthwiseConv2D else kernel.shape[-1:]
    bias = arrays["bias"] * factor + offset if "bias" in arrays else offset
    changed: dict[str, jax.Array] = jax.device_put({leaf: kernel * factor.reshape(shape), "bias": bias})
    return {**weights, **changed}
