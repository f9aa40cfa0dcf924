"""EfficientNetV2: its first stages have no depthwise convolutions (Tan and Le, https://arxiv.org/abs/2104.00298)."""

import math
from functools import partial
from typing import NamedTuple, Protocol

from flaxapps.applications.application import (
    Architecture,
    ClassifierActivation,
    ImageShape,
    NetworkFunction,
    Weights,
    application,
)
from flaxapps.applications.imagenet_utils import TORCH_MEAN_RGB, TORCH_STANDARD_DEVIATION_RGB, preprocessing
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.info import ModelInfo
from flaxapps.efficientnet import TOP_FILTERS, classifier, convolution, depthwise, squeeze_and_excite
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.layers import Activation, Add, BatchNormalization, Dropout, Normalization, Rescaling
from flaxapps.model import Network


class Stage(NamedTuple):
    """A row of table 4 of the paper: blocks of one kind. The first has the strides."""

    fused: bool
    repeats: int
    filters: int
    expand_ratio: int
    strides: int


BASE = (
    Stage(True, 1, 16, expand_ratio=1, strides=1),
    Stage(True, 2, 32, expand_ratio=4, strides=2),
    Stage(True, 2, 48, expand_ratio=4, strides=2),
    Stage(False, 3, 96, expand_ratio=4, strides=2),
    Stage(False, 5, 112, expand_ratio=6, strides=1),
    Stage(False, 8, 192, expand_ratio=6, strides=2),
)
SMALL = (
    Stage(True, 2, 24, expand_ratio=1, strides=1),
    Stage(True, 4, 48, expand_ratio=4, strides=2),
    Stage(True, 4, 64, expand_ratio=4, strides=2),
    Stage(False, 6, 128, expand_ratio=4, strides=2),
    Stage(False, 9, 160, expand_ratio=6, strides=1),
    Stage(False, 15, 256, expand_ratio=6, strides=2),
)
MEDIUM = (
    Stage(True, 3, 24, expand_ratio=1, strides=1),
    Stage(True, 5, 48, expand_ratio=4, strides=2),
    Stage(True, 5, 80, expand_ratio=4, strides=2),
    Stage(False, 7, 160, expand_ratio=4, strides=2),
    Stage(False, 14, 176, expand_ratio=6, strides=1),
    Stage(False, 18, 304, expand_ratio=6, strides=2),
    Stage(False, 5, 512, expand_ratio=6, strides=1),
)
LARGE = (
    Stage(True, 4, 32, expand_ratio=1, strides=1),
    Stage(True, 7, 64, expand_ratio=4, strides=2),
    Stage(True, 7, 96, expand_ratio=4, strides=2),
    Stage(False, 10, 192, expand_ratio=4, strides=2),
    Stage(False, 19, 224, expand_ratio=6, strides=1),
    Stage(False, 25, 384, expand_ratio=6, strides=2),
    Stage(False, 7, 640, expand_ratio=6, strides=1),
)
DROPOUT_RATE = 0.2

normalization = partial(BatchNormalization, momentum=0.9)
swish = partial(Activation, "swish")


class Scaling(NamedTuple):
    """The stages of a network, filters of its stem, and factors of all filters and repeats."""

    stages: tuple[Stage, ...]
    stem: int
    width: float = 1.0
    depth: float = 1.0


def features(scaling: Scaling, include_preprocessing: bool, drop_connect_rate: float, image: Node) -> Node:
    """Builds scaling of the image, stem, stages and the last convolution."""
    x = scaled(scaling, image) if include_preprocessing else image
    x = convolution(rounded(scaling.stem, scaling.width), 3, strides=2, use_bias=False, name="stem_conv")(x)
    x = swish(name="stem_activation")(normalization(name="stem_bn")(x))
    # Keras counts the blocks before their number is scaled, so that the last rate of B1 to B3 is above the given one.
    unscaled = sum(stage.repeats for stage in scaling.stages)
    number = 0
    for place, stage in enumerate(scaling.stages, 1):
        stage = stage._replace(filters=rounded(stage.filters, scaling.width))
        for letter in range(math.ceil(scaling.depth * stage.repeats)):
            rate = drop_connect_rate * number / unscaled
            x = block(x, stage, rate, f"block{place}{chr(ord('a') + letter)}_")
            stage = stage._replace(strides=1)
            number += 1
    x = convolution(rounded(TOP_FILTERS, scaling.width), 1, use_bias=False, name="top_conv")(x)
    return swish(name="top_activation")(normalization(name="top_bn")(x))


def scaled(scaling: Scaling, image: Node) -> Node:
    """Scales images as the network was trained: B0 to B3 on normalized colours, the others on values from -1 to 1."""
    if scaling.stages is not BASE or channel_count(image.shape) != 3:
        return Rescaling(1 / 128, offset=-1.0)(image)
    variance = tuple(deviation**2 for deviation in TORCH_STANDARD_DEVIATION_RGB)
    return Normalization(mean=TORCH_MEAN_RGB, variance=variance)(Rescaling(1 / 255)(image))


def rounded(filters: int, width: float) -> int:
    """Scales a number of filters to a multiple of 8."""
    return max(8, int(filters * width + 4) // 8 * 8)


def block(inputs: Node, stage: Stage, drop_rate: float, name: str) -> Node:
    """Applies expansion, squeeze-and-excite and projection, with a shortcut if shapes allow.

    A fused block expands by a 3x3 convolution, the others by a 1x1 and a depthwise 3x3 convolution. Only the latter
    squeeze and excite. A fused block that does not expand is one convolution.
    """
    channels = channel_count(inputs.shape)
    expanded, x = channels * stage.expand_ratio, inputs
    if stage.expand_ratio != 1:
        kernel, strides = (3, stage.strides) if stage.fused else (1, 1)
        x = convolution(expanded, kernel, strides=strides, use_bias=False, name=f"{name}expand_conv")(x)
        x = swish(name=f"{name}expand_activation")(normalization(name=f"{name}expand_bn")(x))
    if not stage.fused:
        x = depthwise(3, strides=stage.strides, padding="same", name=f"{name}dwconv2")(x)
        x = swish(name=f"{name}activation")(normalization(name=f"{name}bn")(x))
        x = squeeze_and_excite(x, max(1, channels // 4), name)
    kernel, strides = (1, 1) if stage.expand_ratio != 1 else (3, stage.strides)
    x = convolution(stage.filters, kernel, strides=strides, use_bias=False, name=f"{name}project_conv")(x)
    x = normalization(name=f"{name}project_bn")(x)
    if stage.expand_ratio == 1:
        x = swish(name=f"{name}project_activation")(x)
    if stage.strides == 1 and channels == stage.filters:
        if drop_rate:  # of whole images of a batch
            x = Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
        x = Add(name=f"{name}add")([x, inputs])
    return x


class EfficientNetV2Function(NetworkFunction, Protocol):
    """Type of the functions of EfficientNetV2, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        include_top: bool = True, weights: Weights = "imagenet", input_tensor: Node | None = None,
        input_shape: ImageShape | None = None, pooling: str | None = None, classes: int = 1000,
        classifier_activation: ClassifierActivation = "softmax", include_preprocessing: bool = True,
        name: str | None = None, *, drop_connect_rate: float = 0.2, variant: str = "", data_format: str | None = None,
        dtype: str | None = None, min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            include_preprocessing: Whether the network itself scales its images, of values 0 to 255.
            drop_connect_rate: In training, the fraction of images that skip the last block. It grows linearly from the
                first block on.
        """
        ...


def network(
    function: str, scaling: Scaling, size: int, parameters: int, *, top1: float, top5: float
) -> EfficientNetV2Function:
    """Creates an EfficientNetV2 with these stages, for images of `size` x `size` pixels."""
    info = ModelInfo(
        name=function.lower().replace("v2", "v2-"),
        function=function,
        module=__name__,
        default_size=size,
        min_size=32,
        possible_size=32,
        preprocessing="none",
        preprocessing_inside="torch" if scaling.stages is BASE else None,
        parameters=parameters,
        reference="https://arxiv.org/abs/2104.00298",
        top1=top1,
        top5=top5,
    )

    def layout(include_preprocessing: bool, drop_connect_rate: float) -> Architecture:
        build = partial(features, scaling, include_preprocessing, drop_connect_rate)
        return Architecture(build, partial(classifier, DROPOUT_RATE), ("avg_pool", "max_pool"))

    return application(info, layout, signature=EfficientNetV2Function)


# Stages, filters of the stem, factors (width, depth); image size, number of parameters.
EfficientNetV2B0 = network("EfficientNetV2B0", Scaling(BASE, 32), 224, 7_200_312, top1=78.7, top5=94.3)
EfficientNetV2B1 = network("EfficientNetV2B1", Scaling(BASE, 32, 1.0, 1.1), 240, 8_212_124, top1=79.8, top5=95.0)
EfficientNetV2B2 = network("EfficientNetV2B2", Scaling(BASE, 32, 1.1, 1.2), 260, 10_178_374, top1=80.5, top5=95.1)
EfficientNetV2B3 = network("EfficientNetV2B3", Scaling(BASE, 32, 1.2, 1.4), 300, 14_467_622, top1=82.0, top5=95.8)
EfficientNetV2S = network("EfficientNetV2S", Scaling(SMALL, 24), 384, 21_612_360, top1=83.9, top5=96.7)
EfficientNetV2M = network("EfficientNetV2M", Scaling(MEDIUM, 24), 480, 54_431_388, top1=85.3, top5=97.4)
EfficientNetV2L = network("EfficientNetV2L", Scaling(LARGE, 32), 480, 119_027_848, top1=85.7, top5=97.5)
preprocess_input = preprocessing("none", __name__)
