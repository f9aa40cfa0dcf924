"""Xception: depthwise separable convolutions with residual connections (Chollet, https://arxiv.org/abs/1610.02357)."""

import os
from functools import partial

from flaxapps.decoding import decode_predictions as decode_predictions
from flaxapps.layers import (
    Activation,
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    MaxPooling2D,
    SeparableConv2D,
)
from flaxapps.network import Activation as ActivationArgument
from flaxapps.network import Architecture, ImageShape, Network, build_network
from flaxapps.preprocessing import ArrayT
from flaxapps.preprocessing import preprocess_input as preprocess
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo

INFO = ModelInfo(
    name="xception",
    function="Xception",
    default_size=299,
    min_size=71,
    possible_size=71,
    preprocessing="tf",
    parameters=22_910_480,
    depth=81,
    top1=79.0,
    top5=94.5,
    reference="https://arxiv.org/abs/1610.02357",
    channels_first=False,
)

# Figure 5 of the paper. Blocks that halve the image, with the filters of their two separable convolutions.
ENTRY_FLOW = {"block2": (128, 128), "block3": (256, 256), "block4": (728, 728)}
MIDDLE_FLOW = ("block5", "block6", "block7", "block8", "block9", "block10", "block11", "block12")
EXIT_FLOW = {"block13": (728, 1024)}
EXIT_FILTERS = (1536, 2048)

relu = partial(Activation, "relu")


def features(image: Node) -> Node:
    """The 36 convolutions, in 14 blocks."""
    x = image
    for number, (filters, strides) in enumerate(((32, 2), (64, 1)), 1):
        x = Conv2D(filters, 3, strides=strides, use_bias=False, name=f"block1_conv{number}")(x)
        x = BatchNormalization(name=f"block1_conv{number}_bn")(x)
        x = relu(name=f"block1_conv{number}_act")(x)
    for block, widths in ENTRY_FLOW.items():
        x = halving_block(x, block, widths)
    for block in MIDDLE_FLOW:
        residual = x
        for number in (1, 2, 3):
            x = relu(name=f"{block}_sepconv{number}_act")(x)
            x = separable(x, 728, f"{block}_sepconv{number}")
        x = Add()([x, residual])
    for block, widths in EXIT_FLOW.items():
        x = halving_block(x, block, widths)
    for number, filters in enumerate(EXIT_FILTERS, 1):
        x = separable(x, filters, f"block14_sepconv{number}")
        x = relu(name=f"block14_sepconv{number}_act")(x)
    return x


def halving_block(x: Node, block: str, filters: tuple[int, int]) -> Node:
    """Two separable convolutions and a max-pooling beside a strided 1x1 convolution."""
    residual = Conv2D(filters[1], 1, strides=2, padding="same", use_bias=False)(x)
    residual = BatchNormalization()(residual)
    if block != "block2":  # the stem has just ended in an activation
        x = relu(name=f"{block}_sepconv1_act")(x)
    x = separable(x, filters[0], f"{block}_sepconv1")
    x = relu(name=f"{block}_sepconv2_act")(x)
    x = separable(x, filters[1], f"{block}_sepconv2")
    x = MaxPooling2D(3, strides=2, padding="same", name=f"{block}_pool")(x)
    return Add()([x, residual])


def separable(x: Node, filters: int, name: str) -> Node:
    """A 3x3 separable convolution with its normalization."""
    x = SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return BatchNormalization(name=f"{name}_bn")(x)


def classifier(x: Node, classes: int, activation: ActivationArgument) -> Node:
    """Global mean and one dense layer."""
    x = GlobalAveragePooling2D(name="avg_pool")(x)
    return Dense(classes, activation=activation, name="predictions")(x)


ARCHITECTURES = {"": Architecture(features, classifier)}


def Xception(  # noqa: N802 (Keras's name)
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Node | None = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: ActivationArgument = "softmax",
    *,
    data_format: str | None = None,
    dtype: str | None = None,
    min_size: int | None = None,
    seed: int = 0,
) -> Network:
    """Xception, the network of https://arxiv.org/abs/1610.02357.

    Images are 299 x 299 by default and at least 71 x 71,
    preprocessed by `preprocess_input` of this module (-1..1).

    Args:
        include_top: Whether to put the classifier on the features.
        weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
        input_tensor: A Node to use as the image, in place of a new Input.
        input_shape: Shape of one image; without the classifier, None leaves the size free, as do None dimensions.
        pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for a vector per image.
        classes: Number of classes of the classifier; 1000 for "imagenet".
        classifier_activation: Activation of the classifier; None returns logits.
        data_format: "channels_last", the only layout this network takes, or None.
        dtype: Compute dtype such as "bfloat16"; parameters and statistics stay float32. None is keras.json's floatx.
        min_size: Lowers the smallest image size that is accepted, in pixels.
        seed: Seed of the initializers where weights is None.

    Returns:
        Network(model, variables).

    Raises:
        ValueError: The arguments break a rule; the message says which and what would be right.
        WeightError: The weights cannot be had, or do not fit.
    """
    return build_network(INFO, ARCHITECTURES[""], **locals())


def preprocess_input(x: ArrayT, data_format: str | None = None) -> ArrayT:
    """Scales pixels to -1..1.

    Args:
        x: Images with values in 0..255, RGB, of 3 or 4 dimensions; NumPy or JAX. Never changed.
        data_format: "channels_last", "channels_first", or None for keras.json's.

    Returns:
        An array of the same kind and shape; integers become float32.
    """
    return preprocess(x, data_format, mode=INFO.preprocessing)
