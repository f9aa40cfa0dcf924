"""MobileNetV3, small and large: searched blocks with squeeze-and-excite (Howard et al., https://arxiv.org/abs/1905.02244)."""

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
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.applications.padding import correct_pad
from flaxapps.applications.widths import check_width, rounded
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.model import Network


class Block(NamedTuple):
    """A row of table 1 or 2 of the paper; minimalistic networks have kernels of 3, no squeeze-and-excite, and ReLU."""

    kernel_size: int
    expansion: float
    filters: int
    excite: bool
    swish: bool
    strides: int


SMALL = (
    Block(3, 1, 16, excite=True, swish=False, strides=2),
    Block(3, 72 / 16, 24, excite=False, swish=False, strides=2),
    Block(3, 88 / 24, 24, excite=False, swish=False, strides=1),
    Block(5, 4, 40, excite=True, swish=True, strides=2),
    *(Block(5, 6, 40, excite=True, swish=True, strides=1),) * 2,
    *(Block(5, 3, 48, excite=True, swish=True, strides=1),) * 2,
    Block(5, 6, 96, excite=True, swish=True, strides=2),
    *(Block(5, 6, 96, excite=True, swish=True, strides=1),) * 2,
)
LARGE = (
    Block(3, 1, 16, excite=False, swish=False, strides=1),
    Block(3, 4, 24, excite=False, swish=False, strides=2),
    Block(3, 3, 24, excite=False, swish=False, strides=1),
    Block(5, 3, 40, excite=True, swish=False, strides=2),
    *(Block(5, 3, 40, excite=True, swish=False, strides=1),) * 2,
    Block(3, 6, 80, excite=False, swish=True, strides=2),
    Block(3, 2.5, 80, excite=False, swish=True, strides=1),
    *(Block(3, 2.3, 80, excite=False, swish=True, strides=1),) * 2,
    *(Block(3, 6, 112, excite=True, swish=True, strides=1),) * 2,
    Block(5, 6, 160, excite=True, swish=True, strides=2),
    *(Block(5, 6, 160, excite=True, swish=True, strides=1),) * 2,
)


def activated(x: Node, swish: bool) -> Node:
    """Applies hard swish, x * hard_sigmoid(x), or ReLU."""
    return layers.Activation("hard_swish")(x) if swish else layers.ReLU()(x)


def features(blocks: tuple[Block, ...], alpha: float, swish: bool, include_preprocessing: bool, image: Node) -> Node:
    """Builds scaling of the image, a convolution, the blocks, and a 1x1 convolution."""
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image) if include_preprocessing else image
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = activated(normalized(x, "conv_bn"), swish)
    for number, block in enumerate(blocks):
        scaled = block._replace(filters=rounded(block.filters * alpha))
        x = inverted_residual(x, scaled, f"expanded_conv_{number}_" if number else "expanded_conv_")
    channels = rounded(6 * channel_count(x.shape))
    x = layers.Conv2D(channels, 1, padding="same", use_bias=False, name="conv_1")(x)
    return activated(normalized(x, "conv_1_bn"), swish)


def inverted_residual(inputs: Node, block: Block, name: str) -> Node:
    """Applies expansion, depthwise convolution, squeeze-and-excite and projection, with a shortcut if shapes allow."""
    x, channels = inputs, channel_count(inputs.shape)
    expanded = rounded(channels * block.expansion)
    if block.expansion != 1:
        x = layers.Conv2D(expanded, 1, padding="same", use_bias=False, name=f"{name}expand")(x)
        x = activated(normalized(x, f"{name}expand_bn"), block.swish)
    if block.strides == 2:
        x = layers.ZeroPadding2D(correct_pad(x, block.kernel_size), name=f"{name}depthwise_pad")(x)
    depthwise = partial(layers.DepthwiseConv2D, block.kernel_size, use_bias=False, name=f"{name}depthwise")
    x = depthwise(strides=block.strides, padding="valid" if block.strides == 2 else "same")(x)
    x = activated(normalized(x, f"{name}depthwise_bn"), block.swish)
    if block.excite:
        x = squeeze_and_excite(x, expanded, name)
    x = layers.Conv2D(block.filters, 1, padding="same", use_bias=False, name=f"{name}project")(x)
    x = normalized(x, f"{name}project_bn")
    return layers.Add(name=f"{name}add")([inputs, x]) if block.strides == 1 and channels == block.filters else x


def squeeze_and_excite(inputs: Node, channels: int, name: str) -> Node:
    """Scales every channel by a factor computed from the means of all channels."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}squeeze_excite_avg_pool")(inputs)
    x = layers.Conv2D(rounded(channels / 4), 1, padding="same", name=f"{name}squeeze_excite_conv")(x)
    x = layers.ReLU(name=f"{name}squeeze_excite_relu")(x)
    x = layers.Conv2D(channels, 1, padding="same", name=f"{name}squeeze_excite_conv_1")(x)
    x = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
    return layers.Multiply(name=f"{name}squeeze_excite_mul")([inputs, x])


def normalized(x: Node, name: str) -> Node:
    """Applies BatchNormalization."""
    return layers.BatchNormalization(momentum=0.999, name=name)(x)


def classifier(units: int, rate: float, swish: bool, x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling and two 1x1 convolutions, which take images of any size."""
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = activated(layers.Conv2D(units, 1, padding="same", name="conv_2")(x), swish)
    x = layers.Dropout(rate)(x) if rate > 0 else x
    x = layers.Conv2D(classes, 1, padding="same", name="logits")(x)
    return layers.Activation(activation, name="predictions")(layers.Flatten()(x))


class MobileNetV3Function(NetworkFunction, Protocol):
    """Type of the functions of MobileNetV3, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        input_shape: ImageShape | None = None, alpha: float = 1.0, minimalistic: bool = False,
        include_top: bool = True, weights: Weights = "imagenet", input_tensor: Node | None = None, classes: int = 1000,
        pooling: str | None = None, dropout_rate: float = 0.2,
        classifier_activation: ClassifierActivation = "softmax", include_preprocessing: bool = True,
        name: str | None = None, *, variant: str = "", data_format: str | None = None, dtype: str | None = None,
        min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            input_shape: Shape of one image, for example (200, 200, 3). None leaves the size free, as do None
                dimensions; the default size is that of the published weights.
            alpha: Factor of the numbers of filters; for "imagenet" 0.75 or 1, and 1 for a minimalistic network.
            minimalistic: Whether to do without squeeze-and-excite, hard swish and 5x5 convolutions.
            dropout_rate: Rate of the dropout before the classifier, in training.
            include_preprocessing: Whether the network scales images from 0 to 255 itself; otherwise they should be
                scaled to the range -1 to 1.
        """
        ...


def mobilenet_v3(
    size: str, *, blocks: tuple[Block, ...], units: int, parameters: int, top1: float
) -> MobileNetV3Function:
    """Creates a MobileNetV3 with these blocks, and with `units` before the classifier."""
    info = ModelInfo(
        name=f"mobilenet_v3_{size.lower()}",
        keras_name=f"MobileNetV3{size}",
        function=f"MobileNetV3{size}",
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        any_size=True,
        preprocessing="none",
        preprocessing_inside="tf",
        parameters=parameters,
        top1=top1,
        reference="https://arxiv.org/abs/1905.02244",
    )

    def layout(
        weights: Weights,
        alpha: float = 1.0,
        minimalistic: bool = False,
        dropout_rate: float = 0.2,
        include_preprocessing: bool = True,
    ) -> Architecture:
        alpha = check_width(weights, alpha, (1.0,) if minimalistic else (0.75, 1.0))
        plain = tuple(block._replace(kernel_size=3, excite=False, swish=False) for block in blocks)
        return Architecture(
            partial(features, plain if minimalistic else blocks, alpha, not minimalistic, include_preprocessing),
            partial(classifier, rounded(units * max(alpha, 1.0)), dropout_rate, not minimalistic),
            ("avg_pool", "max_pool"),
            published=f"{'minimalistic_' if minimalistic else ''}{alpha}",
            measures_input_tensor=True,
        )

    return application(info, layout, signature=MobileNetV3Function)


MobileNetV3Small = mobilenet_v3("Small", blocks=SMALL, units=1024, parameters=2_554_968, top1=68.1)
MobileNetV3Large = mobilenet_v3("Large", blocks=LARGE, units=1280, parameters=5_507_432, top1=75.6)
preprocess_input = preprocessing("none", __name__)
