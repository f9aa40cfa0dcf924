"""EfficientNet: one network scaled in width, depth and image size at once (Tan and Le, https://arxiv.org/abs/1905.11946)."""

import math
import os
import warnings
from functools import partial
from typing import NamedTuple, Protocol

from flaxapps import layers
from flaxapps.applications.application import (
    Architecture,
    ClassifierActivation,
    ImageShape,
    NetworkFunction,
    Weights,
    application,
)
from flaxapps.applications.imagenet_utils import TORCH_STANDARD_DEVIATION_RGB, preprocessing
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.info import ModelInfo
from flaxapps.applications.padding import correct_pad
from flaxapps.applications.widths import rounded
from flaxapps.graph.initializers import VarianceScaling
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.model import Network


class Stage(NamedTuple):
    """A row of table 1 of the paper: blocks of one kind. The first has the strides."""

    kernel_size: int
    repeats: int
    filters: int
    expand_ratio: int
    strides: int


STAGES = (
    Stage(3, 1, 16, expand_ratio=1, strides=1),
    Stage(3, 2, 24, expand_ratio=6, strides=2),
    Stage(5, 2, 40, expand_ratio=6, strides=2),
    Stage(3, 3, 80, expand_ratio=6, strides=2),
    Stage(5, 3, 112, expand_ratio=6, strides=1),
    Stage(5, 4, 192, expand_ratio=6, strides=2),
    Stage(3, 1, 320, expand_ratio=6, strides=1),
)
STEM_FILTERS, TOP_FILTERS = 32, 1280

NORMAL = VarianceScaling(2.0, "fan_out", "truncated_normal")
convolution = partial(layers.Conv2D, padding="same", kernel_initializer=NORMAL)
depthwise = partial(layers.DepthwiseConv2D, use_bias=False, depthwise_initializer=NORMAL)


class Scaling(NamedTuple):
    """Factors of the base network: table of section 5 of the paper, as Keras has it."""

    width: float
    depth: float
    dropout: float


def features(scaling: Scaling, pretrained: bool, drop_connect_rate: float, image: Node) -> Node:
    """Builds scaling of the image, stem, seven stages and the last convolution."""
    x = layers.Normalization()(layers.Rescaling(1 / 255)(image))
    if pretrained:
        # The published weights were trained on images divided by the variance, Normalization divides by its root.
        # Keras adds this for weights="imagenet" only, not for a path of the same file.
        x = layers.Rescaling(tuple(1 / math.sqrt(deviation) for deviation in TORCH_STANDARD_DEVIATION_RGB))(x)
    x = layers.ZeroPadding2D(correct_pad(x, 3), name="stem_conv_pad")(x)
    stem = rounded(STEM_FILTERS * scaling.width)
    x = convolution(stem, 3, strides=2, padding="valid", use_bias=False, name="stem_conv")(x)
    x = normalized_swish(x, "stem_bn", "stem_activation")
    repeats = [math.ceil(scaling.depth * stage.repeats) for stage in STAGES]
    number = 0
    for place, (stage, times) in enumerate(zip(STAGES, repeats, strict=True), 1):
        scaled = stage._replace(filters=rounded(stage.filters * scaling.width))
        for letter in range(times):
            rate = drop_connect_rate * number / sum(repeats)
            x = inverted_bottleneck(x, scaled, rate, f"block{place}{chr(ord('a') + letter)}_")
            scaled = scaled._replace(strides=1)
            number += 1
    x = convolution(rounded(TOP_FILTERS * scaling.width), 1, use_bias=False, name="top_conv")(x)
    return normalized_swish(x, "top_bn", "top_activation")


def inverted_bottleneck(inputs: Node, stage: Stage, drop_rate: float, name: str) -> Node:
    """Applies expansion, depthwise convolution, squeeze-and-excite and projection, with a shortcut if shapes allow."""
    channels = channel_count(inputs.shape)
    x = inputs
    if stage.expand_ratio != 1:
        x = convolution(channels * stage.expand_ratio, 1, use_bias=False, name=f"{name}expand_conv")(x)
        x = normalized_swish(x, f"{name}expand_bn", f"{name}expand_activation")
    if stage.strides == 2:
        x = layers.ZeroPadding2D(correct_pad(x, stage.kernel_size), name=f"{name}dwconv_pad")(x)
    padding = "valid" if stage.strides == 2 else "same"
    x = depthwise(stage.kernel_size, strides=stage.strides, padding=padding, name=f"{name}dwconv")(x)
    x = normalized_swish(x, f"{name}bn", f"{name}activation")
    x = squeeze_and_excite(x, max(1, channels // 4), name)
    x = convolution(stage.filters, 1, use_bias=False, name=f"{name}project_conv")(x)
    x = layers.BatchNormalization(name=f"{name}project_bn")(x)
    if stage.strides == 1 and channels == stage.filters:
        if drop_rate:  # of whole images of a batch
            x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
        x = layers.Add(name=f"{name}add")([x, inputs])
    return x


def squeeze_and_excite(x: Node, filters: int, name: str) -> Node:
    """Scales every channel by a factor computed from the means of all channels."""
    channels = channel_count(x.shape)
    factors = layers.GlobalAveragePooling2D(name=f"{name}se_squeeze")(x)
    factors = layers.Reshape((1, 1, channels), name=f"{name}se_reshape")(factors)
    factors = convolution(filters, 1, activation="swish", name=f"{name}se_reduce")(factors)
    factors = convolution(channels, 1, activation="sigmoid", name=f"{name}se_expand")(factors)
    return layers.Multiply(name=f"{name}se_excite")([x, factors])


def normalized_swish(x: Node, normalization: str, activation: str) -> Node:
    """Applies BatchNormalization and swish, with the given layer names."""
    return layers.Activation("swish", name=activation)(layers.BatchNormalization(name=normalization)(x))


def classifier(dropout: float, x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling, dropout and one dense layer."""
    x = layers.Dropout(dropout, name="top_dropout")(layers.GlobalAveragePooling2D(name="avg_pool")(x))
    start = VarianceScaling(1 / 3, "fan_out", "uniform")
    return layers.Dense(classes, activation=activation, kernel_initializer=start, name="predictions")(x)


class EfficientNetFunction(NetworkFunction, Protocol):
    """Type of the functions of EfficientNet, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        include_top: bool = True, weights: Weights = "imagenet", input_tensor: Node | None = None,
        input_shape: ImageShape | None = None, pooling: str | None = None, classes: int = 1000,
        classifier_activation: ClassifierActivation = "softmax", name: str | None = None, *,
        drop_connect_rate: float = 0.2, variant: str = "", data_format: str | None = None, dtype: str | None = None,
        min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            drop_connect_rate: In training, the fraction of images that skip the last block. It grows linearly from the
                first block on.
        """
        ...


def efficientnet(
    function: str, scaling: Scaling, size: int, parameters: int, depth: int, *, top1: float, top5: float
) -> EfficientNetFunction:
    """Creates an EfficientNet with these factors, for images of `size` x `size` pixels."""
    info = ModelInfo(
        name=function.lower(),
        function=function,
        module=__name__,
        default_size=size,
        min_size=32,
        possible_size=32,
        preprocessing="none",
        parameters=parameters,
        reference="https://arxiv.org/abs/1905.11946",
        depth=depth,
        top1=top1,
        top5=top5,
    )

    def layout(weights: Weights, drop_connect_rate: float) -> Architecture:
        if weights and os.path.basename(weights) in {file.filename for file in info.weight_files}:
            warnings.warn(
                f"{weights} has the name of a published file. As in Keras, {function} scales images as those weights "
                "need it with weights='imagenet' only, which takes the file from Keras's cache or FLAXAPPS_MIRROR.",
                stacklevel=5,
            )
        build = partial(features, scaling, weights == "imagenet", drop_connect_rate)
        return Architecture(build, partial(classifier, scaling.dropout), ("avg_pool", "max_pool"))

    return application(info, layout, signature=EfficientNetFunction)


# Factors (width, depth) and rate of dropout, image size, number of parameters, depth.
EfficientNetB0 = efficientnet("EfficientNetB0", Scaling(1.0, 1.0, 0.2), 224, 5_330_571, 132, top1=77.1, top5=93.3)
EfficientNetB1 = efficientnet("EfficientNetB1", Scaling(1.0, 1.1, 0.2), 240, 7_856_239, 186, top1=79.1, top5=94.4)
EfficientNetB2 = efficientnet("EfficientNetB2", Scaling(1.1, 1.2, 0.3), 260, 9_177_569, 186, top1=80.1, top5=94.9)
EfficientNetB3 = efficientnet("EfficientNetB3", Scaling(1.2, 1.4, 0.3), 300, 12_320_535, 210, top1=81.6, top5=95.7)
EfficientNetB4 = efficientnet("EfficientNetB4", Scaling(1.4, 1.8, 0.4), 380, 19_466_823, 258, top1=82.9, top5=96.4)
EfficientNetB5 = efficientnet("EfficientNetB5", Scaling(1.6, 2.2, 0.4), 456, 30_562_527, 312, top1=83.6, top5=96.7)
EfficientNetB6 = efficientnet("EfficientNetB6", Scaling(1.8, 2.6, 0.5), 528, 43_265_143, 360, top1=84.0, top5=96.8)
EfficientNetB7 = efficientnet("EfficientNetB7", Scaling(2.0, 3.1, 0.5), 600, 66_658_687, 438, top1=84.3, top5=97.0)
preprocess_input = preprocessing("none", __name__)
