"""InceptionResNetV2: Inception branches whose sum is added to the input (Szegedy et al., https://arxiv.org/abs/1602.07261)."""

from functools import partial

from flaxapps.applications.application import Architecture, application, pooled_classifier
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.shapes import Window, channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.layers import Activation, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, MaxPooling2D
from flaxapps.layers.applications import CustomScaleLayer

Branch = list[tuple[int, Window]]

# Filters and kernels of the branches at the end of the stem, in front of the last one, which pools.
STEM: list[Branch] = [[(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]]
# Those of the residual blocks: figures 16, 17 and 19 of the paper.
RESIDUAL: dict[str, list[Branch]] = {
    "block35": [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]],
    "block17": [[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]],
    "block8": [[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]],
}
# The blocks between them, whose last convolutions have stride 2.
HALVING: dict[str, list[Branch]] = {
    "mixed_6a": [[(384, 3)], [(256, 1), (256, 3), (384, 3)]],
    "mixed_7a": [[(256, 1), (384, 3)], [(256, 1), (288, 3)], [(256, 1), (288, 3), (320, 3)]],
}


def convolution(
    x: Node, filters: int, kernel: Window, strides: int = 1, padding: str = "same", name: str | None = None
) -> Node:
    """Applies a convolution, BatchNormalization and ReLU."""
    x = Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False, name=name)(x)
    x = BatchNormalization(scale=False, name=name and f"{name}_bn")(x)
    return Activation("relu", name=name and f"{name}_ac")(x)


unpadded = partial(convolution, padding="valid")


def features(image: Node) -> Node:
    """Builds the stem, and 10, 20 and 10 residual blocks."""
    x = unpadded(image, 32, 3, strides=2)
    x = unpadded(x, 32, 3)
    x = convolution(x, 64, 3)
    x = MaxPooling2D(3, strides=2)(x)
    x = unpadded(x, 80, 1)
    x = unpadded(x, 192, 3)
    x = MaxPooling2D(3, strides=2)(x)
    outputs = [chain(x, branch) for branch in STEM]
    outputs.append(convolution(AveragePooling2D(3, strides=1, padding="same")(x), 64, 1))
    x = Concatenate(name="mixed_5b")(outputs)
    for number in range(1, 11):
        x = residual_block(x, "block35", number, scale=0.17)
    x = halving_block(x, "mixed_6a")
    for number in range(1, 21):
        x = residual_block(x, "block17", number, scale=0.1)
    x = halving_block(x, "mixed_7a")
    for number in range(1, 10):
        x = residual_block(x, "block8", number, scale=0.2)
    x = residual_block(x, "block8", 10, scale=1.0, activation=False)
    return convolution(x, 1536, 1, name="conv_7b")


def residual_block(x: Node, kind: str, number: int, scale: float, activation: bool = True) -> Node:
    """Adds the branches, brought to the number of channels of the input and scaled, to the input."""
    name = f"{kind}_{number}"
    mixed = Concatenate(name=f"{name}_mixed")([chain(x, branch) for branch in RESIDUAL[kind]])
    residual = Conv2D(channel_count(x.shape), 1, padding="same", name=f"{name}_conv")(mixed)
    x = CustomScaleLayer(scale)([x, residual])
    return Activation("relu", name=f"{name}_ac")(x) if activation else x


def halving_block(x: Node, name: str) -> Node:
    """Applies parallel branches whose last convolution has stride 2, and a max pooling."""
    outputs = []
    for *before, (filters, kernel) in HALVING[name]:
        outputs.append(unpadded(chain(x, before), filters, kernel, strides=2))
    return Concatenate(name=name)([*outputs, MaxPooling2D(3, strides=2)(x)])


def chain(x: Node, branch: Branch) -> Node:
    """Applies convolutions one after the other."""
    for filters, kernel in branch:
        x = convolution(x, filters, kernel)
    return x


InceptionResNetV2 = application(
    ModelInfo(
        name="inception_resnet_v2",
        function="InceptionResNetV2",
        module=__name__,
        default_size=299,
        min_size=75,
        possible_size=75,
        preprocessing="tf",
        parameters=55_873_736,
        depth=449,
        top1=80.3,
        top5=95.3,
        reference="https://arxiv.org/abs/1602.07261",
    ),
    Architecture(features, pooled_classifier),
)
preprocess_input = preprocessing("tf", __name__)
