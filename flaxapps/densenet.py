"""DenseNet: every layer takes the outputs of all previous ones (Huang et al., https://arxiv.org/abs/1608.06993)."""

from functools import partial

from flaxapps.applications.application import (
    Application,
    Architecture,
    application,
    pooled_classifier,
)
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    MaxPooling2D,
    ZeroPadding2D,
)

GROWTH_RATE = 32  # channels that each layer of a dense block adds
EPSILON = 1.001e-5  # as in Keras


def features(blocks: tuple[int, ...], image: Node) -> Node:
    """Builds the stem and four dense blocks (table 1 of the paper), with a halving transition after the first three."""
    x = ZeroPadding2D(3)(image)
    x = Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = normalized_relu(x, "conv1_bn", "conv1_relu")
    x = ZeroPadding2D(1)(x)
    x = MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, layers in enumerate(blocks, 2):
        for layer in range(1, layers + 1):
            x = dense_layer(x, f"conv{stage}_block{layer}")
        if stage < len(blocks) + 1:
            x = transition(x, f"pool{stage}")
    return normalized_relu(x, "bn", "relu")


def dense_layer(x: Node, name: str) -> Node:
    """Applies a 1x1 and a 3x3 convolution, and concatenates the result with the input."""
    y = normalized_relu(x, f"{name}_0_bn", f"{name}_0_relu")
    y = Conv2D(4 * GROWTH_RATE, 1, use_bias=False, name=f"{name}_1_conv")(y)
    y = normalized_relu(y, f"{name}_1_bn", f"{name}_1_relu")
    y = Conv2D(GROWTH_RATE, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y)
    return Concatenate(name=f"{name}_concat")([x, y])


def transition(x: Node, name: str) -> Node:
    """Halves channels, height and width."""
    x = normalized_relu(x, f"{name}_bn", f"{name}_relu")
    x = Conv2D(channel_count(x.shape) // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


def normalized_relu(x: Node, normalization: str, activation: str) -> Node:
    """Applies BatchNormalization and ReLU, with the given layer names."""
    return Activation("relu", name=activation)(BatchNormalization(epsilon=EPSILON, name=normalization)(x))


def densenet(
    function: str, *, blocks: tuple[int, ...], parameters: int, depth: int, top1: float, top5: float
) -> Application:
    """Creates a DenseNet with `blocks[i]` layers in dense block i."""
    info = ModelInfo(
        name=function.lower(),
        function=function,
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        preprocessing="torch",
        parameters=parameters,
        reference="https://arxiv.org/abs/1608.06993",
        depth=depth,
        top1=top1,
        top5=top5,
        channels_first=False,
    )
    return application(info, Architecture(partial(features, blocks), pooled_classifier, ("avg_pool", "max_pool")))


DenseNet121 = densenet("DenseNet121", blocks=(6, 12, 24, 16), parameters=8_062_504, depth=242, top1=75.0, top5=92.3)
DenseNet169 = densenet("DenseNet169", blocks=(6, 12, 32, 32), parameters=14_307_880, depth=338, top1=76.2, top5=93.2)
DenseNet201 = densenet("DenseNet201", blocks=(6, 12, 48, 32), parameters=20_242_984, depth=402, top1=77.3, top5=93.6)
preprocess_input = preprocessing("torch", __name__)
