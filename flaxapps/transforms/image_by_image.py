"""Runs the first layers of a network image by image, because their activations for a batch exceed the CPU cache."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from flaxapps import layers
from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.symbolic import Layer, Node, Shape
from flaxapps.graph.variables import weight_paths
from flaxapps.layers import Functional, ImageByImage, InputLayer
from flaxapps.model import Model, Network
from flaxapps.transforms.rewrite import model_arrays, rebuilt_model
from weight_port.trees import nest

BLOCK = "image_by_image"
ITEM_BYTES = 4  # float32; half precision takes less memory, and gains less
# Layers that treat the images of a batch independently. Custom layers are assumed not to.
IMAGEWISE = (
    layers.Activation, layers.Add, layers.AveragePooling2D, layers.BatchNormalization, layers.Bfloat16Conv2D,
    layers.Concatenate, layers.Conv2D, layers.Cropping2D, layers.DepthwiseConv2D, layers.Dequantize, layers.Dropout,
    layers.GlobalAveragePooling2D, layers.LeakyReLU, layers.MaxPooling2D, layers.Multiply, layers.PReLU,
    layers.Quantize, layers.QuantizedAveragePooling2D, layers.QuantizedConv2D, layers.QuantizedDense,
    layers.QuantizedDepthwiseConv2D, layers.QuantizedZeroPadding2D, layers.ReLU, layers.Rescaling,
    layers.SeparableConv2D, layers.WinogradConv2D, layers.ZeroPadding2D,
)  # fmt: skip # kept on few lines on purpose


def split_image_by_image(model: Model, variables: Mapping[str, Any], limit: int) -> Network:
    """Moves the first layers of a model into a nested model that computes image by image.

    The block ends at the first single-tensor cut after the last layer whose output per image is at least `limit` bytes.
    The model is unchanged if there is no such cut, a size is free, a layer is called on both sides of it, or the block
    would contain a layer that may not treat images independently. Nested models are split too.

    Args:
        model: The network.
        variables: Its arrays. Those of moved layers are in the result under the name of the block, `image_by_image`.
        limit: Output size per image, in bytes.
    """
    arrays = model_arrays(model, variables)
    names = {name for path in arrays for name in path} | {step.layer.name for step in model.graph.steps}
    block = next(name for name in (BLOCK, *(f"{BLOCK}_{number}" for number in range(1, 999))) if name not in names)
    graph = _split(model.graph, block, limit)
    moved = {path: arrays[tuple(name for name in path[1:] if name != block)] for path, _ in weight_paths(graph)}
    return Network(rebuilt_model(model, graph), nest(moved))


def _split(graph: Graph, block: str, limit: int) -> Graph:
    cut = _find_cut(graph, limit)
    sources = graph.new_inputs()
    numbers = itertools.count()
    nested: dict[int, Layer] = {}

    def visit(step: Step, nodes: list[Node]) -> tuple[Node, ...]:
        nonlocal sources
        layer = step.layer
        if isinstance(layer, Functional) and not isinstance(layer, ImageByImage):
            inside = dataclasses.replace(layer, graph=_split(layer.graph, block, limit))
            layer = nested.setdefault(id(layer), inside)
        outputs = layer.record(nodes, step.training).outputs
        if next(numbers) == cut:
            whole = ImageByImage(Graph(sources, outputs), name=block)
            sources = graph.new_inputs()
            outputs = whole.record(sources, None).outputs
        return outputs

    outputs = graph.follow(sources, visit)
    return Graph(sources, outputs)


def _find_cut(graph: Graph, limit: int) -> int | None:
    """Returns the number of the last step of the block, or None for no block."""
    sizes = _output_bytes(graph)
    if len(graph.inputs) != 1 or not isinstance(graph.inputs[0].layer, InputLayer) or sizes is None:
        return None
    large = [number for number, size in enumerate(sizes) if size >= limit]
    if not large:
        return None
    last_use = {value: number for number, step in enumerate(graph.steps) for value in step.inputs}
    last_use |= dict.fromkeys(graph.results, len(graph.steps))
    last_call = {id(step.layer): number for number, step in enumerate(graph.steps)}
    needed_until = last_use[0]
    for number, step in enumerate(graph.steps):
        # An axis other than the last may be that of the batch.
        if type(step.layer) not in IMAGEWISE or step.training or getattr(step.layer, "axis", -1) != -1:
            return None
        needed_until = max(needed_until, last_call[id(step.layer)])
        at_the_end = number == len(graph.steps) - 1
        if needed_until <= number and (number > large[-1] or at_the_end):
            return number
        # Value 0 is the input, and every step so far has one output.
        needed_until = max(needed_until, last_use.get(number + 1, 0))
    return None


def _output_bytes(graph: Graph) -> list[int] | None:
    """Returns the output size per image of every step, or None if a size is free."""
    outputs: list[tuple[Shape, ...]] = []

    def visit(step: Step, shapes: list[Shape]) -> tuple[Shape, ...]:
        outputs.append(step.layer.output_shapes(*shapes))
        return outputs[-1]

    graph.follow([node.shape for node in graph.inputs], visit)
    if any(None in shape[1:] for shapes in outputs for shape in shapes):
        return None
    return [sum(math.prod(size or 0 for size in shape[1:]) for shape in shapes) * ITEM_BYTES for shapes in outputs]
