"""Fresh variables: every array is what its initializer gives for the seed and its path."""

import zlib

import jax
import numpy as np
import pytest

from flaxapps import Input, Model, layers
from flaxapps.graph.initializers import VarianceScaling, initialize
from flaxapps.graph.variables import weight_paths


def test_fresh_arrays_are_those_of_the_initializers():
    x = Input((8, 8, 3))
    y = layers.SeparableConv2D(5, 3, depth_multiplier=2)(layers.BatchNormalization()(layers.Conv2D(7, 3)(x)))
    model = Model(x, layers.Dense(300)(layers.Dense(4)(layers.Flatten()(y))))
    variables = model.init_variables(seed=2)
    for path, weight in weight_paths(model.graph):
        key = jax.random.fold_in(jax.random.key(2), zlib.crc32("/".join(path).encode()))
        wanted = initialize(weight.initializer, key, weight.shape)
        collection, layer, leaf = path
        np.testing.assert_array_equal(variables[collection][layer][leaf], wanted)


@pytest.mark.parametrize("shape", [(3, 3, 32, 64), (5, 5, 96, 1), (300, 200)])
@pytest.mark.parametrize("scaling", [(2.0, "fan_out", "truncated_normal"), (1 / 3, "fan_out", "uniform"), "he_normal"])
def test_random_arrays_are_distributed_as_in_keras(scaling, shape):
    """Kolmogorov and Smirnov's distance of two samples, which is below 1.95 / sqrt(n / 2) in 999 of 1000."""
    from keras import initializers

    theirs = initializers.get(scaling) if isinstance(scaling, str) else initializers.VarianceScaling(*scaling)
    ours = initialize(scaling if isinstance(scaling, str) else VarianceScaling(*scaling), jax.random.key(0), shape)
    first, second = np.sort(np.ravel(ours)), np.sort(np.ravel(np.asarray(theirs(shape))))
    places = np.concatenate([first, second])
    distance = np.abs(np.searchsorted(first, places, "right") - np.searchsorted(second, places, "right")).max()
    assert distance / first.size < 1.95 / np.sqrt(first.size / 2)
    assert np.abs(first).max() == pytest.approx(np.abs(second).max(), rel=0.05)


def test_numbers_are_constants():
    np.testing.assert_array_equal(initialize(1e-6, jax.random.key(0), (4,)), np.float32(1e-6))
