"""Build the Keras configuration of a layer: the inverse of `flaxapps.saving.from_config`.

Initializers are omitted, so Keras uses its defaults; the weights are loaded anyway. Regularizers, constraints and
`trainable` are written as they were imported.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps import layers
from flaxapps.graph.shapes import in_layout
from flaxapps.graph.symbolic import Layer, Shape
from flaxapps.layers.activations import ACTIVATIONS
from flaxapps.saving.dialects.spelling import OPTIONS
from flaxapps.saving.from_config import KINDS
from flaxapps.saving.layouts import FOR_ANY_LAYOUT, LAST_TO_FIRST, OVER_CHANNELS
from weight_port import WeightError

# Fields with another name in Keras, because that name is taken by an attribute of `Layer`.
RENAMED_HERE = ("layers_in_order", "output_size")
EXPORTED_AS = {"GroupedQueryAttention": "GroupQueryAttention"}
UNKNOWN_TO_KERAS = ("outside",)  # fields of layers that `for_keras3` replaces where they have another value
WITHOUT_BASE_OPTIONS = ("Pipeline",)  # classes that take neither `trainable` nor `dtype`
# Keras's policies by compute dtype. The mixed ones keep parameters in float32; "bfloat16" would not.
POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
TAKES_DATA_FORMAT = re.compile(r"\w+2D(Transpose)?|Flatten|Resizing|CenterCrop|Random\w+|\w+Mix|MixUp")
# Functions that are not in the table of activations, with their Keras names.
OTHER_ACTIVATIONS = {jax.nn.softmax: "softmax", jax.nn.log_softmax: "log_softmax"}
NAMES: Mapping[Any, str] = MappingProxyType(
    OTHER_ACTIVATIONS | {function: name for name, function in reversed(list(ACTIVATIONS.items()))}
)


def layer_entry(layer: Layer, dtype: str, shapes: Sequence[Shape], channels_first: bool) -> dict[str, Any]:
    """The Keras configuration entry of a layer, without its calls.

    Args:
        layer: A layer that is not a model.
        dtype: Its compute dtype.
        shapes: Shapes of the inputs of its first call, channels last.
        channels_first: Whether the layer takes channels_first images in Keras.

    Raises:
        WeightError: The layer does not exist in Keras, or not for channels_first images.
    """
    data_format = "channels_first" if channels_first else "channels_last"
    owned, stored = layer.weights(*shapes), isinstance(layer, layers.ChannelsFirst)
    if isinstance(layer, layers.ChannelsFirst):  # the wrapped layer had data_format channels_last, or none
        layer, data_format = dataclasses.replace(layer.layer, name=layer.name), "channels_last"
    elif hasattr(layer, "rank") and getattr(layer, "rank", 2) != 2:
        data_format = getattr(layer, "data_format", None) or "channels_last"
    elif isinstance(layer, layers.Flatten) and not (channels_first and len(shapes[0]) == 4):
        data_format = layer.data_format or "channels_last"
    known = KINDS.get(layer.class_name) is type(layer)
    if not known and layer.class_name not in layers.registered():
        raise WeightError(
            f"Layer {layer.name!r} of kind {type(layer).__name__} is not a layer of Keras, so Keras could not open "
            f'the model. Known kinds: {", ".join(sorted(KINDS))}; flaxapps.layers.register("ClassName") adds one.'
        )
    if layer.class_name == "Equalization":  # its compute_output_spec returns its input, which makes a cycle
        raise WeightError(f"Layer {layer.name!r}: Keras 3 cannot open a Functional model that contains Equalization")
    if channels_first and not stored:
        layer = turned_to_channels_first(layer, shapes)
    entry = _configured(layer, dtype, known)
    if TAKES_DATA_FORMAT.fullmatch(layer.class_name) or "data_format" in entry["config"]:
        entry["config"]["data_format"] = data_format
    if owned and len(shapes) == 1:
        entry["build_config"] = {"input_shape": list(in_layout(shapes[0], channels_first))}
    return entry


def _configured(layer: Layer, dtype: str, known: bool = True) -> dict[str, Any]:
    every_layers = {field.name for field in dataclasses.fields(Layer)}.union(layer.call_fields)
    names = [field.name for field in dataclasses.fields(layer) if field.name not in every_layers]
    names = [name for name in names if not name.endswith("_initializer") and name not in UNKNOWN_TO_KERAS]
    config = {"name": keras_name(layer.name), "trainable": layer.trainable, "dtype": policy(dtype)}
    if layer.class_name.startswith(("Discretization", "SpatialDropout")):
        del config["trainable"]  # these classes do not take it
    written = {ours: keras for keras, ours in OPTIONS.get(layer.class_name, {}).items() if ours in RENAMED_HERE}
    options = {written.get(name, name): _plain(layer, name, getattr(layer, name), dtype) for name in names}
    if layer.class_name in WITHOUT_BASE_OPTIONS:
        config = {"name": config["name"]}
    return {
        "module": layer.keras_module if known else None,
        "class_name": EXPORTED_AS.get(layer.class_name, layer.class_name),
        "config": config | options | {name: json.loads(text) for name, text in layer.training_options},
        "registered_name": None if known and layer.keras_module == "keras.layers" else layer.class_name,
    }


def keras_name(name: str | None) -> str:
    """The name of a layer in Keras 3, which does not allow slashes."""
    return (name or "").replace("/", "_")


def input_entry(name: str, shape: Shape, dtype: str) -> dict[str, Any]:
    """The Keras configuration entry of an InputLayer."""
    config = {"batch_shape": list(shape), "dtype": dtype, "sparse": False, "name": name}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


OPTIONS_OF_CALLS = ("constant_values",)  # option of Pad that Keras takes in the call, not in the constructor
WINDOWS = ("pool_size", "strides")  # options of pooling operations: Keras requires tuples, but JSON gives lists


def operation_entry(operation: layers.Operation, shapes: Sequence[Shape], channels_first: bool) -> dict[str, Any]:
    """The Keras configuration entry of an operation, without its calls.

    Raises:
        WeightError: The operation depends on the layout of images in a channels_first model, or has windows that Keras
            does not read.
    """
    kind = operation.function
    images = channels_first and any(len(shape) == 4 for shape in shapes)
    turned = layers.OPERATIONS[kind].along_axes or len({len(shape) for shape in shapes}) > 1
    if images and turned and not operation.channels_first:
        raise _unturnable(operation, f"the operation {kind}")
    stored = [(key, value) for key, value in operation.options if key not in OPTIONS_OF_CALLS]
    options = {key: _plain(operation, key, value) for key, value in stored}
    for option in WINDOWS:
        sizes = options.get(option)
        if isinstance(sizes, list):
            if len(set(sizes)) > 1:
                raise WeightError(
                    f"{operation.name!r}: Keras 3 reads {option} of the operation {kind} only if all sizes are equal, "
                    f"got {sizes}"
                )
            options[option] = sizes[0]
    return {
        "module": f"keras.src.{layers.OPERATIONS[kind].module}",
        "class_name": kind,
        "config": {"name": keras_name(operation.name)} | options,
        "registered_name": kind,
    }


def policy(dtype: str) -> dict[str, Any]:
    """Keras's policy for layers with this compute dtype and float32 parameters."""
    name = POLICIES.get(dtype, dtype if jnp.issubdtype(dtype, jnp.floating) else "float32")
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}


def turned_to_channels_first(layer: Layer, shapes: Sequence[Shape]) -> Layer:
    """Convert a layer to an equivalent one for channels_first images.

    Raises:
        WeightError: The layer has no equivalent for channels_first images.
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
    if isinstance(layer, layers.Rescaling):  # (channels, 1, 1) is along the channels for either image_data_format
        columns = {field: _as_columns(getattr(layer, field)) for field in ("scale", "offset")}
        return dataclasses.replace(layer, **columns)
    if layer.class_name in FOR_ANY_LAYOUT or TAKES_DATA_FORMAT.fullmatch(layer.class_name):
        return layer
    raise _unturnable(layer, layer.class_name)


def _as_columns(values: Any) -> Any:
    """Reshape numbers per channel to (channels, 1, 1)."""
    return values if isinstance(values, int | float) else tuple(((value,),) for value in values)


def _plain(layer: Layer, option: str, value: Any, dtype: str = "float32") -> Any:
    """Convert a value to JSON: functions to their Keras names, activation layers to their entries."""
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
            f"Functions with a name: {', '.join(ACTIVATIONS)}."
        )
    return name


def _unturnable(layer: Layer, what: str) -> WeightError:
    return WeightError(
        f"Layer {layer.name!r}: {what} cannot be turned to channels_first images. Build the network with "
        'data_format="channels_last": its variables are the same.'
    )
