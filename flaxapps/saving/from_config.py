"""Build a layer from its Keras configuration."""

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flaxapps import layers
from flaxapps.graph.symbolic import Layer
from flaxapps.saving.dialects.keras1 import WANTED_SHAPE
from flaxapps.saving.dialects.structure import shortened, shown, stored_shape
from flaxapps.saving.layouts import is_image_preprocessing
from flaxapps.saving.options import checked_dtype, checked_flag, checked_options
from weight_port.layout import LAYOUT, WRAPPERS

# Options that only affect training or saving. Initializers do not matter because weights are loaded.
FOR_TRAINING = re.compile(r"trainable|synchronized|seed|autocast|\w+_(initializer|regularizer|constraint)")
# Classes that are not imported: recurrent layers, text, hashing.
NOT_OF_IMAGES = (
    r"LSTM|GRU|RNN|Bidirectional|Hashing|HashedCrossing|StringLookup|IntegerLookup|TextVectorization|MelSpectrogram|"
    r"STFTSpectrogram|FeatureSpace|Reversible|TFSMLayer|TorchModuleWrapper|FlaxLayer|JaxLayer"
)
PENALTY = re.compile(r"\w+_(regularizer|constraint)")
# Keras's own regularizers and constraints; others are user code.
PENALTIES = ("L1", "L2", "L1L2", "OrthogonalRegularizer", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")
ABSTRACT = (layers.Augmentation, layers.Functional, layers.Noise, layers.Operation, layers.Sequential)
# Created by `optimize`, `quantize` and the importer; not in Keras.
OURS = (
    layers.Bfloat16Conv2D,
    layers.Bfloat16Dense,
    layers.ChannelsFirst,
    layers.Dequantize,
    layers.ImageByImage,
    layers.Quantize,
    layers.QuantizedAveragePooling2D,
    layers.QuantizedConv2D,
    layers.QuantizedDense,
    layers.QuantizedDepthwiseConv2D,
    layers.QuantizedZeroPadding2D,
    layers.TimeDistributedModel,
    layers.WinogradConv2D,
)
SAID_OTHERWISE = ("Shape", "Split", "Unstack")  # operations replaced by others on import; see `sizes`
KINDS: Mapping[str, type[Layer]] = MappingProxyType(
    {
        name: kind
        for name, kind in vars(layers).items()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind not in ABSTRACT + OURS
    }
)


def handlers() -> dict[str, Any]:
    """Import handlers by class: the layers of `flaxapps.layers` and registered ones."""
    return {**KINDS, **layers.registered()}


def default_mode(layer: Layer) -> bool | None:
    """The `training` value Keras 3 records for a call without one: the default of the class's `call`."""
    if isinstance(layer, layers.Noise):
        return False
    return True if is_image_preprocessing(layer) else None


def is_operation(entry: Mapping[str, Any]) -> bool:
    """Whether Keras recorded a function (`x + y`, keras.ops) rather than a layer."""
    if "module" in entry:
        return re.match(r"keras(\.src)?\.(ops|activations)\b", entry["module"] or "") is not None
    # An .h5 does not store the module, but only layers have "trainable" in their configuration.
    known = entry["class_name"] in layers.OPERATIONS or entry["class_name"] in SAID_OTHERWISE
    return known and "trainable" not in entry["config"]


def refusal(entry: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """The reason a layer cannot be imported and the remedy, or None if its class is known."""
    name, kind = entry.get("name") or entry["config"].get("name"), entry["class_name"]
    if is_operation(entry):
        return (
            None
            if kind in layers.OPERATIONS or kind in SAID_OTHERWISE
            else f"{name} (the operation {kind} of Keras, which is not imported)"
        )
    remedy = f'flaxapps.layers.register("{kind.rpartition(">")[2]}") says how to import it'
    if kind not in known:
        if kind == "Lambda":
            return f"{name} (Lambda: it carries Python code, which is never run; {remedy})"
        if re.search(NOT_OF_IMAGES, kind):
            return f"{name} ({kind}, for sequences or text, which is not imported; {remedy})"
        return f"{name} ({kind}; {remedy})"
    module, registered = entry.get("module"), entry.get("registered_name")
    foreign = (module and not re.match(r"(keras|tf_keras|tensorflow)\b", module)) or ">" in (registered or "")
    if foreign and kind not in layers.registered():
        return f"{name} ({registered or kind} of {module}, a different class than Keras's {kind}; {remedy})"
    return None


def wrong_options(entry: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """The error in the options of a layer of a known class, or None."""
    kind = known.get(entry["class_name"])
    holds_model = isinstance(entry["config"].get("layer"), Mapping) and "layers" in entry["config"]["layer"]["config"]
    if is_operation(entry) or not isinstance(kind, type) or holds_model:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # issued again when the layer is built
            layer_from_config(entry, kind)
    except ValueError as error:
        return str(error)
    return None


def layer_from_config(entry: Mapping[str, Any], kind: type[Layer]) -> Layer:
    """Build the layer of a configuration entry.

    Args:
        entry: The stored entry: class_name, config and, in Keras 3, more.
        kind: The layer class for this class name.

    Raises:
        ValueError: The configuration has unknown options, so the layer could compute something else, or invalid values.
    """
    config = dict(entry["config"])
    try:
        return _layer_of_kind(kind, config)
    except (TypeError, ValueError, ArithmeticError) as error:
        title = f"Layer {config.get('name')!r} of kind {kind.__name__}"
        text = shortened(str(error))
        raise ValueError(text if title in text else f"{title}: {text}") from error


def _layer_of_kind(kind: type[Layer], config: dict[str, Any]) -> Layer:
    dtype = compute_dtype(config.pop("dtype", None))
    if kind is layers.InputLayer:
        shape = stored_shape(config.get("batch_shape"), "batch_shape")
        if not shape:
            raise ValueError("batch_shape is missing, so the input shape is unknown")
        return layers.InputLayer((None, *shape[1:]), dtype=dtype, name=config["name"])
    data_format = config.pop("data_format", None)
    if data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(f"data_format is {shown(data_format)}")
    takes_format = "data_format" in {field.name for field in dataclasses.fields(kind)}
    # Images are transposed for the whole model, so 2D layers drop data_format. Other arrays keep their stored layout.
    if takes_format and data_format == "channels_first" and getattr(kind, "rank", 0) != 2:
        config["data_format"] = data_format
    fields = {field.name for field in dataclasses.fields(kind)}
    options = {key: value for key, value in config.items() if not FOR_TRAINING.fullmatch(key) and key != WANTED_SHAPE}
    trained = training_config(config)
    unknown = {key: value for key, value in options.items() if key not in fields and value is not None}
    if unknown:
        raise ValueError(
            f"Layer {config.get('name')!r} of kind {kind.__name__} has options that are not known: "
            + shortened(repr(unknown))
        )
    if isinstance(options.get("layer"), Mapping):
        options["layer"] = _inner_layer(options["layer"], config["name"])
    if "layers_in_order" in options:
        options["layers_in_order"] = [_inner_layer(each, config["name"]) for each in options["layers_in_order"]]
    if isinstance(options.get("activation"), Mapping):
        options["activation"] = _activation(options["activation"], config["name"])
    known: dict[str, Any] = {
        key: tuple(value) if key == "layers_in_order" else hashable(value)
        for key, value in options.items()
        if key in fields
    }
    # Registered classes get the stored values unchecked.
    given = checked_options(kind, known) if kind in KINDS.values() else known
    return kind(**given, dtype=dtype, **trained)


def training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The training options of a configuration: `trainable`, regularizers and constraints.

    Warns:
        UserWarning: There are constraints or custom regularizers, which training here ignores.
    """
    given = {key: config[key] for key in sorted(config) if PENALTY.fullmatch(key) and config[key]}
    known = {
        key: value
        for key, value in given.items()
        if isinstance(value, Mapping) and value.get("class_name") in PENALTIES
    }
    constraints = [key for key in given if key.endswith("_constraint")]
    unknown = [key for key in given if key not in known]
    if constraints or unknown:
        dropped = f"{' and '.join(sorted({*constraints, *unknown}))}, which training here ignores"
        warnings.warn(f"Layer {config.get('name')!r} has {dropped}", stacklevel=2)
    written = tuple((key, json.dumps(value, sort_keys=True)) for key, value in known.items())
    return {"trainable": checked_flag(config.get("trainable", True), "trainable"), "training_options": written}


def _inner_layer(entry: Mapping[str, Any], name: str) -> Layer:
    """Build a layer held by another layer.

    Raises:
        ValueError: The inner layer cannot be imported.
    """
    kind = KINDS.get(entry["class_name"])
    reason = entry.get("refused") or refusal(entry, KINDS)
    if reason or kind is None:
        raise ValueError(f"{name} (holds {reason or entry['class_name']})")
    return layer_from_config(entry, kind)


def _activation(value: Mapping[str, Any], name: str) -> Layer:
    """Build an activation that is given as a layer.

    Raises:
        ValueError: The layer class is unknown or has weights.
    """
    kind = getattr(layers, value["class_name"], None)
    if value.get("registered_name") or not isinstance(kind, type) or not issubclass(kind, Layer):
        raise ValueError(f"The activation {value.get('registered_name') or value['class_name']!r} is not known")
    if kind.__name__ in LAYOUT or kind.__name__ in WRAPPERS:
        raise ValueError(f"The activation is a layer of kind {kind.__name__}, which has weights")
    return layer_from_config(value, kind)


def compute_dtype(policy: Any) -> str:
    """The compute dtype of a Keras dtype policy ("mixed_bfloat16" computes in bfloat16).

    Raises:
        ValueError: `policy` is not a dtype policy with a dtype of real numbers.
    """
    name = policy
    if isinstance(policy, Mapping):
        inside = policy.get("config")
        name = inside.get("name", policy) if isinstance(inside, Mapping) else policy
    if name is None or (isinstance(name, str) and "infer" in name):
        return "float32"  # "infer": tf.keras of TensorFlow 1.14 to 2.1 used the dtype of the first input
    return checked_dtype(name.removeprefix("mixed_") if isinstance(name, str) else name)


def hashable(value: Any) -> Any:
    """Convert JSON lists to tuples, and objects to sorted pairs."""
    if isinstance(value, Mapping):
        return tuple((key, hashable(value[key])) for key in sorted(value))
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value
