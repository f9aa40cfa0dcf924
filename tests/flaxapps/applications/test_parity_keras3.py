"""Every network and every layer in it against Keras 3.15 on JAX, with random weights and statistics."""

import jax
import numpy as np
import pytest

import flaxapps
import weight_port
from flaxapps.registry import build_model
from tests.networks import LARGER, NETWORKS, compiled, keras_layer_outputs, keras_network
from tests.recipe import CLASSIC, HEADS, images_for, recipe_variables, relative_difference
from weight_port.layout import all_targets

TOLERANCE = 1e-5
# Odd and even, small enough to be quick: the layers do not care.
SIZES = dict.fromkeys(flaxapps.list_models(), (75, 96)) | {"inception_v3": (81, 96)}
SIZES |= dict.fromkeys(("vgg16", "vgg19"), (49, 64))
QUICK = ("resnet50", "vgg16")
DEEP = ("nasnet_mobile", "inception_resnet_v2")  # they take as long to compile as the other families together
SLOW, EVERY_JAX = (pytest.mark.slow,), (pytest.mark.slow, pytest.mark.every_jax)
# One network of each family, in the slow tests; `test_outputs_of_a_weight_file` has the others.
QUICKLY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in (*CLASSIC, *HEADS)]


def build(name, **arguments):
    return build_model(name, min_size=flaxapps.model_info(name).possible_size, **arguments)


@pytest.mark.parametrize(
    "name",
    [
        *(name if name in QUICK else pytest.param(name, marks=EVERY_JAX) for name in CLASSIC),
        *(pytest.param(name, marks=SLOW) for name in HEADS),
    ],
)
def test_every_layer(name):
    height, width = SIZES[name]
    model = build(name, include_top=False, input_shape=(height, width, 3))
    every_output = flaxapps.Model(model.input, [layer.output for layer in model.layers])
    images = images_for(name, 1, (2, height, width, 3))
    ours = compiled(every_output.apply, recipe_variables(model), images)
    theirs = keras_layer_outputs(keras_network(name, include_top=False, input_shape=(height, width, 3)), images)
    assert len(ours) == len(theirs) == len(model.layers)
    differences = {
        layer.name: relative_difference(mine, other)
        for layer, mine, other in zip(model.layers, ours, theirs, strict=True)
    }
    assert max(differences.values()) <= TOLERANCE, {name: d for name, d in differences.items() if d > TOLERANCE}
    assert np.ptp(theirs[-1]) > 1e-2  # the weights of the recipe keep the signal alive


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet",
        *(pytest.param(name, marks=EVERY_JAX) for name in HEADS if name not in ("mobilenet", *DEEP)),
        *(pytest.param(name, marks=SLOW) for name in (*DEEP, *LARGER)),
    ],
)
def test_outputs_of_a_weight_file(name, tmp_path):
    """Predictions and features in one program, at the smallest size; without its classifier the network is the same."""
    import keras

    size = flaxapps.model_info(name).min_size
    shape, path = (size, size, 3), tmp_path / "network.weights.h5"
    network = keras_network(name, input_shape=shape, classes=17)
    network.save_weights(path)
    model, trunk = build(name, input_shape=shape, classes=17), build(name, include_top=False, input_shape=shape)
    variables = weight_port.load_weights(path, model)
    path.unlink()
    assert network.name == model.name  # by which an imported model is recognised
    pooled = max(n for n, layer in enumerate(model.layers) if layer.class_name == "GlobalAveragePooling2D")
    assert [each.layer for each in trunk.layers[:pooled]] == [each.layer for each in model.layers[:pooled]]
    ours = flaxapps.Model(model.input, [model.layers[pooled].output, model.output])
    theirs = keras.Model(network.input, [network.layers[pooled].output, network.output])
    values = [[each.value for each in kind] for kind in (theirs.trainable_variables, theirs.non_trainable_variables)]
    images = images_for(name, 2, (2, *shape))
    with jax.numpy_dtype_promotion("standard"):
        expected = compiled(lambda *a: theirs.stateless_call(*a, training=False)[0], *values, images)
    for mine, other in zip(compiled(ours.apply, variables, images), expected, strict=True):
        assert relative_difference(mine, other) <= TOLERANCE
    assert relative_difference(expected[0][0], expected[0][1]) > 1e-3  # the image reaches the end


@pytest.mark.parametrize("data_format", ["channels_last", pytest.param("channels_first", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", QUICKLY)
def test_predictions_and_features(name, data_format):
    """With the classifier and without; the features of Keras's network are those below its classifier.

    What `predict` does to a network for many images is in it; `test_every_layer` compares the network as it stands.
    """
    import keras

    info = flaxapps.model_info(name)
    if data_format == "channels_first" and not info.channels_first:
        with pytest.raises(ValueError, match="channels_last images only"):
            build(name, data_format=data_format)
        return
    size = SIZES[name][1]
    shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
    images = images_for(name, 2, (2, size, size, 3))
    images = images if data_format == "channels_last" else np.moveaxis(images, -1, 1)
    keras.config.set_image_data_format(data_format)
    try:
        network = keras_network(name, input_shape=shape, classes=17)
        theirs = keras_layer_outputs(network, images)
    finally:
        keras.config.set_image_data_format("channels_last")
    model = build(name, input_shape=shape, classes=17, data_format=data_format)
    variables = recipe_variables(model)
    ours = flaxapps.predict(*flaxapps.optimize(model, variables, "default"), images, optimize=None)
    assert ours.shape == (2, *model.output_shape[1:])
    assert relative_difference(ours, theirs[-1]) <= TOLERANCE
    free = {} if info.free_size else {"input_shape": shape}
    model = build(name, include_top=False, data_format=data_format, **free)
    if any(target.path[1] not in variables["params"] for target in all_targets(model.layers)):
        return  # ConvNeXt ends in another layer without its classifier, which `test_every_layer` compares
    features = flaxapps.predict(model, variables, images)
    assert relative_difference(features, theirs[len(model.layers) - 1]) <= TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_reaches_every_layer_and_predictions_are_float32(name):
    size = SIZES[name][1]
    model = build(name, input_shape=(size, size, 3), dtype="bfloat16")
    every_output = flaxapps.Model(model.input, [layer.output for layer in model.layers])
    variables, images = jax.eval_shape(model.init_variables), jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    *outputs, predictions = jax.eval_shape(every_output.apply, variables, images)
    assert {str(output.dtype) for output in outputs} == {"bfloat16"}
    assert predictions.dtype == "float32"
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}


# VGG16 is where jax 0.12 went wrong, so every run has it, on every jax. The recipe's gains multiply rounding in others.
@pytest.mark.parametrize(
    "name",
    [name if name == "vgg16" else pytest.param(name, marks=pytest.mark.slow) for name in (*CLASSIC, "densenet121")],
)
def test_bfloat16_stays_close(name):
    """To what 8 bits hold: 2**-9 a rounding, carried through tens of layers; wrong fusions are off by 1, or NaN."""
    size = SIZES[name][0]
    arguments = {"input_shape": (size, size, 3), "classes": 17, "classifier_activation": None}
    model, half = build(name, **arguments), build(name, **arguments, dtype="bfloat16")
    variables, images = recipe_variables(model), images_for(name, 4, (2, size, size, 3))
    exact = flaxapps.predict(model, variables, images)
    rounded = flaxapps.predict(half, variables, images)
    assert 1e-5 < relative_difference(rounded, exact) < 0.05  # it does round


@pytest.mark.parametrize("name", QUICKLY)
def test_weight_files_of_keras_3_load_unchanged(name, tmp_path):
    import keras

    size = SIZES[name][1]
    network = keras_network(name, include_top=False, input_shape=(size, size, 3))
    model = build(name, include_top=False)
    expected = recipe_variables(model)
    network.save_weights(tmp_path / "network.weights.h5")
    keras.saving.save_model(network, tmp_path / "network.keras")
    keras.saving.save_model(network, tmp_path / "network.h5")
    for path in tmp_path.iterdir():
        jax.tree.map(np.testing.assert_array_equal, weight_port.load_weights(path, model), expected)
