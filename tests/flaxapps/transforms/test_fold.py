"""Folded networks against unfolded ones, and what must not be folded."""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, fold_batch_norm, layers
from flaxapps.registry import build_model
from tests.golden.recipe import image
from tests.networks import NETWORKS, compiled
from tests.recipe import recipe_variables, relative_difference


def count(model):
    inner = [layer.layer.graph for layer in model.layers if isinstance(layer.layer, layers.Functional)]
    return sum(layer.class_name == "BatchNormalization" for layer in model.layers) + sum(map(count, inner))


def check(model, left, images, variables=None):
    """Folds, compares, and counts what is left."""
    variables = variables or jax.tree.map(lambda array: array + 0.3, model.init_variables())
    folded, arrays = fold_batch_norm(model, variables)
    assert count(folded) == left
    assert jax.tree.structure(folded.init_variables()) == jax.tree.structure(arrays)
    ours, theirs = (compiled(each.apply, tree, images) for each, tree in ((folded, arrays), (model, variables)))
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert relative_difference(mine, np.asarray(other)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, include_top):
    minimum = flaxapps.model_info(name).possible_size
    model = build_model(name, include_top=include_top, input_shape=(81, 81, 3), min_size=minimum)
    # DenseNet and ResNetV2 normalize before their convolutions, NASNet what it concatenated.
    sources = [layer.calls[0].inputs[0].layer for layer in model.layers if layer.class_name == "BatchNormalization"]
    left = sum(not source.class_name.endswith(("Conv2D", "Dense")) for source in sources)
    check(model, left, image(1, (2, 81, 81, 3)), recipe_variables(model))


IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("f4")


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        lambda **options: layers.Conv2D(4, 3, groups=2, **options),
        lambda **options: layers.DepthwiseConv2D(3, depth_multiplier=3, **options),
        lambda **options: layers.SeparableConv2D(5, 3, **options),
        lambda **options: layers.Dense(5, **options),
    ],
)
def test_kinds_in_a_nested_model(layer, use_bias):
    x = Input((8, 8, 4))
    inner = Model(x, layers.BatchNormalization()(layer(use_bias=use_bias)(x)), name="inner")
    y = Input((8, 8, 4))
    check(Model(y, inner(y)), 0, IMAGES)


def test_what_must_not_be_folded():
    x = Input((8, 8, 4))
    convolution, norm = layers.Conv2D(4, 3), layers.BatchNormalization()
    check(Model(x, norm(layers.Conv2D(4, 3, activation="relu")(x))), 1, IMAGES)
    y = convolution(x)
    check(Model(x, [y, norm(y)]), 1, IMAGES)
    check(Model(x, layers.Add()([y, norm(y)])), 1, IMAGES)
    check(Model(x, norm(convolution(convolution(x)))), 1, IMAGES)
    check(Model(x, norm(layers.Conv2DTranspose(4, 3)(x))), 1, IMAGES)
    check(Model(x, norm(x)), 1, IMAGES)
