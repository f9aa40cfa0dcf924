"""ResNet50, ResNet101 and ResNet152: bottleneck blocks with identity shortcuts (He et al., https://arxiv.org/abs/1512.03385)."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from flaxapps.applications.application import (
    Application,
    Architecture,
    ClassifierActivation,
    application,
    pooled_classifier,
)
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    ZeroPadding2D,
)

# Table 1 of the paper: numbers of blocks in stages 2 to 5 by depth, and filters of their first convolutions.
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FILTERS = (64, 128, 256, 512)


def features(layers: int, image: Node) -> Node:
    """Builds the stem and four stages, as Keras does since 2.2.3."""
    x = ZeroPadding2D(3, name="conv1_pad")(image)
    x = Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    x = BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x)
    x = Activation("relu", name="conv1_relu")(x)
    x = ZeroPadding2D(1, name="pool1_pad")(x)
    x = MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (blocks, filters) in enumerate(zip(BLOCKS[layers], FILTERS, strict=True), 2):
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and stage > 2 else 1
            x = bottleneck(x, filters, strides, project=block == 1, name=f"conv{stage}_block{block}")
    return x


def bottleneck(x: Node, filters: int, strides: int, project: bool, name: str) -> Node:
    """Applies 1x1, 3x3 and 1x1 convolutions, and a shortcut that is projected by a convolution if the shape changes."""

    def convolution(x: Node, number: int, filters: int, kernel: int, strides: int = 1) -> Node:
        x = Conv2D(filters, kernel, strides=strides, padding="same", name=f"{name}_{number}_conv")(x)
        return BatchNormalization(epsilon=1.001e-5, name=f"{name}_{number}_bn")(x)

    shortcut = convolution(x, 0, 4 * filters, 1, strides) if project else x
    x = convolution(x, 1, filters, 1, strides)
    x = Activation("relu", name=f"{name}_1_relu")(x)
    x = convolution(x, 2, filters, 3)
    x = Activation("relu", name=f"{name}_2_relu")(x)
    x = convolution(x, 3, 4 * filters, 1)
    x = Add(name=f"{name}_add")([shortcut, x])
    return Activation("relu", name=f"{name}_out")(x)


def features_keras2(image: Node) -> Node:
    """Builds the ResNet50 of Keras 2.0 and of the weight file of 2016: no padding before the pooling, epsilon 1e-3.

    The features end in a 7x7 average pooling, with and without the classifier.
    """
    x = ZeroPadding2D(3)(image)
    x = Conv2D(64, 7, strides=2, name="conv1")(x)
    x = BatchNormalization(name="bn_conv1")(x)
    x = Activation("relu")(x)
    x = MaxPooling2D(3, strides=2)(x)
    for stage, (blocks, filters) in enumerate(zip(BLOCKS[50], FILTERS, strict=True), 2):
        for block in "abcdef"[:blocks]:
            strides = 2 if block == "a" and stage > 2 else 1
            x = bottleneck_keras2(x, filters, strides, project=block == "a", name=f"{stage}{block}")
    return AveragePooling2D(7, name="avg_pool")(x)


def bottleneck_keras2(x: Node, filters: int, strides: int, project: bool, name: str) -> Node:
    """Applies the same block with the layer names of 2016. The shortcut is the second input of Add."""

    def convolution(x: Node, branch: str, filters: int, kernel: int, strides: int = 1) -> Node:
        x = Conv2D(filters, kernel, strides=strides, padding="same", name=f"res{name}_branch{branch}")(x)
        return BatchNormalization(name=f"bn{name}_branch{branch}")(x)

    shortcut = x
    x = convolution(x, "2a", filters, 1, strides)
    x = Activation("relu")(x)
    x = convolution(x, "2b", filters, 3)
    x = Activation("relu")(x)
    x = convolution(x, "2c", 4 * filters, 1)
    if project:
        shortcut = convolution(shortcut, "1", 4 * filters, 1, strides)
    return Activation("relu")(Add()([x, shortcut]))


def classifier_keras2(x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies one dense layer to the pooled features."""
    return Dense(classes, activation=activation, name="fc1000")(Flatten()(x))


def resnet(
    function: str,
    *,
    layers: int,
    min_size: int,
    parameters: int,
    depth: int,
    top1: float,
    top5: float,
    variants: Mapping[str, Architecture] = MappingProxyType({}),
) -> Application:
    """Creates a ResNet with this number of layers that have weights."""
    info = ModelInfo(
        name=function.lower(),
        function=function,
        module=__name__,
        default_size=224,
        min_size=min_size,
        possible_size=32,
        preprocessing="caffe",
        parameters=parameters,
        reference="https://arxiv.org/abs/1512.03385",
        depth=depth,
        top1=top1,
        top5=top5,
    )
    return application(
        info, Architecture(partial(features, layers), pooled_classifier, ("avg_pool", "max_pool")), variants
    )


ResNet50 = resnet(
    "ResNet50", layers=50, min_size=197, parameters=25_636_712, depth=107, top1=74.9, top5=92.1,
    variants={"keras2": Architecture(features_keras2, classifier_keras2)},
)  # fmt: skip # kept on few lines on purpose
ResNet101 = resnet("ResNet101", layers=101, min_size=32, parameters=44_707_176, depth=209, top1=76.4, top5=92.8)
ResNet152 = resnet("ResNet152", layers=152, min_size=32, parameters=60_419_944, depth=311, top1=76.6, top5=93.1)
preprocess_input = preprocessing("caffe", __name__)
