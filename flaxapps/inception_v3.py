"""InceptionV3: parallel branches of factorized convolutions (Szegedy et al., https://arxiv.org/abs/1512.00567)."""

from flaxapps.applications.application import Architecture, application, pooled_classifier
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    MaxPooling2D,
)

Branch = list[tuple[int, tuple[int, int]]]


def a_branches(pool_filters: int) -> list[Branch]:
    """Branches of figure 5 of the paper, 35 x 35: 1x1; 5x5; two 3x3; and 1x1 after a pooling."""
    return [
        [(64, (1, 1))],
        [(48, (1, 1)), (64, (5, 5))],
        [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))],
        [(pool_filters, (1, 1))],
    ]


def b_branches(filters: int) -> list[Branch]:
    """Branches of figure 6 of the paper, 17 x 17: 7x7 convolutions factorized into 1x7 and 7x1."""
    return [
        [(192, (1, 1))],
        [(filters, (1, 1)), (filters, (1, 7)), (192, (7, 1))],
        [(filters, (1, 1)), (filters, (7, 1)), (filters, (1, 7)), (filters, (7, 1)), (192, (1, 7))],
        [(192, (1, 1))],
    ]


# Filters and kernels of every mixed block but the last two, in order.
MIXED: list[tuple[str, list[Branch]]] = [
    ("mixed0", a_branches(32)),
    ("mixed1", a_branches(64)),
    ("mixed2", a_branches(64)),
    ("mixed3", [[(384, (3, 3))], [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]]),
    ("mixed4", b_branches(128)),
    ("mixed5", b_branches(160)),
    ("mixed6", b_branches(160)),
    ("mixed7", b_branches(192)),
    ("mixed8", [[(192, (1, 1)), (320, (3, 3))], [(192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3))]]),
]
HALVING = ("mixed3", "mixed8")


def convolution(x: Node, filters: int, kernel: tuple[int, int], strides: int = 1, padding: str = "same") -> Node:
    """Applies a convolution, BatchNormalization and ReLU."""
    x = Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False)(x)
    x = BatchNormalization(scale=False)(x)
    return Activation("relu")(x)


def features(image: Node) -> Node:
    """Builds the stem and the blocks mixed0 to mixed10."""
    x = convolution(image, 32, (3, 3), strides=2, padding="valid")
    x = convolution(x, 32, (3, 3), padding="valid")
    x = convolution(x, 64, (3, 3))
    x = MaxPooling2D(3, strides=2)(x)
    x = convolution(x, 80, (1, 1), padding="valid")
    x = convolution(x, 192, (3, 3), padding="valid")
    x = MaxPooling2D(3, strides=2)(x)
    for name, branches in MIXED:
        x = (halving_block if name in HALVING else block)(x, branches, name)
    for number in (9, 10):
        x = widest_block(x, number)
    return x


def block(x: Node, branches: list[Branch], name: str) -> Node:
    """Applies parallel branches, the last after an average pooling."""
    outputs = [chain(x, branch) for branch in branches[:-1]]
    outputs.append(chain(AveragePooling2D(3, strides=1, padding="same")(x), branches[-1]))
    return Concatenate(name=name)(outputs)


def halving_block(x: Node, branches: list[Branch], name: str) -> Node:
    """Applies parallel branches whose last convolution has stride 2, and a max pooling."""
    outputs = []
    for *before, (filters, kernel) in branches:
        outputs.append(convolution(chain(x, before), filters, kernel, strides=2, padding="valid"))
    return Concatenate(name=name)([*outputs, MaxPooling2D(3, strides=2)(x)])


def widest_block(x: Node, number: int) -> Node:
    """Applies the block of figure 7 of the paper, 8 x 8: branches that end in parallel 1x3 and 3x1 convolutions."""
    plain = convolution(x, 320, (1, 1))
    single = fork(convolution(x, 384, (1, 1)), name=f"mixed9_{number - 9}")
    double = fork(chain(x, [(448, (1, 1)), (384, (3, 3))]), name=None)
    pooled = convolution(AveragePooling2D(3, strides=1, padding="same")(x), 192, (1, 1))
    return Concatenate(name=f"mixed{number}")([plain, single, double, pooled])


def fork(x: Node, name: str | None) -> Node:
    """Applies 1x3 and 3x1 convolutions to the same input, and concatenates them."""
    return Concatenate(name=name)([convolution(x, 384, (1, 3)), convolution(x, 384, (3, 1))])


def chain(x: Node, branch: Branch) -> Node:
    """Applies convolutions one after the other."""
    for filters, kernel in branch:
        x = convolution(x, filters, kernel)
    return x


InceptionV3 = application(
    ModelInfo(
        name="inception_v3",
        function="InceptionV3",
        module=__name__,
        default_size=299,
        min_size=139,
        possible_size=75,
        preprocessing="tf",
        parameters=23_851_784,
        depth=189,
        top1=77.9,
        top5=93.7,
        reference="https://arxiv.org/abs/1512.00567",
    ),
    Architecture(features, pooled_classifier),
)
preprocess_input = preprocessing("tf", __name__)
