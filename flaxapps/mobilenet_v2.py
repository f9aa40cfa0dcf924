"""MobileNetV2: inverted residuals with linear bottlenecks (Sandler et al., https://arxiv.org/abs/1801.04381)."""

from functools import partial
from typing import Protocol

from flaxapps.applications.application import (
    Architecture,
    ClassifierActivation,
    ImageShape,
    NetworkFunction,
    Weights,
    application,
)
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.applications.padding import correct_pad
from flaxapps.applications.widths import check_width, rounded
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalAveragePooling2D,
    ReLU,
    ZeroPadding2D,
)
from flaxapps.model import Network

# Table 2 of the paper: expansion, filters, number of blocks, strides of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


def features(alpha: float, image: Node) -> Node:
    """Builds a convolution, 17 inverted residual blocks, and a 1x1 convolution."""
    x = Conv2D(rounded(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="Conv1")(image)
    x = ReLU(6.0, name="Conv1_relu")(normalized(x, "bn_Conv1"))
    number = 0
    for expansion, filters, blocks, strides in STAGES:
        for block in range(blocks):
            name = f"block_{number}_" if number else "expanded_conv_"
            x = inverted_residual(x, expansion, rounded(int(filters * alpha)), 1 if block else strides, name)
            number += 1
    x = Conv2D(rounded(1280 * max(alpha, 1.0)), 1, use_bias=False, name="Conv_1")(x)
    return ReLU(6.0, name="out_relu")(normalized(x, "Conv_1_bn"))


def inverted_residual(inputs: Node, expansion: int, filters: int, strides: int, name: str) -> Node:
    """Applies expansion, depthwise convolution and linear projection, with a shortcut if the shapes allow it."""
    x, channels = inputs, channel_count(inputs.shape)
    if expansion != 1:
        x = Conv2D(expansion * channels, 1, padding="same", use_bias=False, name=f"{name}expand")(x)
        x = ReLU(6.0, name=f"{name}expand_relu")(normalized(x, f"{name}expand_BN"))
    if strides == 2:
        x = ZeroPadding2D(correct_pad(x, 3), name=f"{name}pad")(x)
    padding = "valid" if strides == 2 else "same"
    x = DepthwiseConv2D(3, strides=strides, padding=padding, use_bias=False, name=f"{name}depthwise")(x)
    x = ReLU(6.0, name=f"{name}depthwise_relu")(normalized(x, f"{name}depthwise_BN"))
    x = Conv2D(filters, 1, padding="same", use_bias=False, name=f"{name}project")(x)
    x = normalized(x, f"{name}project_BN")
    return Add(name=f"{name}add")([inputs, x]) if channels == filters and strides == 1 else x


def normalized(x: Node, name: str) -> Node:
    """Applies BatchNormalization."""
    return BatchNormalization(momentum=0.999, name=name)(x)


def classifier(x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling and one dense layer."""
    return Dense(classes, activation=activation, name="predictions")(GlobalAveragePooling2D()(x))


def layout(weights: Weights, alpha: float = 1.0) -> Architecture:
    """Creates the layout of this width.

    Raises:
        ValueError: `weights` is "imagenet", and no weights are published for the width.
    """
    alpha = check_width(weights, alpha, WIDTHS)
    return Architecture(
        partial(features, alpha), classifier, alpha=alpha, published=f"{alpha}_{{rows}}", measures_input_tensor=True
    )


class MobileNetV2Function(NetworkFunction, Protocol):
    """Type of `MobileNetV2`, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        input_shape: ImageShape | None = None, alpha: float = 1.0, include_top: bool = True,
        weights: Weights = "imagenet", input_tensor: Node | None = None, pooling: str | None = None,
        classes: int = 1000, classifier_activation: ClassifierActivation = "softmax", name: str | None = None, *,
        variant: str = "", data_format: str | None = None, dtype: str | None = None, min_size: int | None = None,
        seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            alpha: Factor of the numbers of filters; 0.35, 0.5, 0.75, 1, 1.3 or 1.4 for "imagenet".
        """
        ...


MobileNetV2 = application(
    ModelInfo(
        name="mobilenet_v2",
        keras_name="mobilenetv2_{alpha:.2f}_{rows}",
        function="MobileNetV2",
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        published_sizes=(96, 128, 160, 192, 224),
        preprocessing="tf",
        parameters=3_538_984,
        depth=105,
        top1=71.3,
        top5=90.1,
        reference="https://arxiv.org/abs/1801.04381",
    ),
    layout,
    signature=MobileNetV2Function,
)
preprocess_input = preprocessing("tf", __name__)
