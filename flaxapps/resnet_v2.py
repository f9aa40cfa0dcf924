"""ResNet50V2, 101V2 and 152V2: normalization before the convolutions (He et al., https://arxiv.org/abs/1603.05027)."""

from functools import partial

from flaxapps.applications.application import Application, Architecture, application, pooled_classifier
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers import Activation, Add, BatchNormalization, Conv2D, MaxPooling2D, ZeroPadding2D
from flaxapps.resnet import BLOCKS, FILTERS


def features(layers: int, image: Node) -> Node:
    """Builds the stem and four stages. Unlike in ResNet, the last block of a stage halves the image."""
    x = ZeroPadding2D(3, name="conv1_pad")(image)
    x = Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    x = ZeroPadding2D(1, name="pool1_pad")(x)
    x = MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (blocks, filters) in enumerate(zip(BLOCKS[layers], FILTERS, strict=True), 2):
        for block in range(1, blocks + 1):
            strides = 2 if block == blocks and stage < 5 else 1
            x = bottleneck(x, filters, strides, project=block == 1, name=f"conv{stage}_block{block}")
    return normalized_relu(x, "post_bn", "post_relu")


def bottleneck(x: Node, filters: int, strides: int, project: bool, name: str) -> Node:
    """Applies 1x1, 3x3 and 1x1 convolutions, each after a normalization, and adds the input (figure 4e)."""
    preactivation = normalized_relu(x, f"{name}_preact_bn", f"{name}_preact_relu")
    if project:
        shortcut = Conv2D(4 * filters, 1, strides=strides, name=f"{name}_0_conv")(preactivation)
    else:
        shortcut = MaxPooling2D(1, strides=strides)(x) if strides > 1 else x
    x = Conv2D(filters, 1, use_bias=False, name=f"{name}_1_conv")(preactivation)
    x = normalized_relu(x, f"{name}_1_bn", f"{name}_1_relu")
    x = ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = Conv2D(filters, 3, strides=strides, use_bias=False, name=f"{name}_2_conv")(x)
    x = normalized_relu(x, f"{name}_2_bn", f"{name}_2_relu")
    x = Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    return Add(name=f"{name}_out")([shortcut, x])


def normalized_relu(x: Node, normalization: str, activation: str) -> Node:
    """Applies BatchNormalization and ReLU, with the given layer names."""
    return Activation("relu", name=activation)(BatchNormalization(epsilon=1.001e-5, name=normalization)(x))


def resnet_v2(function: str, *, layers: int, parameters: int, depth: int, top1: float, top5: float) -> Application:
    """Creates a ResNetV2 with this number of layers that have weights."""
    info = ModelInfo(
        name=function.lower(),
        function=function,
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        preprocessing="tf",
        parameters=parameters,
        reference="https://arxiv.org/abs/1603.05027",
        depth=depth,
        top1=top1,
        top5=top5,
    )
    return application(
        info, Architecture(partial(features, layers), pooled_classifier, pooling_names=("avg_pool", "max_pool"))
    )


ResNet50V2 = resnet_v2("ResNet50V2", layers=50, parameters=25_613_800, depth=103, top1=76.0, top5=93.0)
ResNet101V2 = resnet_v2("ResNet101V2", layers=101, parameters=44_675_560, depth=205, top1=77.2, top5=93.8)
ResNet152V2 = resnet_v2("ResNet152V2", layers=152, parameters=60_380_648, depth=307, top1=78.0, top5=94.2)
preprocess_input = preprocessing("tf", __name__)
