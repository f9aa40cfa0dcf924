"""Xception: depthwise separable convolutions with residual connections (Chollet, https://arxiv.org/abs/1610.02357)."""

from functools import partial

from flaxapps.applications.application import Architecture, application, pooled_classifier
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    Add,
    BatchNormalization,
    Conv2D,
    MaxPooling2D,
    SeparableConv2D,
)

# Figure 5 of the paper: blocks that halve the image, with the filters of their two separable convolutions.
ENTRY_FLOW = {"block2": (128, 128), "block3": (256, 256), "block4": (728, 728)}
MIDDLE_FLOW = ("block5", "block6", "block7", "block8", "block9", "block10", "block11", "block12")
EXIT_FLOW = {"block13": (728, 1024)}
EXIT_FILTERS = (1536, 2048)

relu = partial(Activation, "relu")


def features(image: Node) -> Node:
    """Builds the 36 convolutions, in 14 blocks."""
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
    """Applies two separable convolutions and a max pooling, and a strided 1x1 convolution as shortcut."""
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
    """Applies a 3x3 separable convolution and BatchNormalization."""
    x = SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return BatchNormalization(name=f"{name}_bn")(x)


Xception = application(
    ModelInfo(
        name="xception",
        function="Xception",
        module=__name__,
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
    ),
    Architecture(features, pooled_classifier),
)
preprocess_input = preprocessing("tf", __name__)
