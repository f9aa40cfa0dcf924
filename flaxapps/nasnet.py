"""NASNet: two cells found by a search over architectures (Zoph et al., https://arxiv.org/abs/1707.07012)."""

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
from flaxapps.applications.padding import correct_pad
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Node
from flaxapps.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Cropping2D,
    Dense,
    GlobalAveragePooling2D,
    MaxPooling2D,
    SeparableConv2D,
    ZeroPadding2D,
)
from flaxapps.model import Network

relu = partial(Activation, "relu")
normalization = partial(BatchNormalization, momentum=0.9997)
convolution = partial(Conv2D, kernel_size=1, padding="same", use_bias=False, kernel_initializer="he_normal")
average = partial(AveragePooling2D, pool_size=3, strides=1, padding="same")


def features(blocks: int, filters: int, stem_filters: int, skip_reduction: bool, image: Node) -> Node:
    """Builds the stem and three stages of `blocks` normal cells, with a reduction cell between them.

    Every cell takes the outputs of the two cells before it. With `skip_reduction`, the first cell of a stage takes that
    before the reduction cell's own inputs in place of its first input.
    """
    x = convolution(stem_filters, kernel_size=3, strides=2, padding="valid", name="stem_conv1")(image)
    x = normalization(name="stem_bn1")(x)
    x, previous = reduction_cell(x, x, filters // 4, "stem_1"), x
    x, previous = reduction_cell(x, previous, filters // 2, "stem_2"), x
    for stage in range(3):
        width = filters * 2**stage
        if stage:
            before = x
            x = reduction_cell(x, previous, width, f"reduce_{stage * blocks}")
            previous = previous if skip_reduction else before
        for number in range(blocks):
            x, previous = normal_cell(x, previous, width, f"{stage * blocks + bool(stage) + number}"), x
    return relu()(x)


def normal_cell(x: Node, previous: Node, filters: int, name: str) -> Node:
    """Combines the outputs of the last two cells (figure 4 of the paper, left)."""
    p = adjusted(previous, x, filters, name)
    h = normalization(name=f"normal_bn_1_{name}")(convolution(filters, name=f"normal_conv_1_{name}")(relu()(x)))
    left = separable(h, filters, 5, f"normal_left1_{name}")
    x1 = Add(name=f"normal_add_1_{name}")([left, separable(p, filters, 3, f"normal_right1_{name}")])
    left = separable(p, filters, 5, f"normal_left2_{name}")
    x2 = Add(name=f"normal_add_2_{name}")([left, separable(p, filters, 3, f"normal_right2_{name}")])
    x3 = Add(name=f"normal_add_3_{name}")([average(name=f"normal_left3_{name}")(h), p])
    left = average(name=f"normal_left4_{name}")(p)
    x4 = Add(name=f"normal_add_4_{name}")([left, average(name=f"normal_right4_{name}")(p)])
    x5 = Add(name=f"normal_add_5_{name}")([separable(h, filters, 3, f"normal_left5_{name}"), h])
    return Concatenate(name=f"normal_concat_{name}")([p, x1, x2, x3, x4, x5])


def reduction_cell(x: Node, previous: Node, filters: int, name: str) -> Node:
    """Combines them at half the height and width (figure 4 of the paper, right)."""
    p = adjusted(previous, x, filters, name)
    h = normalization(name=f"reduction_bn_1_{name}")(convolution(filters, name=f"reduction_conv_1_{name}")(relu()(x)))
    padded = ZeroPadding2D(correct_pad(h, 3), name=f"reduction_pad_1_{name}")(h)
    halving = partial(separable, filters=filters, strides=2)
    left = halving(h, kernel_size=5, name=f"reduction_left1_{name}")
    x1 = Add(name=f"reduction_add_1_{name}")([left, halving(p, kernel_size=7, name=f"reduction_right1_{name}")])
    left = MaxPooling2D(3, strides=2, name=f"reduction_left2_{name}")(padded)
    x2 = Add(name=f"reduction_add_2_{name}")([left, halving(p, kernel_size=7, name=f"reduction_right2_{name}")])
    left = AveragePooling2D(3, strides=2, name=f"reduction_left3_{name}")(padded)
    x3 = Add(name=f"reduction_add3_{name}")([left, halving(p, kernel_size=5, name=f"reduction_right3_{name}")])
    x4 = Add()([x2, average(name=f"reduction_left4_{name}")(x1)])
    left = separable(x1, filters, 3, f"reduction_left4_{name}")
    x5 = Add(name=f"reduction_add4_{name}")([left, MaxPooling2D(3, strides=2, name=f"reduction_right5_{name}")(padded)])
    return Concatenate(name=f"reduction_concat_{name}")([x2, x3, x4, x5])


def separable(x: Node, filters: int, kernel_size: int, name: str, strides: int = 1) -> Node:
    """Applies ReLU, a separable convolution and BatchNormalization, twice; the first convolution has the strides."""
    x = relu()(x)
    if strides == 2:
        x = ZeroPadding2D(correct_pad(x, kernel_size), name=f"separable_conv_1_pad_{name}")(x)
    convolve = partial(SeparableConv2D, filters, kernel_size, use_bias=False)
    padding = "valid" if strides == 2 else "same"
    x = convolve(strides=strides, padding=padding, name=f"separable_conv_1_{name}")(x)
    x = relu()(normalization(name=f"separable_conv_1_bn_{name}")(x))
    x = convolve(padding="same", name=f"separable_conv_2_{name}")(x)
    return normalization(name=f"separable_conv_2_bn_{name}")(x)


def adjusted(previous: Node, x: Node, filters: int, name: str) -> Node:
    """Brings the output of the cell before the last one to the size of `x` and to this number of filters.

    Half of the channels come from the pixels at even positions, half from those at odd ones.
    """
    if previous is x:
        return x
    if previous.shape[2] != x.shape[2]:
        p = relu(name=f"adjust_relu_1_{name}")(previous)
        every_other = partial(AveragePooling2D, 1, strides=2)
        even = every_other(name=f"adjust_avg_pool_1_{name}")(p)
        even = convolution(filters // 2, name=f"adjust_conv_1_{name}")(even)
        odd = Cropping2D(((1, 0), (1, 0)))(ZeroPadding2D(((0, 1), (0, 1)))(p))
        odd = every_other(name=f"adjust_avg_pool_2_{name}")(odd)
        odd = convolution(filters // 2, name=f"adjust_conv_2_{name}")(odd)
        return normalization(name=f"adjust_bn_{name}")(Concatenate()([even, odd]))
    if channel_count(previous.shape) != filters:
        p = convolution(filters, name=f"adjust_conv_projection_{name}")(relu()(previous))
        return normalization(name=f"adjust_bn_{name}")(p)
    return previous


def classifier(x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling and one dense layer."""
    return Dense(classes, activation=activation, name="predictions")(GlobalAveragePooling2D()(x))


class NASNetFunction(NetworkFunction, Protocol):
    """Type of the functions of NASNet, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        input_shape: ImageShape | None = None, include_top: bool = True, weights: Weights = "imagenet",
        input_tensor: Node | None = None, pooling: str | None = None, classes: int = 1000,
        classifier_activation: ClassifierActivation = "softmax", name: str | None = None, *, variant: str = "",
        data_format: str | None = None, dtype: str | None = None, min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            input_shape: Shape of one image, for example (200, 200, 3). None takes the default size. One model takes
                images of one size, also without the classifier.
        """
        ...


def nasnet(
    function: str, *, blocks: int, penultimate_filters: int, stem_filters: int, skip_reduction: bool, size: int,
    parameters: int, depth: int, top1: float, top5: float,
) -> NASNetFunction:  # fmt: skip # kept on few lines on purpose
    """Creates the network that the paper calls NASNet-A (`blocks` @ `penultimate_filters`)."""
    info = ModelInfo(
        name=function.lower().replace("nasnet", "nasnet_"),
        function=function,
        module=__name__,
        default_size=size,
        min_size=32,
        possible_size=32,
        preprocessing="tf",
        parameters=parameters,
        reference="https://arxiv.org/abs/1707.07012",
        depth=depth,
        top1=top1,
        top5=top5,
        channels_first=False,
        free_size=False,
    )
    build = partial(features, blocks, penultimate_filters // 24, stem_filters, skip_reduction)
    return application(info, Architecture(build, classifier), signature=NASNetFunction)


NASNetMobile = nasnet(
    "NASNetMobile", blocks=4, penultimate_filters=1056, stem_filters=32, skip_reduction=False, size=224,
    parameters=5_326_716, depth=389, top1=74.4, top5=91.9,
)  # fmt: skip # kept on few lines on purpose
NASNetLarge = nasnet(
    "NASNetLarge", blocks=6, penultimate_filters=4032, stem_filters=96, skip_reduction=True, size=331,
    parameters=88_949_818, depth=533, top1=82.5, top5=96.0,
)  # fmt: skip # kept on few lines on purpose
preprocess_input = preprocessing("tf", __name__)
