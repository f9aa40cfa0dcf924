"""Rebuilds a network with int8 layers, given the ranges of its tensors."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from flaxapps import layers
from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.symbolic import Layer, Node, Weights, join_recordings
from flaxapps.graph.variables import weight_paths
from flaxapps.layers.activations import ActivationLike
from flaxapps.model import Model, Network
from flaxapps.ops.int8 import HIGHEST, LOWEST
from flaxapps.quantization.calibrate import Path, Range, scale_and_zero_point
from flaxapps.quantization.storage import Key, Storage, plan_storage, value_numbers
from flaxapps.transforms.rewrite import model_arrays, on_host, rebuilt_model
from weight_port.trees import nest

Scale = tuple[float, int]  # scale and zero point


def quantize_layers(
    model: Model, variables: Mapping[str, Any], ranges: Mapping[Key, Range], kept: Iterable[str] = ()
) -> Network:
    """Quantizes the layers of a network that suit int8.

    Args:
        model: The network, without foldable BatchNormalization and SeparableConv2D.
        variables: Its arrays.
        ranges: From `measure_ranges` of this network.
        kept: Names of layers that stay in floating point; "outer/inner" inside nested models.
    """
    rebuilder = _Rebuilder(model_arrays(model, variables), ranges, frozenset(kept))
    graph = rebuilder.rebuild(model.graph, (), training=False)
    arrays = {path: rebuilder.arrays[path[1:]] for path, _ in weight_paths(graph)}
    return Network(rebuilt_model(model, graph), nest(arrays))


def is_relu(activation: ActivationLike | None) -> bool:
    """Whether an activation, also as a layer, is a relu without an upper bound."""
    if type(activation) is layers.Activation:
        return is_relu(activation.activation)
    if type(activation) is layers.ReLU:
        return (activation.max_value, activation.negative_slope, activation.threshold) == (None, 0, 0)
    return activation == "relu" or activation is jax.nn.relu


class _Rebuilder:
    """State of one quantization: the arrays of the given and of the new network, by path."""

    def __init__(self, arrays: Mapping[Path, Any], ranges: Mapping[Key, Range], kept: frozenset[str]):
        self.arrays = dict(arrays)
        self.ranges = ranges
        self.kept = kept

    def rebuild(self, graph: Graph, above: Path, training: bool) -> Graph:
        """Rebuilds the graph of a model nested in the layers `above`."""
        # Nothing is inside a nested model that is called several times.
        measured = any(path == above for path, _ in self.ranges)
        storage = plan_storage(graph, training, lambda name: not measured or "/".join((*above, name)) in self.kept)
        sources = graph.new_inputs()
        join_recordings(sources).reserved.update(step.layer.name or "" for step in graph.steps)
        tensors = _Tensors(self, above, graph, self._scales(storage, above))
        for value, node in enumerate(sources):
            tensors.add(value, node, node.layer.name)
        again: dict[int, Layer] = {}  # nested models, so that shared ones stay shared
        for number, (step, outputs) in enumerate(zip(graph.steps, value_numbers(graph), strict=True)):
            layer = step.layer
            if isinstance(layer, layers.Functional):
                if id(layer) not in again:
                    modes = {each.training for each in graph.steps if each.layer is layer}
                    inside = self.rebuild(layer.graph, (*above, layer.name or ""), training or True in modes)
                    again[id(layer)] = dataclasses.replace(layer, graph=inside)
                nodes = again[id(layer)].record(list(map(tensors.real, step.inputs)), step.training).outputs
            elif number in storage.quantized:
                nodes = (tensors.quantized(step, outputs[0]),)
            elif number in storage.moved:
                tensors.move(step, outputs[0])
                continue
            elif tensors.cuts_negative(outputs[0], layer):
                nodes = (tensors.real(step.inputs[0]),)
            else:
                nodes = layer.record(list(map(tensors.real, step.inputs)), step.training).outputs
            for value, node in zip(outputs, nodes, strict=True):
                tensors.add(value, node, layer.name)
        return Graph(sources, [tensors.real(value) for value in graph.results])

    def _scales(self, storage: Storage, above: Path) -> dict[int, Scale]:
        """Returns scale and zero point of every int8 tensor: those of the range of all tensors that share them."""
        joined: dict[int, Range] = {}
        for value, group in storage.groups.items():
            low, high = self.ranges[above, value]
            before = joined.get(group, (low, high))
            joined[group] = min(before[0], low), max(before[1], high)
        return {value: scale_and_zero_point(*joined[group]) for value, group in storage.groups.items()}


class _Tensors:
    """The tensors of a graph that is rebuilt, as nodes: in float32, in int8 or both."""

    def __init__(self, rebuilder: _Rebuilder, above: Path, graph: Graph, scales: dict[int, Scale]):
        self.rebuilder = rebuilder
        self.above = above
        self.scales = scales
        self.reals: dict[int, Node] = {}
        self.wholes: dict[int, Node] = {}
        self.names: set[str | None] = {step.layer.name for step in graph.steps} | {
            node.layer.name for node in graph.inputs
        }

    def add(self, value: int, node: Node, name: str | None) -> None:
        """Adds a tensor in floating point, of the layer of this name; it is rounded to int8 if it is stored in it."""
        if value not in self.scales:
            self.reals[value] = node
            return
        scale, zero_point = self.scales[value]
        layer = layers.Quantize(zero_point, name=self._name(f"{name}_quantize"))
        self._give(layer.name, {"scale": np.float32(scale)})
        self.wholes[value] = layer(node)

    def real(self, value: int) -> Node:
        """Returns a tensor in floating point. One that is stored in int8 is read from there."""
        if value not in self.reals:
            scale, zero_point = self.scales[value]
            node = self.wholes[value]
            name = (node.layer.name or "").removesuffix("_quantize")
            layer = layers.Dequantize(zero_point, name=self._name(f"{name}_dequantize"))
            self._give(layer.name, {"scale": np.float32(scale)})
            self.reals[value] = layer(node)
        return self.reals[value]

    def cuts_negative(self, value: int, activation: ActivationLike | None) -> bool:
        """Whether an activation is a relu, and rounding its result to int8 cuts negative numbers off anyway."""
        return value in self.scales and self.scales[value][1] == LOWEST and is_relu(activation)

    def quantized(self, step: Step, value: int) -> Node:
        """Computes a convolution or dense layer from an int8 tensor."""
        layer: Any = step.layer
        scale, zero_point = self.scales[step.inputs[0]]
        source = self.wholes[step.inputs[0]]
        arrays = self.rebuilder.arrays
        weights = {leaf: arrays.pop((*self.above, layer.name, leaf)) for leaf in layer.weights(source.shape)}
        kind = KINDS[type(layer)]
        shared = {field.name for field in dataclasses.fields(kind) if field.init} - {"zero_point", "dtype", "as_floats"}
        options = {name: getattr(layer, name) for name in shared}
        if self.cuts_negative(value, layer.activation):
            options["activation"] = None
        if kind is not layers.QuantizedDense:
            options["zero_point"] = zero_point
        convert = depthwise_arrays if type(layer) is layers.DepthwiseConv2D else product_arrays
        self._give(layer.name, convert(weights, scale, zero_point))
        node: Node = kind(**options)(source)
        return node

    def move(self, step: Step, value: int) -> None:
        """Rearranges int8 tensors that share one scale."""
        layer: Any = step.layer
        _, zero_point = self.scales[value]
        kind = MOVING_KINDS.get(type(layer))
        if kind:
            names = {field.name for field in dataclasses.fields(type(layer)) if field.init}
            layer = kind(**{name: getattr(layer, name) for name in names}, zero_point=zero_point)
        self.wholes[value] = layer([self.wholes[index] for index in step.inputs])

    def _name(self, wanted: str) -> str:
        name = next(name for name in (wanted, *(f"{wanted}_{n}" for n in range(1, 9999))) if name not in self.names)
        self.names.add(name)
        return name

    def _give(self, name: str | None, arrays: Mapping[str, Any]) -> None:
        for leaf, array in arrays.items():
            self.rebuilder.arrays[*self.above, name or "", leaf] = jax.device_put(array)


KINDS: Mapping[type[Layer], Any] = {
    layers.Conv2D: layers.QuantizedConv2D,
    layers.Dense: layers.QuantizedDense,
    layers.DepthwiseConv2D: layers.QuantizedDepthwiseConv2D,
}


MOVING_KINDS: Mapping[type[Layer], Any] = {
    layers.AveragePooling2D: layers.QuantizedAveragePooling2D,
    layers.ZeroPadding2D: layers.QuantizedZeroPadding2D,
}


def product_arrays(weights: Weights, scale: float, zero_point: int) -> dict[str, Any]:
    """Rounds the kernel of a convolution or dense layer, symmetrically for every output channel.

    Args:
        weights: The arrays of the layer in floating point.
        scale: Scale of its inputs.
        zero_point: Zero point of its inputs. What it adds to the products is subtracted from the bias.
    """
    arrays = on_host(weights)
    kernel = arrays["kernel"].astype(np.float64)
    inner = tuple(range(kernel.ndim - 1))
    steps = abs(kernel).max(inner) / HIGHEST
    steps[steps == 0] = 1.0
    whole = np.rint(kernel / steps).astype(np.int8)
    factor = scale * steps
    bias = arrays.get("bias", 0.0) - factor * zero_point * whole.sum(inner, dtype=np.int64)
    return {"kernel": whole, "scale": factor.astype(np.float32), "bias": bias.astype(np.float32)}


def depthwise_arrays(weights: Weights, scale: float, zero_point: int) -> dict[str, Any]:
    """Merges the scale of the inputs into the kernel of a depthwise convolution, and their zero point into the bias."""
    arrays = on_host(weights)
    kernel = arrays["kernel"].astype(np.float64) * scale
    bias = arrays.get("bias", 0.0) - zero_point * kernel.sum((0, 1)).reshape(-1)
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
