"""Every network and every layer in it against Keras 3.15 on JAX, with random weights and statistics."""

import jax
import numpy as np
import pytest

import flaxapps
import weight_port
from flaxapps.registry import build_model
from tests.golden.recipe import image
from tests.networks import NETWORKS, keras_layer_outputs, keras_network, recipe_variables, relative_difference

TOLERANCE = 1e-5
# Odd and even, small enough to be quick: the layers do not care.
SIZES = {"xception": (75, 96), "vgg16": (49, 64), "vgg19": (49, 64), "resnet50": (75, 96), "inception_v3": (81, 96)}


def build(name, **arguments):
    return build_model(name, min_size=flaxapps.model_info(name).possible_size, **arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer(name):
    height, width = SIZES[name]
    model = build(name, include_top=False, input_shape=(height, width, 3))
    every_output = flaxapps.Model(model.input, [layer.output for layer in model.layers])
    images = image(1, (2, height, width, 3))
    ours = jax.jit(every_output.apply)(recipe_variables(model), images)
    theirs = keras_layer_outputs(keras_network(name, include_top=False, input_shape=(height, width, 3)), images)
    assert len(ours) == len(theirs) == len(model.layers)
    differences = {
        layer.name: relative_difference(mine, other)
        for layer, mine, other in zip(model.layers, ours, theirs, strict=True)
    }
    assert max(differences.values()) <= TOLERANCE, {name: d for name, d in differences.items() if d > TOLERANCE}
    assert np.ptp(theirs[-1]) > 1e-2  # the weights of the recipe keep the signal alive


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_classifier_or_pooling(name, pooling):
    include_top = pooling == "avg"
    size = SIZES[name][1] + 1
    arguments = {"include_top": include_top, "input_shape": (size, size, 3), "pooling": pooling, "classes": 17}
    images = image(2, (2, size, size, 3))
    network = keras_network(name, **arguments)
    model = build(name, **arguments)
    ours = flaxapps.predict(model, recipe_variables(model), images)
    assert relative_difference(ours, keras_layer_outputs(network, images)[-1]) <= TOLERANCE
    if include_top:
        logits = build(name, **arguments, classifier_activation=None)
        values = flaxapps.predict(logits, recipe_variables(logits), images)
        np.testing.assert_allclose(jax.nn.softmax(values), ours, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if flaxapps.model_info(name).channels_first])
def test_channels_first(name, include_top):
    import keras

    height, width = SIZES[name]
    arguments = {"include_top": include_top, "input_shape": (3, height, width), "classes": 17}
    images = np.moveaxis(image(3, (2, height, width, 3)), -1, 1)
    model = build(name, **arguments, data_format="channels_first")
    assert model.input_shape == (None, 3, height, width)
    keras.config.set_image_data_format("channels_first")
    try:
        theirs = keras_layer_outputs(keras_network(name, **arguments), images)[-1]
    finally:
        keras.config.set_image_data_format("channels_last")
    ours = flaxapps.predict(model, recipe_variables(model), images)
    assert ours.shape == (2, *model.output_shape[1:])
    assert relative_difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_computes_in_bfloat16_and_stays_close(name):
    size = SIZES[name][1]
    arguments = {"include_top": True, "input_shape": (size, size, 3), "classes": 17}
    images = image(4, (2, size, size, 3))
    model = build(name, **arguments, dtype="bfloat16")
    variables = recipe_variables(model)
    features = flaxapps.Model(model.input, [model.layers[-3].output, model.output])
    middle, probabilities = features.apply(variables, images)
    assert middle.dtype == "bfloat16"
    assert probabilities.dtype == "float32"
    exact = build(name, **arguments).apply(variables, images)
    assert np.max(np.abs(probabilities - exact)) < 0.1


@pytest.mark.parametrize("form", ["weights.h5", "keras", "h5"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weight_files_of_keras_3_load_unchanged(name, form, tmp_path):
    import keras

    size = SIZES[name][1]
    network = keras_network(name, include_top=False, input_shape=(size, size, 3))
    path = tmp_path / f"network.{form}"
    if form == "weights.h5":
        network.save_weights(path)
    else:
        keras.saving.save_model(network, path)
    model = build(name, include_top=False)
    loaded = weight_port.load_weights(path, model)
    jax.tree.map(np.testing.assert_array_equal, loaded, recipe_variables(model))
