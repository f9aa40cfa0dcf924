"""ResNet50: bottleneck blocks with identity shortcuts (He et al., https://arxiv.org/abs/1512.03385)."""

import os

from flaxapps.decoding import decode_predictions as decode_predictions
from flaxapps.layers import Activation as ActivationLayer
from flaxapps.layers import (
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    ZeroPadding2D,
)
from flaxapps.network import Activation, Architecture, ImageShape, Network, build_network
from flaxapps.preprocessing import ArrayT
from flaxapps.preprocessing import preprocess_input as preprocess
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo

INFO = ModelInfo(
    name="resnet50",
    function="ResNet50",
    default_size=224,
    min_size=197,
    possible_size=32,
    preprocessing="caffe",
    parameters=25_636_712,
    depth=107,
    top1=74.9,
    top5=92.1,
    reference="https://arxiv.org/abs/1512.03385",
)

# Table 1 of the paper, 50 layers: number of blocks and filters of the first convolutions, stages 2 to 5.
STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}


def features(image: Node) -> Node:
    """The stem and four stages, as Keras builds them since 2.2.3."""
    x = ZeroPadding2D(3, name="conv1_pad")(image)
    x = Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    x = BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x)
    x = ActivationLayer("relu", name="conv1_relu")(x)
    x = ZeroPadding2D(1, name="pool1_pad")(x)
    x = MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (blocks, filters) in STAGES.items():
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and stage > 2 else 1
            x = bottleneck(x, filters, strides, project=block == 1, name=f"conv{stage}_block{block}")
    return x


def bottleneck(x: Node, filters: int, strides: int, project: bool, name: str) -> Node:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, which a convolution projects where the shape changes."""

    def convolution(x: Node, number: int, filters: int, kernel: int, strides: int = 1) -> Node:
        x = Conv2D(filters, kernel, strides=strides, padding="same", name=f"{name}_{number}_conv")(x)
        return BatchNormalization(epsilon=1.001e-5, name=f"{name}_{number}_bn")(x)

    shortcut = convolution(x, 0, 4 * filters, 1, strides) if project else x
    x = convolution(x, 1, filters, 1, strides)
    x = ActivationLayer("relu", name=f"{name}_1_relu")(x)
    x = convolution(x, 2, filters, 3)
    x = ActivationLayer("relu", name=f"{name}_2_relu")(x)
    x = convolution(x, 3, 4 * filters, 1)
    x = Add(name=f"{name}_add")([shortcut, x])
    return ActivationLayer("relu", name=f"{name}_out")(x)


def classifier(x: Node, classes: int, activation: Activation) -> Node:
    """Global mean and one dense layer."""
    x = GlobalAveragePooling2D(name="avg_pool")(x)
    return Dense(classes, activation=activation, name="predictions")(x)


def features_keras2(image: Node) -> Node:
    """The network of Keras 2.0 and of the weight file of 2016: no padding before the pooling, epsilon 1e-3.

    The features end in a 7x7 mean, with and without the classifier.
    """
    x = ZeroPadding2D(3)(image)
    x = Conv2D(64, 7, strides=2, name="conv1")(x)
    x = BatchNormalization(name="bn_conv1")(x)
    x = ActivationLayer("relu")(x)
    x = MaxPooling2D(3, strides=2)(x)
    for stage, (blocks, filters) in STAGES.items():
        for block in "abcdef"[:blocks]:
            strides = 2 if block == "a" and stage > 2 else 1
            x = bottleneck_keras2(x, filters, strides, project=block == "a", name=f"{stage}{block}")
    return AveragePooling2D(7, name="avg_pool")(x)


def bottleneck_keras2(x: Node, filters: int, strides: int, project: bool, name: str) -> Node:
    """The same block under its old names, the shortcut added last."""

    def convolution(x: Node, branch: str, filters: int, kernel: int, strides: int = 1) -> Node:
        x = Conv2D(filters, kernel, strides=strides, padding="same", name=f"res{name}_branch{branch}")(x)
        return BatchNormalization(name=f"bn{name}_branch{branch}")(x)

    shortcut = x
    x = convolution(x, "2a", filters, 1, strides)
    x = ActivationLayer("relu")(x)
    x = convolution(x, "2b", filters, 3)
    x = ActivationLayer("relu")(x)
    x = convolution(x, "2c", 4 * filters, 1)
    if project:
        shortcut = convolution(shortcut, "1", 4 * filters, 1, strides)
    return ActivationLayer("relu")(Add()([x, shortcut]))


def classifier_keras2(x: Node, classes: int, activation: Activation) -> Node:
    """One dense layer on the 7x7 mean."""
    return Dense(classes, activation=activation, name="fc1000")(Flatten()(x))


ARCHITECTURES = {
    "": Architecture(features, classifier, pooling_names=("avg_pool", "max_pool")),
    "keras2": Architecture(features_keras2, classifier_keras2, variant="keras2"),
}


def ResNet50(  # noqa: N802 (Keras's name)
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Node | None = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    *,
    variant: str = "",
    data_format: str | None = None,
    dtype: str | None = None,
    min_size: int | None = None,
    seed: int = 0,
) -> Network:
    """ResNet50, the network of https://arxiv.org/abs/1512.03385.

    Images are 224 x 224 by default and at least 197 x 197,
    preprocessed by `preprocess_input` of this module (BGR, mean subtracted).

    Args:
        include_top: Whether to put the classifier on the features.
        weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
        input_tensor: A Node to use as the image, in place of a new Input.
        input_shape: Shape of one image; without the classifier, None leaves the size free, as do None dimensions.
        pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for a vector per image.
        classes: Number of classes of the classifier; 1000 for "imagenet".
        classifier_activation: Activation of the classifier; None returns logits.
        variant: "" for the network Keras builds today; "keras2" for the one of Keras 2.0 and of the weights of 2016
            (layers res2a_branch2a, ...). Their weight files do not fit each other.
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
    arguments = locals()
    if arguments.pop("variant") not in ARCHITECTURES:
        raise ValueError(f"`variant` should be '' or 'keras2'.  Received: variant={variant!r}")
    return build_network(INFO, ARCHITECTURES[variant], **arguments)


def preprocess_input(x: ArrayT, data_format: str | None = None) -> ArrayT:
    """Turns RGB to BGR and subtracts ImageNet's mean pixel; no scaling.

    Args:
        x: Images with values in 0..255, RGB, of 3 or 4 dimensions; NumPy or JAX. Never changed.
        data_format: "channels_last", "channels_first", or None for keras.json's.

    Returns:
        An array of the same kind and shape; integers become float32.
    """
    return preprocess(x, data_format, mode=INFO.preprocessing)
