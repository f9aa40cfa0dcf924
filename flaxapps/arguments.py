"""The rules that arguments of a network keep, checked before anything is built or downloaded.

They are Keras 3's (keras/src/applications/imagenet_utils.py), apart from the smallest sizes, which are the documented
ones, and from pooling, which Keras does not check.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flaxapps.activations import get_activation
from flaxapps.config import FLOAT_TYPES, image_data_format, standardize_data_format
from flaxapps.paths import as_path, in_bucket
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo

Size = int | None


def check_weights(weights: str | os.PathLike[str] | None, include_top: bool, classes: int) -> None:
    """Checks what `weights` says and that `classes` goes with it.

    Raises:
        ValueError: Neither None, "imagenet" nor the path of a file; or pretrained classes that are not 1000.
    """
    if not (weights is None or weights == "imagenet" or (not isinstance(weights, int) and _is_there(weights))):
        raise ValueError(
            "The `weights` argument should be either `None` (random initialization), 'imagenet' (pre-training on "
            f"ImageNet), or the path to the weights file to be loaded.  Received: weights={weights}"
        )
    if weights == "imagenet" and include_top and classes != 1000:
        raise ValueError(
            "If using `weights='imagenet'` with `include_top=True`, `classes` should be 1000.  "
            f"Received classes={classes}"
        )
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"`classes` should be a positive number of classes.  Received classes={classes}")


def _is_there(path: str | os.PathLike[str]) -> bool:
    return as_path(path).exists() if in_bucket(path) else os.path.exists(path)


def check_head(
    pooling: str | None,
    classifier_activation: str | Callable[..., Any] | None,
    weights: str | os.PathLike[str] | None,
    include_top: bool,
) -> None:
    """Checks what stands on the features.

    Raises:
        ValueError: Unknown pooling or activation, or an activation that pretrained weights were not trained with.
    """
    if isinstance(classifier_activation, str):
        get_activation(classifier_activation)
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` should be None, 'avg' or 'max'.  Received: pooling={pooling}")
    if include_top and weights is not None and classifier_activation not in (None, "linear", "softmax"):
        raise ValueError(
            "Only `None` and `softmax` activations are allowed for the `classifier_activation` argument when using "
            "pretrained weights, with `include_top=True`; "
            f"Received: classifier_activation={classifier_activation}"
        )


def check_dtype(dtype: str | None) -> None:
    """Checks that a network can compute in `dtype`.

    Raises:
        ValueError: It is not a floating-point dtype.
    """
    if dtype is not None and dtype not in FLOAT_TYPES:
        raise ValueError(f"`dtype` should be one of {', '.join(FLOAT_TYPES)}, or None.  Received: dtype={dtype!r}")


def check_data_format(info: ModelInfo, data_format: str | None) -> str:
    """The data format in force: the argument, or else keras.json's.

    Raises:
        ValueError: An unknown format, or channels_first for a network that has only channels_last.
    """
    if not info.channels_first:
        if data_format is None and image_data_format() == "channels_first":
            warnings.warn(
                f"{info.function} takes channels_last images only: image_data_format of keras.json is not followed.",
                stacklevel=4,
            )
            return "channels_last"
        if data_format == "channels_first":
            raise ValueError(f"{info.function} takes channels_last images only.  Received: data_format={data_format}")
    return standardize_data_format(data_format)


def check_input_shape(
    info: ModelInfo,
    input_shape: Sequence[Size] | None,
    *,
    data_format: str,
    include_top: bool,
    weights: str | os.PathLike[str] | None,
    min_size: int | None,
) -> tuple[Size, ...]:
    """The shape of one image, in the layout of `data_format`.

    Args:
        info: The network.
        input_shape: What the user gave; None takes the default size with the classifier, free sizes without.
        data_format: Layout of the shape.
        include_top: Whether the classifier stands on the features.
        weights: As the user gave them.
        min_size: Replaces the documented smallest size.

    Raises:
        ValueError: The shape breaks one of Keras's rules.
    """
    pretrained = weights == "imagenet"
    shape = None if input_shape is None else tuple(input_shape)
    if shape is not None and len(shape) != 3:
        raise ValueError(f"`input_shape` must be a tuple of three integers.  Received: input_shape={input_shape}")
    channels_at = 0 if data_format == "channels_first" else 2
    channels = 3 if shape is None or pretrained else shape[channels_at]
    default = _shape(info.default_size, channels, data_format)
    if shape is None:
        return default if include_top else _shape(None, channels, data_format)
    if pretrained and include_top and shape != default:
        raise ValueError(
            f"When setting `include_top=True` and loading `imagenet` weights, `input_shape` should be {default}.  "
            f"Received: input_shape={shape}"
        )
    if shape[channels_at] != 3 and pretrained:
        raise ValueError(f"The input must have 3 channels; Received `input_shape={shape}`")
    if shape[channels_at] not in (1, 3):
        if not isinstance(shape[channels_at], int):
            raise ValueError(f"The number of channels must be known; Received `input_shape={shape}`")
        warnings.warn(
            "This model usually expects 1 or 3 input channels. However, it was passed an input_shape with "
            f"{shape[channels_at]} input channels.",
            stacklevel=4,
        )
    smallest = info.min_size if min_size is None else min_size
    sizes = [size for index, size in enumerate(shape) if index != channels_at]
    if any(size is not None and size < smallest for size in sizes):
        hint = "" if min_size is not None else f" (`min_size=` lowers this check, to {info.possible_size} at least)"
        raise ValueError(f"Input size must be at least {smallest}x{smallest}; Received: input_shape={shape}{hint}")
    if include_top and None in shape:
        raise ValueError(
            f"If `include_top` is True, you should specify a static `input_shape`. Received: input_shape={shape}"
        )
    return shape


def _shape(size: Size, channels: Size, data_format: str) -> tuple[Size, ...]:
    return (channels, size, size) if data_format == "channels_first" else (size, size, channels)


def check_input_tensor(input_tensor: Any, dtype: str | None) -> Node:
    """Checks that `input_tensor` can carry a network.

    Raises:
        ValueError: Not a Node of images, or a `dtype` that belongs to its Input.
    """
    if not isinstance(input_tensor, Node) or len(input_tensor.shape) != 4:
        raise ValueError(
            "`input_tensor` should be a Node of images, such as Input((224, 224, 3)) or the output of a layer.  "
            f"Received: input_tensor={input_tensor!r}"
        )
    if dtype is not None:
        raise ValueError("With `input_tensor`, the compute dtype belongs to its Input: Input(shape, dtype=...)")
    return input_tensor
