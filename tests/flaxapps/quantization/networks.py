"""A small network with every kind of layer that quantization treats in its own way, and images for it."""

import jax
import numpy as np

from flaxapps import Input, Model, layers

SIZE = 12


def images(count=8, size=SIZE):
    return np.random.default_rng(count).normal(size=(count, size, size, 3)).astype("f4")


def every_kind():
    """First layer, pooling, padding, both relus, residual sum, concatenation, nested and shared layers, head."""
    x = Input((SIZE, SIZE, 3))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(x)
    y = layers.Activation("relu", name="relu")(layers.BatchNormalization(name="norm")(y))
    y = layers.MaxPooling2D(2, name="pool")(layers.ZeroPadding2D(1, name="padded")(y))
    z = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(y)
    z = layers.Conv2D(16, 1, name="linear")(z)
    y = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([y, z]))
    a = layers.Conv2D(24, 1, activation="relu", name="branch_a")(y)
    b = layers.AveragePooling2D(3, 1, padding="same", name="branch_b")(y)
    y = layers.Concatenate(name="both")([a, b])
    y = layers.SeparableConv2D(20, 3, padding="same", activation="swish", name="separable")(y)
    inside = Input((None, None, 20))
    inner = Model(inside, layers.Conv2D(20, 3, strides=2, padding="same", name="conv")(inside), name="inner")
    shared = layers.Conv2D(20, 1, name="shared")
    y = shared(shared(inner(y)))
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    return Model(x, layers.Dense(5, activation="softmax", name="head")(y), name="every_kind")


def variables_of(model, seed=0):
    """Variables that keep activations of a size, with biases and statistics away from 0 and 1."""
    random = np.random.default_rng(seed)

    def draw(array):
        return array * 1.5 if array.ndim > 1 else random.uniform(0.5, 1.5, array.shape).astype("f4")

    return jax.tree.map(draw, model.init_variables())
