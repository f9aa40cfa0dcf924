"""From a layer to the configuration Keras stores of it: the reverse of `flaxapps.configs`.

Initializers, regularizers and the like are left out: Keras takes its defaults for them, and the weights come anyway.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps import layers
from flaxapps.activations import ACTIVATIONS
from flaxapps.configs import FOR_ANY_LAYOUT, LAST_TO_FIRST, OVER_CHANNELS
from flaxapps.importing import KINDS
from flaxapps.recording import Layer, Shape
from weight_port import WeightError

# Keras's policies for what we compute in; parameters stay float32, which "bfloat16" alone would not do in Keras.
POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
TAKES_DATA_FORMAT = re.compile(r"\w+2D(Transpose)?|Flatten|Resizing|CenterCrop|Random\w+|\w+Mix|MixUp")
# Functions that are not in the table of activations but are in Keras under this name.
OTHER_ACTIVATIONS = {jax.nn.softmax: "softmax", jax.nn.log_softmax: "log_softmax"}
# Operations that Keras keeps in keras.ops.nn; the others are in keras.ops.numpy.
NN_OPERATIONS = (
    "Celu", "Elu", "Gelu", "Glu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "LogSigmoid",
    "LogSoftmax", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign",
    "SparsePlus", "Sparsemax", "Squareplus", "TanhShrink", "Threshold",
)  # fmt: skip # a list to read along, not down
ACTIVATION_OPERATIONS = ("Mish", "ReLU")  # and these in keras.activations
# How channels_first wants the shape of an image: where its dimensions stand in the channels_last one.
FIRST_TO_LAST = tuple(LAST_TO_FIRST.index(axis) for axis in range(4))
NAMES: Mapping[Any, str] = MappingProxyType(
    OTHER_ACTIVATIONS | {function: name for name, function in reversed(list(ACTIVATIONS.items()))}
)


def layer_entry(layer: Layer, dtype: str, shapes: Sequence[Shape], channels_first: bool) -> dict[str, Any]:
    """What Keras stores of a layer, but for its calls.

    Args:
        layer: A layer that is no model.
        dtype: What it computes in.
        shapes: Shapes of the inputs of its first call, channels last.
        channels_first: Whether the layer gets channels_first images in Keras.

    Raises:
        WeightError: Keras has no such layer, or none for channels_first images.
    """
    known = KINDS.get(layer.class_name) is type(layer)
    if not known and layer.class_name not in layers.registered():
        raise WeightError(
            f"Layer {layer.name!r} of kind {type(layer).__name__} is none of Keras's layers, so Keras could not open "
            f'the model. Known kinds: {", ".join(sorted(KINDS))}; flaxapps.layers.register("ClassName") adds one.'
        )
    if channels_first:
        layer = turned_to_channels_first(layer, shapes)
    entry = _configured(layer, dtype, known)
    if TAKES_DATA_FORMAT.fullmatch(layer.class_name):
        entry["config"]["data_format"] = "channels_first" if channels_first else "channels_last"
    if layer.weights(*shapes) and len(shapes) == 1:
        entry["build_config"] = {"input_shape": list(outside_shape(shapes[0], channels_first))}
    return entry


def _configured(layer: Layer, dtype: str, known: bool = True) -> dict[str, Any]:
    every_layers = {field.name for field in dataclasses.fields(Layer)}
    names = [field.name for field in dataclasses.fields(layer) if field.name not in every_layers]
    config = {"name": layer.name, "trainable": True, "dtype": policy(dtype)}
    if layer.class_name == "SpatialDropout2D":
        del config["trainable"]  # the one layer of Keras that does not take it
    return {
        "module": layer.keras_module if known else None,
        "class_name": layer.class_name,
        "config": config | {name: _plain(layer, name, getattr(layer, name), dtype) for name in names},
        "registered_name": None if known and layer.keras_module == "keras.layers" else layer.class_name,
    }


def input_entry(name: str, shape: Shape, dtype: str) -> dict[str, Any]:
    """What Keras stores of an input."""
    config = {"batch_shape": list(shape), "dtype": dtype, "sparse": False, "name": name}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def operation_entry(operation: layers.Operation, shapes: Sequence[Shape], channels_first: bool) -> dict[str, Any]:
    """What Keras stores of a function of tensors, but for its calls.

    Raises:
        WeightError: It depends on the layout of channels_first images.
    """
    kind = operation.function
    images = channels_first and any(len(shape) == 4 for shape in shapes)
    if images and (kind in layers.ALONG_AXES or len({len(shape) for shape in shapes}) > 1):
        raise _unturnable(operation, f"the operation {kind}")
    module = "activations.activations" if kind in ACTIVATION_OPERATIONS else "ops.numpy"
    return {
        "module": f"keras.src.{'ops.nn' if kind in NN_OPERATIONS else module}",
        "class_name": kind,
        "config": {"name": operation.name, **{key: _plain(operation, key, value) for key, value in operation.options}},
        "registered_name": kind,
    }


def policy(dtype: str) -> dict[str, Any]:
    """Keras's policy for layers that compute in a dtype and keep their parameters in float32."""
    name = POLICIES.get(dtype, dtype if jnp.issubdtype(dtype, jnp.floating) else "float32")
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}


def outside_shape(shape: Shape, channels_first: bool) -> Shape:
    """The shape in Keras of what has `shape` here, where images are channels last."""
    return tuple(shape[axis] for axis in FIRST_TO_LAST) if channels_first and len(shape) == 4 else shape


def turned_to_channels_first(layer: Layer, shapes: Sequence[Shape]) -> Layer:
    """The layer that does to channels_first images what `layer` does to channels_last ones.

    Args:
        layer: A layer.
        shapes: Shapes of its inputs, channels last.

    Raises:
        WeightError: There is none.
    """
    ranks = {len(shape) for shape in (*shapes, *layer.output_shapes(*shapes))}
    if 4 not in ranks:
        return layer
    axis = getattr(layer, "axis", None)
    if axis is not None:
        axes = [LAST_TO_FIRST[each % 4] for each in ((axis,) if isinstance(axis, int) else axis)]
        if len(shapes[0]) != 4 or any(len(weight.shape) > 1 for weight in layer.weights(*shapes).values()):
            raise _unturnable(layer, layer.class_name)
        turned: Any = axes[0] if isinstance(axis, int) else tuple(sorted(axes))
        return dataclasses.replace(layer, axis=turned)  # type: ignore[call-arg]  # these layers have an axis, which mypy does not see
    if getattr(layer, "noise_shape", None) is not None or len({len(shape) for shape in shapes}) > 1:
        raise _unturnable(layer, layer.class_name)
    activation = getattr(layer, "activation", None)
    if NAMES.get(activation, activation) in OVER_CHANNELS or hasattr(activation, "axis"):
        raise _unturnable(layer, f"the activation {activation!r}, which Keras applies along the last axis")
    if layer.class_name in FOR_ANY_LAYOUT or TAKES_DATA_FORMAT.fullmatch(layer.class_name):
        return layer
    raise _unturnable(layer, layer.class_name)


def _plain(layer: Layer, option: str, value: Any, dtype: str = "float32") -> Any:
    """A value as JSON has it; functions become Keras's names for them, layers that are activations their entries."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_plain(layer, option, part) for part in value]
    if isinstance(value, Layer) and KINDS.get(value.class_name) is type(value):
        return _configured(value, dtype)
    name = NAMES.get(value) if callable(value) else None
    if name is None:
        raise WeightError(
            f"Layer {layer.name!r} of kind {layer.class_name} has {option}={value!r}, which has no name in Keras. "
            f"Names of functions that have one: {', '.join(ACTIVATIONS)}."
        )
    return name


def _unturnable(layer: Layer, what: str) -> WeightError:
    return WeightError(
        f"Layer {layer.name!r}: {what} cannot be turned to channels_first images. Build the network with "
        'data_format="channels_last": its variables are the same.'
    )
