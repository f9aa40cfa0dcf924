"""ConvNeXt: a ResNet with the choices of a vision transformer (Liu et al., https://arxiv.org/abs/2201.03545)."""

from functools import partial
from typing import Protocol

import numpy as np

from flaxapps.applications.application import (
    Architecture,
    ClassifierActivation,
    ImageShape,
    NetworkFunction,
    Weights,
    application,
)
from flaxapps.applications.imagenet_utils import TORCH_MEAN_RGB, TORCH_STANDARD_DEVIATION_RGB, preprocessing
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.graph import Graph, source_inputs
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Layer, Node
from flaxapps.layers import (
    Activation,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    Input,
    LayerNormalization,
    LayerScale,
    Normalization,
    Sequential,
    StochasticDepth,
)
from flaxapps.model import Network

normalization = partial(LayerNormalization, epsilon=1e-6)


def features(
    name: str,
    blocks: tuple[int, ...],
    filters: tuple[int, ...],
    include_preprocessing: bool,
    drop_path_rate: float,
    layer_scale_init_value: float | None,
    image: Node,
) -> Node:
    """Builds normalization of the image and four stages, each after a convolution that makes patches of its input."""
    x = image
    if include_preprocessing and channel_count(image.shape) == 3:
        x = normalized_colours(x, f"{name}_prestem_normalization")
    rates = iter(np.linspace(0, drop_path_rate, sum(blocks)).tolist())
    for stage, (repeats, width) in enumerate(zip(blocks, filters, strict=True)):
        x = stem(x, width, name) if stage == 0 else downsampling(x, width, stage - 1, name)
        for number in range(repeats):
            x = block(x, next(rates), layer_scale_init_value, f"{name}_stage_{stage}_block_{number}")
    return x


def normalized_colours(x: Node, name: str) -> Node:
    """Subtracts the mean of ImageNet's colours and divides by their deviation; images have values 0 to 255."""
    mean = tuple(each * 255 for each in TORCH_MEAN_RGB)
    variance = tuple((each * 255) ** 2 for each in TORCH_STANDARD_DEVIATION_RGB)
    return Normalization(mean=mean, variance=variance, name=name)(x)


def stem(x: Node, filters: int, name: str) -> Node:
    """Makes one position of every 4x4 pixels."""
    convolution = Conv2D(filters, 4, strides=4, name=f"{name}_stem_conv")
    return sequential(x, f"{name}_stem", convolution, normalization(name=f"{name}_stem_layernorm"))


def downsampling(x: Node, filters: int, number: int, name: str) -> Node:
    """Makes one position of every 2x2."""
    norm = normalization(name=f"{name}_downsampling_layernorm_{number}")
    convolution = Conv2D(filters, 2, strides=2, name=f"{name}_downsampling_conv_{number}")
    return sequential(x, f"{name}_downsampling_block_{number}", norm, convolution)


def sequential(x: Node, name: str, *layers: Layer) -> Node:
    """Applies layers as one nested model, as which Keras stores their weights."""
    dtype = source_inputs(x)[0].layer.dtype
    start = y = Input(x.shape[1:], dtype=dtype, data_format="channels_last")
    for layer in layers:
        y = layer(y)
    result: Node = Sequential(Graph([start], [y]), name=name)(x)
    return result


def block(inputs: Node, drop_path_rate: float, layer_scale_init_value: float | None, name: str) -> Node:
    """Applies a 7x7 depthwise convolution, then two dense layers at every position, and adds the input."""
    channels = channel_count(inputs.shape)
    x = Conv2D(channels, 7, padding="same", groups=channels, name=f"{name}_depthwise_conv")(inputs)
    x = normalization(name=f"{name}_layernorm")(x)
    x = Dense(4 * channels, name=f"{name}_pointwise_conv_1")(x)
    x = Activation("gelu", name=f"{name}_gelu")(x)
    x = Dense(channels, name=f"{name}_pointwise_conv_2")(x)
    if layer_scale_init_value is not None:
        x = LayerScale(layer_scale_init_value, channels, name=f"{name}_layer_scale")(x)
    if drop_path_rate:
        x = StochasticDepth(drop_path_rate, name=f"{name}_stochastic_depth")(x)
    else:
        x = Activation("linear", name=f"{name}_identity")(x)
    return inputs + x


def classifier(name: str, x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling, normalization and one dense layer."""
    x = normalization(name=f"{name}_head_layernorm")(GlobalAveragePooling2D(name=f"{name}_head_gap")(x))
    return Dense(classes, activation=activation, name=f"{name}_head_dense")(x)


class ConvNeXtFunction(NetworkFunction, Protocol):
    """Type of the functions of ConvNeXt, with Keras's arguments in Keras's order."""

    def __call__(  # noqa: D417 (the other arguments are documented in `Application`)
        self,
        include_top: bool = True, include_preprocessing: bool = True, weights: Weights = "imagenet",
        input_tensor: Node | None = None, input_shape: ImageShape | None = None, pooling: str | None = None,
        classes: int = 1000, classifier_activation: ClassifierActivation = "softmax", name: str | None = None, *,
        drop_path_rate: float = 0.0, layer_scale_init_value: float | None = 1e-6, variant: str = "",
        data_format: str | None = None, dtype: str | None = None, min_size: int | None = None, seed: int = 0,
    ) -> Network:  # fmt: skip # kept on few lines on purpose
        """Build the network and get its variables.

        Args:
            include_preprocessing: Whether the network itself normalizes its images, of values 0 to 255. Only for 3
                channels, as in Keras.
            name: Name of the model, with which the names of its layers begin; None, the only one for "imagenet", takes
                Keras's. `preprocess=True` knows networks by it.
            drop_path_rate: In training, the fraction of images that skip the last block. It grows linearly from 0 in
                the first block.
            layer_scale_init_value: Initial value of the trained factor of every channel of a block; None for no
                factors.
        """
        ...


def convnext(
    function: str, blocks: tuple[int, ...], filters: tuple[int, ...], parameters: int, *, top1: float
) -> ConvNeXtFunction:
    """Creates a ConvNeXt with these numbers of blocks and filters in its four stages."""
    info = ModelInfo(
        name=function.lower().replace("convnext", "convnext_"),
        function=function,
        module=__name__,
        default_size=224,
        min_size=32,
        possible_size=32,
        preprocessing="none",
        preprocessing_inside="torch",
        parameters=parameters,
        reference="https://arxiv.org/abs/2201.03545",
        top1=top1,
        channels_first=False,
    )

    def layout(
        weights: Weights,
        name: str | None,
        include_preprocessing: bool,
        drop_path_rate: float,
        layer_scale_init_value: float | None,
    ) -> Architecture:
        name = name or info.name
        if weights == "imagenet" and name != info.name:
            # Keras takes it for a part of the file's name too.
            raise ValueError(
                f'Model name "{name}" does not match weights variant "{info.name}". The layers of a ConvNeXt have the '
                "name of the model: leave `name` out when using imagenet weights."
            )
        options = (include_preprocessing, drop_path_rate, layer_scale_init_value)
        build = partial(features, name, blocks, filters, *options)
        return Architecture(build, partial(classifier, name), ending=lambda x: normalization()(x))

    return application(info, layout, signature=ConvNeXtFunction)


# Blocks and filters of the four stages, number of parameters.
ConvNeXtTiny = convnext("ConvNeXtTiny", (3, 3, 9, 3), (96, 192, 384, 768), 28_589_128, top1=81.3)
ConvNeXtSmall = convnext("ConvNeXtSmall", (3, 3, 27, 3), (96, 192, 384, 768), 50_223_688, top1=82.3)
ConvNeXtBase = convnext("ConvNeXtBase", (3, 3, 27, 3), (128, 256, 512, 1024), 88_591_464, top1=85.3)
ConvNeXtLarge = convnext("ConvNeXtLarge", (3, 3, 27, 3), (192, 384, 768, 1536), 197_767_336, top1=86.3)
ConvNeXtXLarge = convnext("ConvNeXtXLarge", (3, 3, 27, 3), (256, 512, 1024, 2048), 350_196_968, top1=86.7)
preprocess_input = preprocessing("none", __name__)
