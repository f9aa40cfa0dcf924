"""Export to Keras 3: rewrites layers that only older versions have as layers and operations of Keras 3."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.shapes import pair
from flaxapps.graph.symbolic import Layer, Node
from flaxapps.layers.activations import keras2_hard_sigmoid
from flaxapps.layers.augmentation.geometry import SEPARATE_FLIPS, UNCHANGED, covering, largest_part
from flaxapps.layers.resampling import METHODS
from flaxapps.layers.spatial import spread
from flaxapps.model import Model, Network
from flaxapps.transforms.rewrite import rebuilt_model, rewrite
from weight_port import WeightError


def for_keras3(model: Model, variables: Mapping[str, Any]) -> Network:
    """Rewrite a model so that every layer exists in Keras 3.15.

    Args:
        model: The network. It is returned unchanged if Keras 3 has all its layers.
        variables: Its arrays.

    Raises:
        WeightError: A layer resizes or crops images of a free size as no layer of Keras 3 does.
    """
    if not any(_is_older(layer) for layer in _all_layers(model.graph)):
        return Network(model, dict(variables))
    first = model.data_format == "channels_first"

    def replace(layer: Layer, inputs: list[Node], weights: Any) -> Node | None:
        if getattr(layer, "activation", None) is keras2_hard_sigmoid:
            node = inputs[0] if isinstance(layer, layers.Activation) else _linear(layer)(inputs)
            scaled = layers.Rescaling(0.2, 0.5, dtype=layer.dtype)(node)
            return layers.ReLU(max_value=1.0, dtype=layer.dtype)(scaled)
        casts = _casts(layer)
        if casts:
            cast = layers.Operation("Cast", (layers.Slot(0),), (("dtype", layer.dtype or "float32"),))
            inputs = [cast(inputs[0])]
        if getattr(layer, "interpolation", None) in METHODS:
            return _resampled(layer, inputs[0], first)
        if isinstance(layer, layers.RandomCrop) and layer.outside != UNCHANGED:
            return _without_chance(layer, inputs[0])
        if isinstance(layer, layers.RandomFlip) and layer.mode == SEPARATE_FLIPS:
            across = layers.RandomFlip("horizontal", name=layer.name, dtype=layer.dtype)(inputs)
            return layers.RandomFlip("vertical", dtype=layer.dtype)(across)
        if _is_causal(layer):
            return _padded_before(layer, inputs[0])
        return dataclasses.replace(layer, as_floats=False)(inputs) if casts else None

    network = rewrite(model, variables, replace)
    return Network(rebuilt_model(network.model, _functional(network.model.graph)), network.variables)


def _casts(layer: Layer) -> bool:
    """Whether a layer casts integers to floats, which its class does not do in Keras 3."""
    return layer.as_floats and not layer.makes_floats


def _is_older(layer: Layer) -> bool:
    activation, interpolation = getattr(layer, "activation", None), getattr(layer, "interpolation", None)
    if (
        _casts(layer)
        or getattr(layer, "mode", None) == SEPARATE_FLIPS
        or getattr(layer, "outside", UNCHANGED) != UNCHANGED
    ):
        return True
    return activation is keras2_hard_sigmoid or interpolation in METHODS or _is_causal(layer)


def _is_causal(layer: Layer) -> bool:
    """Whether a layer has causal padding that Keras 3 does not support."""
    return isinstance(layer, layers.SeparableConv1D) and layer.padding == "causal"


def _without_chance(layer: layers.RandomCrop, node: Node) -> Node:
    """What RandomCrop of Keras before 3.8 does outside training, as layers of Keras 3, whose RandomCrop does not.

    Raises:
        WeightError: Images have a free size, on which it depends.
    """
    warnings.warn(
        f"Layer {layer.name!r}, a RandomCrop of Keras before 3.8, is saved as the resizing that it is outside "
        "training, where RandomCrop of Keras 3.8 and later changes nothing. It is no longer random in training",
        stacklevel=2,
    )
    named: dict[str, Any] = {"name": layer.name, "dtype": layer.dtype}
    size = layer.height, layer.width
    if layer.outside == "part":
        return layers.Resizing(*size, crop_to_aspect_ratio=True, **named)(node)
    height, width = node.shape[1:3]
    if height is None or width is None:
        raise WeightError(
            f"Layer {layer.name!r} is a RandomCrop of {'Keras 3.6' if layer.outside == 'corner' else 'tf.keras 2.6'} "
            "for images of a free size, which no layer of Keras 3 is: give the images a size"
        )
    if layer.outside == "cover":
        return layers.CenterCrop(*size, **named)(
            layers.Resizing(*covering((height, width), size), dtype=layer.dtype)(node)
        )
    top, left = largest_part((height, width), size)
    around = (top, max(height - top - layer.height, 0)), (left, max(width - left - layer.width, 0))
    part = layers.Cropping2D(around, dtype=layer.dtype)(node)
    return layers.Resizing(*size, **named)(part)


def _padded_before(layer: Any, node: Node) -> Node:
    """Causal padding as ZeroPadding1D followed by the layer with padding "valid"."""
    ((steps,), (distance,)) = (spread(sizes, 1) for sizes in (layer.kernel_size, layer.dilation_rate))
    data_format = layer.data_format
    padded = layers.ZeroPadding1D(((steps - 1) * distance, 0), data_format=data_format, dtype=layer.dtype)(node)
    valid: Layer = dataclasses.replace(layer, padding="valid")
    return valid(padded)


def _all_layers(graph: Graph) -> list[Layer]:
    found: list[Layer] = []
    for step in graph.steps:
        found.append(step.layer)
        if isinstance(step.layer, layers.Functional):
            found += _all_layers(step.layer.graph)
    return found


def _linear(layer: Layer) -> Layer:
    changes: dict[str, Any] = {"activation": None}
    return dataclasses.replace(layer, **changes)


def _resampled(layer: Layer, node: Node, channels_first: bool) -> Node:
    """Resize as `layer` does, by average pooling or by products with constant matrices."""
    method: str = getattr(layer, "interpolation", "")
    if isinstance(layer, layers.UpSampling2D) and method == "legacy_bilinear" and pair(layer.size) == (2, 2):
        # A 2x2 mean over the "nearest" result gives the pixels and their midpoints. The mean excludes padding, so the
        # last pixel is repeated.
        nearest = dataclasses.replace(layer, interpolation="nearest")(node)
        return layers.AveragePooling2D(2, 1, "same", dtype=layer.dtype)(nearest)
    sizes = [*node.shape[1:3], *layer.output_shape(node.shape)[1:3]]
    cropped = getattr(layer, "crop_to_aspect_ratio", False) or getattr(layer, "pad_to_aspect_ratio", False)
    if None in sizes or cropped:
        raise WeightError(
            f"Layer {layer.name!r} resizes by {method!r}, which Keras 3 does not have. It can be exported as matrix "
            f"products only if sizes are fixed and nothing is cropped or padded, got shape {node.shape}"
        )
    height, width, rows, columns = (int(size or 0) for size in sizes)
    for number, (length, wanted) in enumerate(((height, rows), (width, columns))):
        matrix = layers.Constant(tuple(map(tuple, METHODS[method](length, wanted).tolist())), "float32")
        axes = "bchw" if channels_first else "bhwc"
        subscripts = f"i{axes[axes.index('hw'[number])]},{axes}->{axes.replace('hw'[number], 'i')}"
        operation = layers.Operation(
            "Einsum", (matrix, layers.Slot(0)), (("subscripts", subscripts),), channels_first, dtype=layer.dtype
        )
        node = operation(node)
    return node


def _functional(graph: Graph) -> Graph:
    """The graph with nested Sequential models that contain operations converted to Functional ones."""

    def functional(layer: Layer) -> Layer:
        if not isinstance(layer, layers.Functional):
            return layer
        inside = _functional(layer.graph)
        if isinstance(layer, layers.Sequential) and any(isinstance(e.layer, layers.Operation) for e in inside.steps):
            return layers.Functional(inside, name=layer.name)
        return dataclasses.replace(layer, graph=inside)

    return graph.rebuild(functional)
