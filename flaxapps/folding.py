"""Inference without BatchNormalization: its factor and offset go into the layer before it."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from flaxapps.graph import Graph, Step
from flaxapps.layers import BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Functional, SeparableConv2D
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.recording import Call, Layer, Node

Path = tuple[str, ...]
_flatten: Any = traverse_util.flatten_dict  # Flax leaves these two untyped
_unflatten: Any = traverse_util.unflatten_dict
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
    """
    arrays: dict[Path, Any] = _flatten(dict(variables))
    graph = _fold(model.graph, arrays, (), training=False)
    inputs, outputs = (
        nodes[0] if isinstance(given, Node) else list(nodes)
        for nodes, given in ((graph.inputs, model.inputs), (graph.outputs, model.outputs))
    )
    return Network(Model(inputs, outputs, name=model.name), _unflatten(arrays))


def _fold(graph: Graph, arrays: dict[Path, Any], above: Path, training: bool) -> Graph:
    """The graph without the BatchNormalization that can be folded; changes `arrays` with it."""
    calls = Counter(step.layer.name for step in graph.steps)
    uses = Counter([value for step in graph.steps for value in step.inputs] + list(graph.results))
    makers: list[Step | None] = [None] * len(graph.inputs)
    for step in graph.steps:
        makers += [step] * (len(step.layer.graph.results) if isinstance(step.layer, Functional) else 1)
    replaced: dict[str | None, Layer] = {}
    dropped = set()
    for step in graph.steps:
        before, layer = makers[step.inputs[0]], step.layer
        if isinstance(layer, Functional) and layer.name not in replaced:
            modes = {each.training for each in graph.steps if each.layer.name == layer.name}
            inside = _fold(layer.graph, arrays, (*above, layer.name or ""), training or True in modes)
            replaced[layer.name] = dataclasses.replace(layer, graph=inside)
        elif (
            type(layer) is BatchNormalization
            and before is not None
            and not (step.training or (training and step.training is None))
            and calls[layer.name] == calls[before.layer.name] == uses[step.inputs[0]] == 1
            and _takes(before.layer, layer)
        ):
            replaced[before.layer.name] = _merge(before.layer, layer, arrays, above)
            dropped.add(layer.name)
    # New inputs: the recording of the given model stays as it is. Where it was cut elsewhere, the node is the place.
    sources = [node if node.call.inputs else Call(node.layer, ()).outputs[0] for node in graph.inputs]
    values = list(sources)
    for step in graph.steps:
        inputs = [values[index] for index in step.inputs]
        if step.layer.name in dropped:
            values += inputs
        else:
            values += replaced.get(step.layer.name, step.layer).record(inputs, step.training).outputs
    return Graph(sources, [values[index] for index in graph.results])


def _takes(layer: Layer, norm: BatchNormalization) -> bool:
    plain = type(layer) in KERNELS and getattr(layer, "activation", None) in (None, "linear")
    return plain and norm.dtype in (None, layer.dtype)  # the axis is the last: a BatchNormalization takes no other


def _merge(layer: Layer, norm: BatchNormalization, arrays: dict[Path, Any], above: Path) -> Layer:
    """The layer with a bias; its arrays take up those of the BatchNormalization, which are removed."""
    own, other = ("params", *above, layer.name or ""), (*above, norm.name or "")
    mean, var = (arrays.pop(("batch_stats", *other, leaf)) for leaf in ("mean", "var"))
    factor = jax.lax.rsqrt(jnp.asarray(var) + norm.epsilon)
    factor = factor * arrays.pop(("params", *other, "scale")) if norm.scale else factor
    offset = -mean * factor
    offset = offset + arrays.pop(("params", *other, "bias")) if norm.center else offset
    path = (*own, KERNELS[type(layer)])
    kernel = jnp.asarray(arrays[path])
    # The outputs of a depthwise convolution are numbered by channel and multiplier, its last two axes.
    shape = kernel.shape[-2:] if type(layer) is DepthwiseConv2D else kernel.shape[-1:]
    arrays[path] = kernel * factor.reshape(shape)
    bias = (*own, "bias")
    arrays[bias] = arrays[bias] * factor + offset if bias in arrays else offset
    changes: dict[str, Any] = {"use_bias": True}
    return dataclasses.replace(layer, **changes)
