"""VGG: stacks of 3x3 convolutions (Simonyan and Zisserman, https://arxiv.org/abs/1409.1556)."""

from functools import partial

from flaxapps.layers import Conv2D, Dense, Flatten, MaxPooling2D
from flaxapps.network import Activation, Architecture
from flaxapps.recording import Node

# Table 1 of the paper: filters of the convolutions of each block, by number of layers with weights (D and E there).
BLOCKS = {
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
HIDDEN_UNITS = (4096, 4096)


def architecture(depth: int) -> Architecture:
    """VGG with 16 or 19 layers that have weights."""
    return Architecture(partial(features, depth), classifier)


def features(depth: int, image: Node) -> Node:
    """Five blocks of convolutions, each ending in a max-pooling."""
    x = image
    for block, widths in enumerate(BLOCKS[depth], 1):
        for number, filters in enumerate(widths, 1):
            x = Conv2D(filters, 3, padding="same", activation="relu", name=f"block{block}_conv{number}")(x)
        x = MaxPooling2D(2, strides=2, name=f"block{block}_pool")(x)
    return x


def classifier(x: Node, classes: int, activation: Activation) -> Node:
    """Two hidden layers and the predictions."""
    x = Flatten(name="flatten")(x)
    for number, units in enumerate(HIDDEN_UNITS, 1):
        x = Dense(units, activation="relu", name=f"fc{number}")(x)
    return Dense(classes, activation=activation, name="predictions")(x)
