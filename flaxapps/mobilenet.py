"""MobileNet: depthwise and pointwise convolutions in turn (Howard et al., https://arxiv.org/abs/1704.04861)."""

from functools import partial
from typing import Protocol

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
from flaxapps.applications.widths import check_width
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    DepthwiseConv2D,
    Dropout,
    GlobalAveragePooling2D,
    ReLU,
    Reshape,
    ZeroPadding2D,
)
from flaxapps.model import Network

# Table 1 of the paper: filters of the pointwise convolution and strides of the depthwise one, by block.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
WIDTHS = (0.25, 0.5, 0.75, 1.0)


def features(alpha: float, depth_multiplier: int, image: Node) -> Node:
    """Builds a convolution and 13 depthwise separable ones."""
    x = Conv2D(int(32 * alpha), 3, strides=2, padding="same", use_bias=False, name="conv1")(image)
    x = normalized_relu6(x, "conv1")
    for number, (filters, strides) in enumerate(BLOCKS, 1):
        if strides == 2:
            x = ZeroPadding2D(((0, 1), (0, 1)), name=f"conv_pad_{number}")(x)
        x = DepthwiseConv2D(
            3,
            strides=strides,
            padding="valid" if strides == 2 else "same",
            depth_multiplier=depth_multiplier,
            use_bias=False,
            name=f"conv_dw_{number}",
        )(x)
        x = normalized_relu6(x, f"conv_dw_{number}")
        x = Conv2D(int(filters * alpha), 1, padding="same", use_bias=False, name=f"conv_pw_{number}")(x)
        x = normalized_relu6(x, f"conv_pw_{number}")
    return x


def normalized_relu6(x: Node, name: str) -> Node:
    """Applies BatchNormalization, and ReLU up to 6."""
    return ReLU(6.0, name=f"{name}_relu")(BatchNormalization(name=f"{name}_bn")(x))


def classifier(dropout: float, x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling, dropout and a 1x1 convolution."""
    x = Dropout(dropout, name="dropout")(GlobalAveragePooling2D(keepdims=True)(x))
    x = Conv2D(classes, 1, padding="same", name="conv_preds")(x)
    return Activation(activation, name="predictions")(Reshape((classes,), name="reshape_2")(x))


def layout(weights: Weights, alpha: float = 1.0, depth_multiplier: int = 1, dropout: float = 1e-3) -> Architecture:
    """Creates the layout for these arguments.

    Raises:
        ValueError: `weights` is "imagenet", and no weights are published for the arguments.
    """
    alpha = check_width(weights, alpha, WIDTHS)
    if weights == "imagenet" and depth_multiplier != 1:
        raise ValueError(
            "If imagenet weights are being loaded, depth multiplier must be 1.  "
            f"Received depth_multiplier={depth_multiplier}"
        )
    return Architecture(
        partial(features, alpha, depth_multiplier),
        partial(classifier, dropout),
        alpha=alpha,
        published=f"{alpha}_{{rows}}",
    )


class MobileNetFunction(NetworkFunction, Protocol):
    """Type of `MobileNet`, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        input_shape: ImageShape | None = None, alpha: float = 1.0, depth_multiplier: int = 1, dropout: float = 1e-3,
        include_top: bool = True, weights: Weights = "imagenet", input_tensor: Node | None = None,
        pooling: str | None = None, classes: int = 1000, classifier_activation: ClassifierActivation = "softmax",
        name: str | None = None, *, variant: str = "", data_format: str | None = None, dtype: str | None = None,
        min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            alpha: Factor of the numbers of filters; 0.25, 0.5, 0.75 or 1 for "imagenet".
            depth_multiplier: Number of outputs of a depthwise convolution for each of its inputs; 1 for "imagenet".
            dropout: Rate of the dropout before the classifier, in training.
        """
        ...


MobileNet = application(
    ModelInfo(
        name="mobilenet",
        keras_name="mobilenet_{alpha:.2f}_{rows}",
        function="MobileNet",
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        published_sizes=(128, 160, 192, 224),
        preprocessing="tf",
        parameters=4_253_864,
        depth=55,
        top1=70.4,
        top5=89.5,
        reference="https://arxiv.org/abs/1704.04861",
    ),
    layout,
    signature=MobileNetFunction,
)
preprocess_input = preprocessing("tf", __name__)
