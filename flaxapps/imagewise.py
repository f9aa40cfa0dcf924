"""The first layers of a network image by image: their tensors are too large for a cache when a batch goes through."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from flaxapps import layers
from flaxapps.graph import Graph
from flaxapps.layers import Functional, ImageByImage, InputLayer
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.recording import Layer, Node, Shape
from flaxapps.rewriting import model_arrays, new_inputs, rebuilt_model, unflatten
from flaxapps.variables import weight_paths

BLOCK = "image_by_image"
ITEM_BYTES = 4  # float32; what computes in half precision takes less, and gains less
# Kinds that do to every image of a batch the same as to one alone; of others, such as users' own, nobody knows.
IMAGEWISE = (
    layers.Activation, layers.Add, layers.AveragePooling2D, layers.BatchNormalization, layers.Bfloat16Conv2D,
    layers.Concatenate, layers.Conv2D, layers.Cropping2D, layers.DepthwiseConv2D, layers.Dropout, layers.LeakyReLU,
    layers.MaxPooling2D, layers.Multiply, layers.PReLU, layers.ReLU, layers.Rescaling, layers.SeparableConv2D,
    layers.WinogradConv2D, layers.ZeroPadding2D,
)  # fmt: skip # a list to read along, not down


def split_image_by_image(model: Model, variables: Mapping[str, Any], limit: int) -> Network:
    """A model whose first layers compute one image after the other, and its variables.

    They are all layers up to the last that makes at least `limit` bytes of one image, and from there on as far as to
    where one tensor goes on. The model keeps its layers where there is no such place, a size is free, a layer is called
    on both sides, or a kind is not known to treat images alike. Models nested in it are split too.

    Args:
        model: The network.
        variables: Its arrays. Those of the layers that move are found under the name of the block, `image_by_image`.
        limit: In bytes.
    """
    arrays = model_arrays(model, variables)
    names = {name for path in arrays for name in path} | {step.layer.name for step in model.graph.steps}
    block = next(name for name in (BLOCK, *(f"{BLOCK}_{number}" for number in range(1, 999))) if name not in names)
    graph = _split(model.graph, block, limit)
    moved = {path: arrays[tuple(name for name in path[1:] if name != block)] for path, _ in weight_paths(graph)}
    return Network(rebuilt_model(model, graph), unflatten(moved))


def _split(graph: Graph, block: str, limit: int) -> Graph:
    cut = _find_cut(graph, limit)
    sources = new_inputs(graph)
    values: list[Node] = list(sources)
    nested: dict[int, Layer] = {}
    for number, step in enumerate(graph.steps):
        layer = step.layer
        if isinstance(layer, Functional):
            inside = dataclasses.replace(layer, graph=_split(layer.graph, block, limit))
            layer = nested.setdefault(id(layer), inside)
        values += layer.record([values[index] for index in step.inputs], step.training).outputs
        if number == cut:
            whole = ImageByImage(Graph(sources, values[-1:]), name=block)
            sources = new_inputs(graph)
            values[-1] = whole.record(sources, None).outputs[0]
    return Graph(sources, [values[index] for index in graph.results])


def _find_cut(graph: Graph, limit: int) -> int | None:
    """The number of the last step of the block; None where there should be none."""
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
        if type(step.layer) not in IMAGEWISE or step.training or getattr(step.layer, "axis", -1) != -1:
            return None
        needed_until = max(needed_until, last_call[id(step.layer)])
        at_the_end = number == len(graph.steps) - 1
        if needed_until <= number and (number > large[-1] or at_the_end):
            return number
        needed_until = max(needed_until, last_use.get(number + 1, 0))  # every step so far has one output
    return None


def _output_bytes(graph: Graph) -> list[int] | None:
    """Size of what every step makes of one image; None where a size is free."""
    shapes: list[Shape] = [node.shape for node in graph.inputs]
    sizes = []
    for step in graph.steps:
        outputs = step.layer.output_shapes(*(shapes[index] for index in step.inputs))
        shapes += outputs
        if any(None in shape[1:] for shape in outputs):
            return None
        sizes.append(sum(math.prod(size or 0 for size in shape[1:]) for shape in outputs) * ITEM_BYTES)
    return sizes
