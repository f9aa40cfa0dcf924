"""Checks of the arguments of a network, made before anything is built or downloaded.

They are Keras 3's (keras/src/applications/imagenet_utils.py), with two differences: the smallest sizes are the
documented ones, and `pooling` is checked too.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers.activations import get_activation
from flaxapps.runtime.files import as_path, in_bucket
from flaxapps.runtime.keras_settings import FLOAT_TYPES, image_data_format, standardize_data_format

Size = int | None


def check_weights(weights: str | os.PathLike[str] | None, include_top: bool, classes: int) -> None:
    """Checks `weights`, and that `classes` fits them.

    Raises:
        ValueError: `weights` is not None, "imagenet" or the path of a file; `classes` is not 1000 with the pretrained
            classifier; or it is not a positive integer.
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


def check_variant(info: ModelInfo, variant: str, variants: Iterable[str]) -> None:
    """Checks that a network has a variant.

    Raises:
        ValueError: The network has no such variant; the message lists its variants.
    """
    if variant not in variants:
        known = " or ".join(map(repr, variants))
        raise ValueError(f"`variant` of {info.function} should be {known}.  Received: variant={variant!r}")


def check_head(
    pooling: str | None,
    classifier_activation: str | Callable[..., Any] | None,
    weights: str | os.PathLike[str] | None,
    include_top: bool,
) -> None:
    """Checks pooling and activation, which follow the features.

    Raises:
        ValueError: Pooling or activation is unknown, or pretrained weights were not trained with the activation.
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
        ValueError: `dtype` is not a floating-point dtype.
    """
    if dtype is not None and dtype not in FLOAT_TYPES:
        raise ValueError(f"`dtype` should be one of {', '.join(FLOAT_TYPES)}, or None.  Received: dtype={dtype!r}")


def check_data_format(info: ModelInfo, data_format: str | None) -> str:
    """Resolves the data format: the argument, else that of keras.json.

    Raises:
        ValueError: The format is unknown, or channels_first for a channels_last-only network.
    """
    if not info.channels_first:
        if data_format is None and image_data_format() == "channels_first":
            warnings.warn(
                f"{info.function} takes channels_last images only: image_data_format of keras.json is ignored.",
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
    """Resolves the shape of one image, in the layout of `data_format`.

    Args:
        info: Facts about the network.
        input_shape: The user's argument; None takes free sizes where the network has them, else the default size.
        data_format: Layout of the shape.
        include_top: Whether the network has the classifier.
        weights: The user's argument.
        min_size: Replaces the documented smallest size.

    Raises:
        ValueError: The shape breaks one of Keras's rules.
    """
    pretrained = weights == "imagenet"
    shape = None if input_shape is None else tuple(input_shape)
    if shape is not None and len(shape) != 3:
        raise ValueError(f"`input_shape` must be a tuple of three integers.  Received: input_shape={input_shape}")
    if pretrained and shape is not None and None in shape and not info.free_size:
        raise ValueError(
            "When specifying the input shape of a NASNet and loading `ImageNet` weights, the input_shape argument must "
            f"be static (no None entries).  Received: input_shape={shape}"
        )
    channels_at = 0 if data_format == "channels_first" else 2
    channels = 3 if shape is None or pretrained else shape[channels_at]
    if shape is None:
        free = info.any_size or (info.free_size and not include_top)
        return _shape(None if free else info.default_size, channels, data_format)
    sizes = [size for index, size in enumerate(shape) if index != channels_at]
    published = sizes[0] if sizes[0] == sizes[1] and sizes[0] in info.published_sizes else info.default_size
    default = _shape(published, channels, data_format)
    if pretrained and include_top and shape != default and not info.any_size:
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
    if any(size is not None and size < smallest for size in sizes):
        hint = "" if min_size is not None else f" (`min_size=` lowers this check, to {info.possible_size} at least)"
        raise ValueError(f"Input size must be at least {smallest}x{smallest}; Received: input_shape={shape}{hint}")
    if include_top and None in shape and not info.any_size:
        raise ValueError(
            f"If `include_top` is True, you should specify a static `input_shape`. Received: input_shape={shape}"
        )
    if not info.free_size and None in shape:
        # Keras builds a model for such a shape, which then takes images of no size.
        raise ValueError(
            f"{info.function} is built for one size of images: `input_shape` should be static.  "
            f"Received: input_shape={shape}"
        )
    return shape


def _shape(size: Size, channels: Size, data_format: str) -> tuple[Size, ...]:
    return (channels, size, size) if data_format == "channels_first" else (size, size, channels)


def check_input_tensor(input_tensor: Any, dtype: str | None) -> Node:
    """Checks that a network can be built on `input_tensor`.

    Raises:
        ValueError: `input_tensor` is not a Node of images, or `dtype` is given, which belongs to its Input.
    """
    if not isinstance(input_tensor, Node) or len(input_tensor.shape) != 4:
        raise ValueError(
            "`input_tensor` should be a Node of images, such as Input((224, 224, 3)) or the output of a layer.  "
            f"Received: input_tensor={input_tensor!r}"
        )
    if dtype is not None:
        raise ValueError("With `input_tensor`, the compute dtype belongs to its Input: Input(shape, dtype=...)")
    return input_tensor


def check_both_shapes(
    info: ModelInfo, given: Sequence[Size] | None, image: Node, include_top: bool
) -> tuple[Size, ...]:
    """Resolves the size of the images of a network that looks at `input_tensor`, (height, width).

    Args:
        info: Facts about the network.
        given: Height and width of the user's `input_shape`; None if there is none.
        image: The user's `input_tensor`.
        include_top: Whether the network has the classifier.

    Raises:
        ValueError: The sizes differ.
    """
    height, width = image.shape[1:3]
    if given is None:
        # As in Keras: without the classifier, the size counts as free.
        return (height, width) if include_top and height == width in info.published_sizes else _free(info, include_top)
    if (height, width) != tuple(given):
        raise ValueError(
            f"`input_shape` must have the size of `input_tensor`, {height} x {width}.  "
            f"Received: {given[0]} x {given[1]}"
        )
    return tuple(given)


def _free(info: ModelInfo, include_top: bool) -> tuple[Size, ...]:
    return (info.default_size, info.default_size) if include_top else (None, None)


def resolve_rows(info: ModelInfo, sizes: Sequence[Size], weights: str | os.PathLike[str] | None) -> Size:
    """Resolves the image height that names the model and its published weights.

    Warns where weights are published for several sizes, and `sizes` is none of them: as in Keras, those of the default
    size are used.

    Args:
        info: Facts about the network.
        sizes: Height and width of the images.
        weights: The user's argument.
    """
    height, width = sizes
    if weights != "imagenet" or not info.published_sizes or height == width in info.published_sizes:
        return height
    known = ", ".join(map(str, sorted(info.published_sizes)))
    warnings.warn(
        f"The weights of {info.function} are published for square images of {known} pixels, not for {height} x "
        f"{width}. Those for {info.default_size} are loaded.",
        stacklevel=4,
    )
    return info.default_size
