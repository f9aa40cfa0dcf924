"""VGG16 and VGG19: stacks of 3x3 convolutions (Simonyan and Zisserman, https://arxiv.org/abs/1409.1556)."""

from functools import partial

from flaxapps.applications.application import Application, Architecture, ClassifierActivation, application
from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.symbolic import Node
from flaxapps.layers import Conv2D, Dense, Flatten, MaxPooling2D

# Columns D and E of table 1 of the paper: filters of the convolutions in each block, by number of layers with weights.
BLOCKS = {
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
HIDDEN_UNITS = (4096, 4096)


def features(depth: int, image: Node) -> Node:
    """Builds five blocks of convolutions, each with a max pooling at its end."""
    x = image
    for block, widths in enumerate(BLOCKS[depth], 1):
        for number, filters in enumerate(widths, 1):
            x = Conv2D(filters, 3, padding="same", activation="relu", name=f"block{block}_conv{number}")(x)
        x = MaxPooling2D(2, strides=2, name=f"block{block}_pool")(x)
    return x


def classifier(x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies two hidden layers and the layer of predictions."""
    x = Flatten(name="flatten")(x)
    for number, units in enumerate(HIDDEN_UNITS, 1):
        x = Dense(units, activation="relu", name=f"fc{number}")(x)
    return Dense(classes, activation=activation, name="predictions")(x)


def vgg(function: str, *, depth: int, parameters: int, top5: float) -> Application:
    """Creates a VGG with this number of layers that have weights."""
    info = ModelInfo(
        name=function.lower(),
        function=function,
        module=f"flaxapps.{function.lower()}",
        default_size=224,
        min_size=48,
        possible_size=32,
        preprocessing="caffe",
        parameters=parameters,
        reference="https://arxiv.org/abs/1409.1556",
        depth=depth,
        top1=71.3,
        top5=top5,
    )
    return application(info, Architecture(partial(features, depth), classifier))


VGG16 = vgg("VGG16", depth=16, parameters=138_357_544, top5=90.1)
preprocess_input = preprocessing("caffe", __name__)
