"""Spelling: rename classes and options of all versions to those of Keras 3.15.

Sources: keras/legacy/interfaces.py of Keras 2.0 (names of Keras 1), keras/layers of Keras 2.0.0 to 2.15.0 and
tensorflow/python/keras/layers of TensorFlow 1.13 to 2.15 (`get_config` of every class).
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flaxapps.saving.dialects.keras1 import as_keras2
from flaxapps.saving.dialects.version import Version

# Renamed classes.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "BatchNormalizationV1": "BatchNormalization",
        "BatchNormalizationV2": "BatchNormalization",
        "SyncBatchNormalization": "BatchNormalization",
        "Convolution1D": "Conv1D",
        "Convolution2D": "Conv2D",
        "Convolution3D": "Conv3D",
        "Convolution2DTranspose": "Conv2DTranspose",
        "Convolution3DTranspose": "Conv3DTranspose",
        "SeparableConvolution2D": "SeparableConv2D",
        "GroupQueryAttention": "GroupedQueryAttention",
        "ThresholdedReLU": "ReLU",
    }
)
# Options by which a first layer describes the model's input. The importer reads them; the layer does not use them.
OF_THE_INPUT = ("batch_input_shape", "batch_size", "input_dtype", "input_dim", "input_length", "input_shape")
TAKES_INPUT_DIM = ("Embedding",)  # classes with an option of that name
# Options renamed in Keras 3, or here.
OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "AdditiveAttention": {"causal": "use_causal_mask"},  # an argument of the call since TensorFlow 2.11
        "Attention": {"causal": "use_causal_mask"},
        "LeakyReLU": {"alpha": "negative_slope"},
        "InputLayer": {"batch_input_shape": "batch_shape"},
        "EinsumDense": {"output_shape": "output_size"},
        "MultiHeadAttention": {"output_shape": "output_size"},
        "Pipeline": {"layers": "layers_in_order"},
        "ReLU": {"theta": "threshold"},
    }
)
# Options that never affect the result: implementation choices, or moving averages used in training only.
IGNORED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "BatchNormalization": ("fused", "renorm_momentum", "renorm_clipping", "synchronized"),
        "MultiHeadAttention": ("query_shape", "key_shape", "value_shape"),  # tf.keras: shapes of the first call
        "InputLayer": ("sparse", "ragged", "optional", "type_spec", "data_format"),
        "RandomRotation": ("value_range",),
    }
)
# Includes LoRA: Keras adds its product to the kernel when it saves.
IGNORED_EVERYWHERE = (
    "bounding_box_format",
    "flash_attention",
    "lora_rank",
    "lora_alpha",
    "dynamic",
    "implementation",
    "experimental_autocast",
)
# Options without effect at these values; other values are refused.
WITHOUT_EFFECT: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Conv1DTranspose": {"groups": 1},
        "Conv2DTranspose": {"groups": 1},
        "Conv3DTranspose": {"groups": 1},
        "DepthwiseConv1D": {"groups": 1},
        "DepthwiseConv2D": {"groups": 1},
        "SeparableConv1D": {"groups": 1},
        "SeparableConv2D": {"groups": 1},
        "AdditiveAttention": {"causal": False},
        "Attention": {"causal": False},
        "BatchNormalization": {"renorm": False, "virtual_batch_size": None, "adjustment": None, "mode": 0},
    }
)
# Keras 3 names of TensorFlow functions in files.
ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "exp": "exponential",
        "log_softmax_v2": "log_softmax",
        "relu_v2": "relu",
        "softmax_v2": "softmax",
        "swish_v1": "swish",
    }
)


def spelled(entry: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """Rename the class and options of a layer's entry to those of Keras 3.15.

    Args:
        entry: `class_name`, `config` and other stored keys of a layer that is not a model.
        version: The Keras that wrote it.

    Raises:
        ValueError: The layer is quantized, or an option of Keras 1 has a value that later versions do not support.
    """
    kind, options = entry["class_name"], dict(entry["config"])
    if version.major < 2:
        kind, options = as_keras2(kind, options)
    kind = CLASSES.get(kind, kind)
    if options.pop("quantization_config", None) or _is_quantized(options.get("dtype")):
        raise ValueError(
            f"{options.get('name')} ({kind}, which Keras has quantized: it computes with integers, other numbers than "
            "before; save the model before `quantize`)"
        )
    if kind != "InputLayer":
        for option in OF_THE_INPUT:
            if option != "input_dim" or kind not in TAKES_INPUT_DIM:
                options.pop(option, None)
    for option in (*IGNORED.get(kind, ()), *IGNORED_EVERYWHERE):
        options.pop(option, None)
    for option, value in WITHOUT_EFFECT.get(kind, {}).items():
        if option in options and options[option] == value:
            del options[option]
    renamed = OPTIONS.get(kind, {})
    options = {renamed.get(option, option): plain(value) for option, value in options.items()}
    if kind == "BatchNormalization" and isinstance(options.get("axis"), list) and len(options["axis"]) == 1:
        options["axis"] = options["axis"][0]  # tf.keras writes a single axis as a list
    if "activation" in options:
        options["activation"] = _activation(options["activation"], version)
    return {**entry, "class_name": kind, "config": options}


def _is_quantized(policy: Any) -> bool:
    """Whether a dtype policy is one that `model.quantize` sets."""
    return isinstance(policy, Mapping) and str(policy.get("class_name")).startswith("Quantized")


def plain(value: Any) -> Any:
    """Unwrap the NumPy numbers and tuples that Keras 2.13 and Keras 3 wrap in objects."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__", "__ndarray__"):
        return value["config"]["value"] if isinstance(value.get("config"), Mapping) else value.get("value")
    if isinstance(value, Mapping) and value.get("class_name") in ("__tuple__", "TensorShape", "__list__"):
        return plain(value["items"])
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def _activation(value: Any, version: Version) -> Any:
    """The name of an activation; an activation layer stays an entry."""
    if isinstance(value, Mapping) and value.get("class_name") == "function":
        foreign = not re.match(r"(keras|tf_keras|tensorflow|builtins|jax)\b", value.get("module") or "keras")
        name = str(value["config"])
        value = f">{name}" if foreign and ">" not in name else name  # ">" marks custom functions
    elif isinstance(value, Mapping) and isinstance(value.get("config"), Mapping):
        return spelled(value, version)
    if not isinstance(value, str):
        return value
    return ACTIVATIONS.get(value, value)
