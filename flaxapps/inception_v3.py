"""InceptionV3: parallel branches of factorized convolutions (Szegedy et al., https://arxiv.org/abs/1512.00567)."""

import os

from flaxapps.decoding import decode_predictions as decode_predictions
from flaxapps.layers import Activation as ActivationLayer
from flaxapps.layers import (
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    MaxPooling2D,
)
from flaxapps.network import Activation, Architecture, ImageShape, Network, build_network
from flaxapps.preprocessing import ArrayT
from flaxapps.preprocessing import preprocess_input as preprocess
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo

INFO = ModelInfo(
    name="inception_v3",
    function="InceptionV3",
    default_size=299,
    min_size=139,
    possible_size=75,
    preprocessing="tf",
    parameters=23_851_784,
    depth=189,
    top1=77.9,
    top5=93.7,
    reference="https://arxiv.org/abs/1512.00567",
)

Branch = list[tuple[int, tuple[int, int]]]


def a_branches(pool_filters: int) -> list[Branch]:
    """Figure 5 of the paper, 35 x 35: one, one after 5x5, two after 3x3; the last follows a pooling."""
    return [
        [(64, (1, 1))],
        [(48, (1, 1)), (64, (5, 5))],
        [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))],
        [(pool_filters, (1, 1))],
    ]


def b_branches(filters: int) -> list[Branch]:
    """Figure 6 of the paper, 17 x 17: 7x7 convolutions factorized into 1x7 and 7x1."""
    return [
        [(192, (1, 1))],
        [(filters, (1, 1)), (filters, (1, 7)), (192, (7, 1))],
        [(filters, (1, 1)), (filters, (7, 1)), (filters, (1, 7)), (filters, (7, 1)), (192, (1, 7))],
        [(192, (1, 1))],
    ]


# Filters and kernels of every mixed block but the last two, in order; None stands for a halving block.
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
    """A convolution with normalization and activation."""
    x = Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False)(x)
    x = BatchNormalization(scale=False)(x)
    return ActivationLayer("relu")(x)


def features(image: Node) -> Node:
    """The stem, then the blocks mixed0 to mixed10."""
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
    """Branches side by side, the last behind an average pooling."""
    outputs = [chain(x, branch) for branch in branches[:-1]]
    outputs.append(chain(AveragePooling2D(3, strides=1, padding="same")(x), branches[-1]))
    return Concatenate(name=name)(outputs)


def halving_block(x: Node, branches: list[Branch], name: str) -> Node:
    """Branches whose last convolution has stride 2, and a max-pooling."""
    outputs = []
    for *before, (filters, kernel) in branches:
        outputs.append(convolution(chain(x, before), filters, kernel, strides=2, padding="valid"))
    return Concatenate(name=name)([*outputs, MaxPooling2D(3, strides=2)(x)])


def widest_block(x: Node, number: int) -> Node:
    """Figure 7 of the paper, 8 x 8: branches that end in 1x3 and 3x1 side by side."""
    plain = convolution(x, 320, (1, 1))
    single = fork(convolution(x, 384, (1, 1)), name=f"mixed9_{number - 9}")
    double = fork(chain(x, [(448, (1, 1)), (384, (3, 3))]), name=None)
    pooled = convolution(AveragePooling2D(3, strides=1, padding="same")(x), 192, (1, 1))
    return Concatenate(name=f"mixed{number}")([plain, single, double, pooled])


def fork(x: Node, name: str | None) -> Node:
    """1x3 and 3x1 convolutions of the same input, joined."""
    return Concatenate(name=name)([convolution(x, 384, (1, 3)), convolution(x, 384, (3, 1))])


def chain(x: Node, branch: Branch) -> Node:
    """Convolutions one after the other."""
    for filters, kernel in branch:
        x = convolution(x, filters, kernel)
    return x


def classifier(x: Node, classes: int, activation: Activation) -> Node:
    """Global mean and one dense layer."""
    x = GlobalAveragePooling2D(name="avg_pool")(x)
    return Dense(classes, activation=activation, name="predictions")(x)


ARCHITECTURES = {"": Architecture(features, classifier)}


def InceptionV3(  # noqa: N802 (Keras's name)
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Node | None = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    *,
    data_format: str | None = None,
    dtype: str | None = None,
    min_size: int | None = None,
    seed: int = 0,
) -> Network:
    """InceptionV3, the network of https://arxiv.org/abs/1512.00567.

    Images are 299 x 299 by default and at least 139 x 139,
    preprocessed by `preprocess_input` of this module (-1..1).

    Args:
        include_top: Whether to put the classifier on the features.
        weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
        input_tensor: A Node to use as the image, in place of a new Input.
        input_shape: Shape of one image; without the classifier, None leaves the size free, as do None dimensions.
        pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for a vector per image.
        classes: Number of classes of the classifier; 1000 for "imagenet".
        classifier_activation: Activation of the classifier; None returns logits.
        data_format: Layout of images: "channels_last", "channels_first", or None for keras.json's.
        dtype: Compute dtype such as "bfloat16"; parameters and statistics stay float32. None is keras.json's floatx.
        min_size: Lowers the smallest image size that is accepted, in pixels.
        seed: Seed of the initializers where weights is None.

    Returns:
        Network(model, variables).

    Raises:
        ValueError: The arguments break a rule; the message says which and what would be right.
        WeightError: The weights cannot be had, or do not fit.
    """
    return build_network(INFO, ARCHITECTURES[""], **locals())


def preprocess_input(x: ArrayT, data_format: str | None = None) -> ArrayT:
    """Scales pixels to -1..1.

    Args:
        x: Images with values in 0..255, RGB, of 3 or 4 dimensions; NumPy or JAX. Never changed.
        data_format: "channels_last", "channels_first", or None for keras.json's.

    Returns:
        An array of the same kind and shape; integers become float32.
    """
    return preprocess(x, data_format, mode=INFO.preprocessing)
