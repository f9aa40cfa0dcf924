"""Keras 1: convert classes and options to those of Keras 2.

Source: keras/legacy/interfaces.py of Keras 2.0, which read such files.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Options = dict[str, Any]

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "AtrousConvolution1D": "Conv1D",
        "AtrousConvolution2D": "Conv2D",
        "AtrousConv1D": "Conv1D",
        "AtrousConv2D": "Conv2D",
        "Convolution1D": "Conv1D",
        "Convolution2D": "Conv2D",
        "Convolution3D": "Conv3D",
        "Deconvolution2D": "Conv2DTranspose",
        "Deconvolution3D": "Conv3DTranspose",
        "SeparableConvolution2D": "SeparableConv2D",
    }
)
# Options of every class. Initializers (`init`, ...) do not matter because weights are loaded.
OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "nb_filter": "filters",
        "border_mode": "padding",
        "subsample": "strides",
        "subsample_length": "strides",
        "filter_length": "kernel_size",
        "atrous_rate": "dilation_rate",
        "dim_ordering": "data_format",
        "bias": "use_bias",
        "init": "kernel_initializer",
        "W_regularizer": "kernel_regularizer",
        "b_regularizer": "bias_regularizer",
        "W_constraint": "kernel_constraint",
        "b_constraint": "bias_constraint",
        "depthwise_init": "depthwise_initializer",
        "pointwise_init": "pointwise_initializer",
        "beta_init": "beta_initializer",
        "gamma_init": "gamma_initializer",
    }
)
OPTIONS_OF: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "Dense": {"output_dim": "units"},
        "Dropout": {"p": "rate"},
        "GaussianDropout": {"p": "rate"},
        "GaussianNoise": {"sigma": "stddev"},
        "SpatialDropout1D": {"p": "rate"},
        "SpatialDropout2D": {"p": "rate"},
        "SpatialDropout3D": {"p": "rate"},
        "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
        "AveragePooling1D": {"pool_length": "pool_size", "stride": "strides"},
        "UpSampling1D": {"length": "size"},
        "PReLU": {"init": "alpha_initializer"},
    }
)
# Options of Keras 1 that do not affect the result: redundant shapes, and initial weights.
KERNEL_SIZES = ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col")
DROPPED = ("weights", "output_shape", *KERNEL_SIZES)
# Option of a transposed convolution: its stored output shape. Keras 1 let users choose it within the strides. Keras 2
# has `output_padding` instead and ignores the shape in files.
WANTED_SHAPE = "wanted_shape"
VALUES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"data_format": {"th": "channels_first", "tf": "channels_last"}}
)
MERGES: Mapping[str, str] = MappingProxyType(
    {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
)


def as_keras2(kind: str, options: Mapping[str, Any]) -> tuple[str, Options]:
    """Convert a layer of Keras 1 to the names of Keras 2.

    Returns:
        The class and the configuration in Keras 2. Names of Keras 2 are kept.

    Raises:
        ValueError: The layer has no equivalent in later versions of Keras.
    """
    special = SPECIAL.get(kind)
    output_shape = options.get("output_shape") if kind.startswith("Deconvolution") else None
    if special is not None:
        kind, options = special(dict(options))
    kind = CLASSES.get(kind, kind)
    sizes = [options[key] for key in KERNEL_SIZES if key in options]
    names = {**OPTIONS, **OPTIONS_OF.get(kind, {})}
    named = {
        names.get(option, option): VALUES.get(names.get(option, option), {}).get(value, value)
        if isinstance(value, str)
        else value
        for option, value in options.items()
        if option not in DROPPED
    }
    if sizes:
        named["kernel_size"] = sizes
    if output_shape is not None:
        named[WANTED_SHAPE] = output_shape
    for option in [option for option in named if option.endswith(("_regularizer", "_constraint"))]:
        named[option] = _penalty(named[option])
    return kind, named


def _penalty(value: Any) -> Any:
    """Convert a regularizer or constraint, whose options Keras 1 wrote beside its name."""
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    kind = {"WeightRegularizer": "L1L2", "L1L2Regularizer": "L1L2"}.get(value["name"], value["name"])
    options = {{"m": "max_value"}.get(key, key): each for key, each in value.items() if key != "name"}
    return {"class_name": kind, "config": options}


def _merge(options: Options) -> tuple[str, Options]:
    mode, name = options.get("mode", "sum"), options.get("name")
    if options.get("layers"):
        raise ValueError(f"Layer {name!r} of kind Merge holds its input layers, which only Keras 1 supports")
    shared: Options = {"name": name, "trainable": options.get("trainable", True)}
    if mode == "concat":
        return "Concatenate", {**shared, "axis": options.get("concat_axis", -1)}
    if mode in ("dot", "cos"):
        return "Dot", {**shared, "axes": options.get("dot_axes", -1), "normalize": mode == "cos"}
    if mode in MERGES:
        return MERGES[mode], shared
    raise ValueError(f"Layer {name!r} of kind Merge: mode {mode!r} is Python code, which is never run")


def _batch_normalization(options: Options) -> tuple[str, Options]:
    mode = options.pop("mode", 0)
    if mode:
        raise ValueError(
            f"Layer {options.get('name')!r} of kind BatchNormalization: mode={mode} normalizes each batch or sample "
            "separately, which no later version of Keras does"
        )
    return "BatchNormalization", options


def _highway(options: Options) -> tuple[str, Options]:
    raise ValueError(f"Layer {options.get('name')!r} is of a kind that Keras 2 removed")


SPECIAL: Mapping[str, Callable[[Options], tuple[str, Options]]] = MappingProxyType(
    {"Merge": _merge, "BatchNormalization": _batch_normalization, "Highway": _highway, "MaxoutDense": _highway}
)
