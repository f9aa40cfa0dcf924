"""From the configuration Keras stores of one layer to the layer."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from flaxapps import layers
from flaxapps.recording import Layer, Shape

# What a configuration says about training and saving only. Initializers do not matter where weights are loaded.
FOR_TRAINING = re.compile(r"trainable|synchronized|seed|autocast|\w+_(initializer|regularizer|constraint)")
# Options as older versions of Keras called them.
RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "InputLayer": {"batch_input_shape": "batch_shape"}}
# Options that are written by some versions and change nothing, whatever they say or at these values.
UNUSED = {"BatchNormalization": ("fused", "renorm_momentum", "renorm_clipping")}
HARMLESS = (("BatchNormalization", "renorm", False), ("DepthwiseConv2D", "groups", 1), ("SeparableConv2D", "groups", 1))
# Kinds that do to a channels_first image what they do to a channels_last one, value by value or channel by channel.
FOR_ANY_LAYOUT = (
    "Activation", "Add", "AlphaDropout", "Average", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise",
    "CustomScaleLayer", "LeakyReLU", "Maximum", "Minimum", "Multiply", "ReLU", "Rescaling", "StochasticDepth",
    "Subtract",
)  # fmt: skip # a list to read along, not down
OVER_CHANNELS = ("softmax", "log_softmax", "sparsemax", "glu")  # in Keras: over the last axis, which is the width there
LAST_TO_FIRST = (0, 2, 3, 1)  # where the dimensions of a channels_last image stand in a channels_first one


def default_mode(layer: Layer) -> bool | None:
    """The mode Keras 3 records for a call that was given none: the default of the kind's `call`."""
    if isinstance(layer, layers.Noise):
        return False
    return True if is_image_preprocessing(layer) else None


def is_image_preprocessing(layer: Layer) -> bool:
    """Whether Keras counts the kind among its image preprocessing layers."""
    return isinstance(layer, layers.Resizing | layers.CenterCrop | layers.Augmentation)


def is_operation(entry: Mapping[str, Any]) -> bool:
    """Whether Keras recorded a function (`x + y`, keras.ops) rather than a layer."""
    if "module" in entry:
        return re.match(r"keras(\.src)?\.(ops|activations)\b", entry["module"] or "") is not None
    # An .h5 does not say; but layers have more in their configuration than operations.
    return entry["class_name"] in layers.FUNCTIONS and "trainable" not in entry["config"]


def refusal(entry: Mapping[str, Any], handlers: Mapping[str, Any]) -> str | None:
    """Why a layer cannot be imported, or None if its kind is known."""
    name, kind = entry.get("name") or entry["config"].get("name"), entry["class_name"]
    if kind == "Lambda":
        return f"{name} (Lambda: it carries Python code, which is never run)"
    if is_operation(entry):
        return None if kind in layers.FUNCTIONS else f"{name} (the operation {kind})"
    if kind not in handlers:
        return f"{name} ({kind})"
    module, registered = entry.get("module"), entry.get("registered_name")
    foreign = (module and not re.match(r"(keras|tf_keras|tensorflow)\b", module)) or ">" in (registered or "")
    if foreign and kind not in layers.registered():
        return f"{name} ({registered or kind} of {module}, which only shares the name of Keras's {kind})"
    return None


def layer_from_config(entry: Mapping[str, Any], kind: type[Layer]) -> Layer:
    """The layer of a configuration entry.

    Args:
        entry: What Keras stores: class_name, config, and for Keras 3 more.
        kind: The layer kind of this class name.

    Raises:
        ValueError: The configuration has options that are not known, so that the layer would compute something else.
    """
    config = {RENAMED.get(kind.__name__, {}).get(key, key): value for key, value in entry["config"].items()}
    dtype = compute_dtype(config.pop("dtype", None))
    if kind is layers.InputLayer:
        return layers.InputLayer((None, *config["batch_shape"][1:]), dtype=dtype, name=config["name"])
    config.pop("data_format", None)
    fields = {field.name for field in dataclasses.fields(kind)}
    options = {key: value for key, value in config.items() if not FOR_TRAINING.fullmatch(key)}
    unknown = {key: value for key, value in options.items() if key not in fields and value is not None}
    unknown = {key: value for key, value in unknown.items() if not _is_harmless(kind.__name__, key, value)}
    if unknown:
        raise ValueError(f"Layer {config['name']!r} of kind {kind.__name__} has options that are not known: {unknown}")
    if isinstance(options.get("activation"), Mapping):
        options["activation"] = _activation(options["activation"])
    known = {key: hashable(value) for key, value in options.items() if key in fields}
    try:
        return kind(**known, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Layer {config['name']!r} of kind {kind.__name__}: {error}") from error


def _activation(value: Mapping[str, Any]) -> Layer:
    """An activation that is given as a layer of its own."""
    kind = getattr(layers, value["class_name"], None)
    if value.get("registered_name") or not isinstance(kind, type) or not issubclass(kind, Layer):
        raise ValueError(f"The activation {value.get('registered_name') or value['class_name']!r} is not known")
    return layer_from_config(value, kind)


def compute_dtype(policy: Any) -> str:
    """The dtype a layer computes in: that of Keras's policy ("mixed_bfloat16" computes in bfloat16)."""
    if isinstance(policy, Mapping):
        policy = policy["config"]["name"]
    dtype = str(policy or "float32").removeprefix("mixed_")
    jnp.dtype(dtype)  # a TypeError where there is none
    return dtype


def hashable(value: Any) -> Any:
    """Lists of JSON as tuples, objects as sorted pairs."""
    if isinstance(value, Mapping):
        return tuple((key, hashable(value[key])) for key in sorted(value))
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value


def channels_last(layer: Layer, shapes: list[Shape]) -> Layer:
    """The layer that does to channels_last images what `layer` does to channels_first ones.

    Args:
        layer: A layer of a channels_first model.
        shapes: Shapes of its inputs, already channels_last.

    Raises:
        ValueError: The kind depends on the layout in a way that cannot be turned.
    """
    if isinstance(layer, layers.Functional):  # turned inside
        return layer
    ranks = {len(shape) for shape in shapes}
    if ranks != {4}:
        if 4 in ranks or any(len(shape) == 4 for shape in layer.output_shapes(*shapes)):
            raise _not_turned(layer)
        return layer
    axis = getattr(layer, "axis", None)
    if getattr(layer, "activation", None) in OVER_CHANNELS or (isinstance(axis, tuple) and len(axis) > 1):
        raise _not_turned(layer)
    if axis is not None:
        axes = [LAST_TO_FIRST.index(each % 4) for each in ((axis,) if isinstance(axis, int) else axis)]
        turned: Any = axes[0] if isinstance(axis, int) else tuple(sorted(axes))
        return dataclasses.replace(layer, axis=-1 if turned == 3 else turned)  # type: ignore[call-arg]  # these layers have an axis, which mypy does not see
    if layer.class_name in FOR_ANY_LAYOUT or "2D" in layer.class_name or is_image_preprocessing(layer):
        return layer
    raise _not_turned(layer)


def _not_turned(layer: Layer) -> ValueError:
    return ValueError(f"Layer {layer.name!r} of kind {layer.class_name} cannot be turned from channels_first images")


def _is_harmless(kind: str, option: str, value: Any) -> bool:
    return option in UNUSED.get(kind, ()) or (kind, option, value) in HARMLESS
