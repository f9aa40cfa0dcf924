"""Folds BatchNormalization into the preceding convolution or dense layer."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax

from flaxapps.graph.graph import Step
from flaxapps.graph.symbolic import Layer, Node, Weights
from flaxapps.layers import BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Functional, SeparableConv2D
from flaxapps.model import Model, Network
from flaxapps.transforms.rewrite import Level, Replacement, Rule, on_host, rewrite_levels

# Name of the kernel to scale, by class. Classes are compared exactly, as a subclass may compute something else.
KERNELS: Mapping[type[Layer], str] = {
    Conv2D: "kernel",
    Dense: "kernel",
    DepthwiseConv2D: "kernel",
    SeparableConv2D: "pointwise_kernel",
}


def fold_batch_norm(model: Model, variables: Mapping[str, Any]) -> Network:
    """Folds BatchNormalization into preceding layers. The outputs in inference mode stay the same, up to rounding.

    A BatchNormalization is folded into the preceding Conv2D, DepthwiseConv2D, SeparableConv2D or Dense if that has no
    activation, feeds no other layer and is not an output, and if neither of the two is called twice. Others are kept.
    Layers keep their names. The given model and variables are not modified.

    Args:
        model: The network.
        variables: Its arrays.

    Returns:
        The folded model and variables. Not for training, as the statistics are part of the kernels.

    Raises:
        ValueError: The variables do not fit the model.
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
    """Finds the BatchNormalization layers that can be folded, by the name of the preceding layer."""
    graph, training = level.graph, level.training
    calls = Counter(step.layer.name for step in graph.steps)
    uses = Counter([value for step in graph.steps for value in step.inputs] + list(graph.results))
    found = {}

    def visit(step: Step, makers: list[Step | None]) -> list[Step | None]:
        before, layer = makers[0], step.layer
        if (
            type(layer) is BatchNormalization
            and before is not None
            and not (step.training or (training and step.training is None))
            and calls[layer.name] == calls[before.layer.name] == uses[step.inputs[0]] == 1
            and _takes(before.layer, layer)
        ):
            found[before.layer.name] = layer
        return [step] * (len(layer.graph.results) if isinstance(layer, Functional) else 1)

    graph.follow([None] * len(graph.inputs), visit)
    return found


def _takes(layer: Layer, norm: BatchNormalization) -> bool:
    plain = type(layer) in KERNELS and getattr(layer, "activation", None) in (None, "linear")
    last = norm.axis == -1 or (norm.axis == 3 and type(layer) is not Dense)
    return plain and last and norm.dtype in (None, layer.dtype)


def _merge(layer: Layer, weights: Weights, norm: BatchNormalization, statistics: Weights) -> dict[str, jax.Array]:
    """Merges the arrays of a BatchNormalization into those of the layer, which then has a bias."""
    arrays, moving = on_host(weights), on_host(statistics)
    factor = 1 / (moving["var"] + norm.epsilon) ** 0.5
    factor = factor * moving["scale"] if norm.scale else factor
    offset = -moving["mean"] * factor
    offset = offset + moving["bias"] if norm.center else offset
    leaf = KERNELS[type(layer)]
    kernel = arrays[leaf]
    # Output channels of a depthwise convolution are (channel, multiplier) pairs, the last two axes of the kernel.
    shape = kernel.shape[-2:] if type(layer) is DepthwiseConv2D else kernel.shape[-1:]
    bias = arrays["bias"] * factor + offset if "bias" in arrays else offset
    changed: dict[str, jax.Array] = jax.device_put({leaf: kernel * factor.reshape(shape), "bias": bias})
    return {**weights, **changed}
