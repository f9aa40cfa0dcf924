"""Fresh variables: every array is what its initializer gives for the seed and its path."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps import Input, Model, layers
from flaxapps.variables import INITIALIZERS, weight_paths


def test_fresh_arrays_are_those_of_the_initializers():
    x = Input((8, 8, 3))
    y = layers.SeparableConv2D(5, 3, depth_multiplier=2)(layers.BatchNormalization()(layers.Conv2D(7, 3)(x)))
    model = Model(x, layers.Dense(300)(layers.Dense(4)(layers.Flatten()(y))))
    variables = model.init_variables(seed=2)
    for path, weight in weight_paths(model.graph):
        key = jax.random.fold_in(jax.random.key(2), zlib.crc32("/".join(path).encode()))
        wanted = INITIALIZERS[weight.initializer](key, weight.shape, jnp.float32)
        collection, layer, leaf = path
        np.testing.assert_array_equal(variables[collection][layer][leaf], wanted)
