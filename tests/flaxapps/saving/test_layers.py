"""Activation, normalization, regularization, merging and reordering layers of Keras models, imported through a file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import layers
from flaxapps.graph.symbolic import Layer
from flaxapps.layers.activations import ACTIVATIONS
from flaxapps.saving.dialects import Version, normalized
from flaxapps.saving.from_config import layer_from_config
from tests.imported import check_import, random_inputs
from tests.recipe import relative_difference

IMAGE, FREE, WIDE, SEQUENCE, VECTOR = (4, 6, 8), (None, None, 8), (1, 1, 8), (4, 6), (6,)
BY_NAME = [name for name in ACTIVATIONS if name != "glu"]  # which halves the channels
ROWS = [  # class, configuration, shape or shapes of the inputs
    *[("Activation", {"activation": name}, IMAGE) for name in ACTIVATIONS],
    *[("Dense", {"units": 6, "activation": name}, SEQUENCE) for name in BY_NAME[::3]],
    *[("Conv2D", {"filters": 6, "kernel_size": 3, "activation": name}, IMAGE) for name in BY_NAME[1::3]],
    ("Dense", {"units": 6, "activation": "glu"}, VECTOR),
    ("Dense", {"units": 3}, IMAGE),
    ("Dense", {"units": 3, "use_bias": False, "activation": "elu"}, SEQUENCE),
    ("ReLU", {}, IMAGE),
    ("ReLU", {"max_value": 6.0}, IMAGE),
    ("ReLU", {"max_value": 2.5}, IMAGE),
    ("ReLU", {"max_value": 0.0, "negative_slope": 0.1}, IMAGE),
    ("ReLU", {"negative_slope": 0.3}, IMAGE),
    ("ReLU", {"threshold": 1.5}, IMAGE),
    ("ReLU", {"max_value": 2.0, "negative_slope": 0.2}, IMAGE),
    ("ReLU", {"max_value": 3.0, "negative_slope": 0.2, "threshold": 1.0}, IMAGE),
    ("ReLU", {"max_value": 1.0, "threshold": 2.0}, VECTOR),
    ("LeakyReLU", {}, IMAGE),
    ("LeakyReLU", {"negative_slope": 0.05}, VECTOR),
    ("PReLU", {}, IMAGE),
    ("PReLU", {"shared_axes": [1, 2]}, IMAGE),
    ("PReLU", {"shared_axes": [1, 2]}, FREE),
    ("PReLU", {"shared_axes": 2}, SEQUENCE),
    ("ELU", {}, IMAGE),
    ("ELU", {"alpha": 0.4}, VECTOR),
    ("Softmax", {}, IMAGE),
    ("Softmax", {"axis": 1}, IMAGE),
    ("Softmax", {"axis": [1, 2]}, IMAGE),
    ("Softmax", {"axis": [-1]}, VECTOR),
    ("LayerNormalization", {}, IMAGE),
    ("LayerNormalization", {"epsilon": 0.5}, FREE),
    ("LayerNormalization", {"axis": 1, "center": False}, IMAGE),
    ("LayerNormalization", {"axis": [1, 2, 3], "scale": False}, IMAGE),
    ("LayerNormalization", {"axis": [3, 1]}, IMAGE),
    ("LayerNormalization", {"axis": [1, -1]}, IMAGE),
    ("LayerNormalization", {"center": False, "scale": False}, VECTOR),
    ("LayerNormalization", {"rms_scaling": True}, IMAGE),
    ("LayerNormalization", {"rms_scaling": True, "scale": False, "axis": 2}, IMAGE),
    ("GroupNormalization", {"groups": 4}, IMAGE),
    ("GroupNormalization", {"groups": 2, "epsilon": 0.1}, FREE),
    ("GroupNormalization", {"groups": 1, "scale": False}, IMAGE),
    ("GroupNormalization", {"groups": -1, "center": False}, IMAGE),
    ("GroupNormalization", {"groups": 2, "axis": 1}, IMAGE),
    ("GroupNormalization", {"groups": 3, "axis": -2, "center": False, "scale": False}, IMAGE),
    ("GroupNormalization", {"groups": 3}, SEQUENCE),
    ("GroupNormalization", {"groups": 2}, VECTOR),
    ("RMSNormalization", {}, IMAGE),
    ("RMSNormalization", {"axis": [-2, -1], "epsilon": 0.1}, IMAGE),
    ("UnitNormalization", {}, IMAGE),
    ("UnitNormalization", {"axis": 1}, FREE),
    ("UnitNormalization", {"axis": [1, 2]}, FREE),
    ("Dropout", {"rate": 0.5, "noise_shape": [None, 1, 1, 8]}, IMAGE),
    ("SpatialDropout2D", {"rate": 0.5}, IMAGE),
    ("GaussianNoise", {"stddev": 0.5}, IMAGE),
    ("GaussianDropout", {"rate": 0.5}, IMAGE),
    ("AlphaDropout", {"rate": 0.5, "noise_shape": [None, 1, 1, 8]}, IMAGE),
    ("Reshape", {"target_shape": (8, 24)}, IMAGE),
    ("Reshape", {"target_shape": (-1, 8)}, IMAGE),
    ("Reshape", {"target_shape": (2, -1, 2, 2)}, IMAGE),
    ("Reshape", {"target_shape": (-1, 4)}, FREE),
    ("Reshape", {"target_shape": (1, 1, 6)}, VECTOR),
    ("Permute", {"dims": (3, 1, 2)}, IMAGE),
    ("Permute", {"dims": (2, 1)}, SEQUENCE),
    ("Permute", {"dims": (3, 2, 1)}, FREE),
    ("RepeatVector", {"n": 3}, VECTOR),
    ("Add", {}, [IMAGE]),
    ("Add", {}, [IMAGE, IMAGE, WIDE]),
    ("Add", {}, [FREE, WIDE]),
    ("Subtract", {}, [IMAGE, IMAGE]),
    ("Subtract", {}, [WIDE, IMAGE]),
    ("Multiply", {}, [IMAGE, WIDE]),
    ("Multiply", {}, [(4, 1, 8), (6, 1)]),
    ("Multiply", {}, [SEQUENCE, VECTOR, SEQUENCE]),
    ("Average", {}, [IMAGE, IMAGE, IMAGE]),
    ("Average", {}, [SEQUENCE, (4, 1)]),
    ("Maximum", {}, [IMAGE, IMAGE, IMAGE]),
    ("Maximum", {}, [IMAGE, (8,)]),
    ("Minimum", {}, [IMAGE, IMAGE]),
    ("Minimum", {}, [VECTOR, (1,)]),
    ("Concatenate", {"axis": 1}, [IMAGE, (2, 6, 8)]),
    ("Concatenate", {"axis": -2}, [IMAGE, (4, 1, 8), IMAGE]),
    ("Concatenate", {"axis": 3}, [FREE, (None, None, 3)]),
    ("Dot", {"axes": 1}, [VECTOR, VECTOR]),
    ("Dot", {"axes": -1, "normalize": True}, [VECTOR, VECTOR]),
    ("Dot", {"axes": (2, 1)}, [SEQUENCE, (6, 3)]),
    ("Dot", {"axes": [1, 2], "normalize": True}, [SEQUENCE, (3, 4)]),
    ("Dot", {"axes": (1, 2)}, [VECTOR, SEQUENCE]),
    ("Dot", {"axes": -1}, [SEQUENCE, VECTOR]),
    ("Dot", {"axes": (3, 2)}, [IMAGE, (5, 8, 2)]),
    ("Dot", {"axes": 2, "normalize": True}, [IMAGE, (5, 6)]),
]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling:UserWarning")
@pytest.mark.parametrize(("kind", "config", "shape"), ROWS, ids=[f"{n}-{row[0]}" for n, row in enumerate(ROWS)])
def test_layer(kind, config, shape, tmp_path):
    import keras

    inputs = [keras.Input(each) for each in (shape if isinstance(shape, list) else [shape])]
    output = getattr(keras.layers, kind)(**config)(inputs if isinstance(shape, list) else inputs[0])
    model = keras.Model(inputs, output)
    arrays = [3 * array for array in random_inputs(model)]  # beyond where the hard activations saturate
    check_import(model, tmp_path / "model.keras", inputs=arrays)


def test_keras_has_no_activations_but_these():
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ACTIVATIONS) == set(ALL_OBJECTS_DICT) - {"threshold"} | {"linear"}


def test_squeeze_and_excitation(tmp_path):
    import keras

    image = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, activation="silu")(image)
    weight = keras.layers.GlobalAveragePooling2D()(x)
    weight = keras.layers.Dense(8, activation="hard_sigmoid")(keras.layers.Reshape((1, 1, -1))(weight))
    x = keras.layers.Multiply()([x, weight])
    x = keras.layers.PReLU(shared_axes=[1, 2])(keras.layers.GroupNormalization(2)(x))
    check_import(keras.Model(image, keras.layers.LayerNormalization()(x)), tmp_path / "model.keras")


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(axis=(1, 2, 3)),
        layers.LayerNormalization(rms_scaling=True),
        layers.GroupNormalization(2),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
        layers.Softmax(axis=[1, 2]),
        layers.Activation("log_softmax"),
        layers.Activation("sparsemax"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(layer, dtype):
    x = (np.random.default_rng(0).normal(400, 30, (2, 6, 6, 4))).astype(np.float16).astype(dtype)  # squares overflow
    node = flaxapps.Input(x.shape[1:], dtype=dtype)
    model = flaxapps.Model(node, layer(node))
    half = model.apply(model.init_variables(), x)
    with jax.numpy_rank_promotion("allow"):  # as in a model
        wide = layer.call(model.init_variables().get("params", {}).get(model.layers[1].name, {}), jnp.float32(x))
    assert half.dtype == dtype
    assert relative_difference(np.float32(half), wide) <= 2**-8


@pytest.mark.parametrize("layer", [layers.LeakyReLU(0.1), layers.ReLU(6.0), layers.ELU(0.5)], ids=repr)
def test_a_layer_as_activation(layer):
    x = np.linspace(-9, 9, 20, dtype=np.float32).reshape(2, 10)
    node = flaxapps.Input((10,))
    both = flaxapps.Model(node, [layer(node), layers.Activation(layer)(node)]).apply({}, x)
    np.testing.assert_array_equal(*both)


def test_zeros_have_no_norm_to_divide_by():
    node = flaxapps.Input((3,))
    x = jnp.zeros((2, 3))
    assert not flaxapps.Model(node, layers.UnitNormalization()(node)).apply({}, x).any()
    assert not flaxapps.Model([node, node], layers.Dot(1, normalize=True)([node, node])).apply({}, [x, x]).any()


def test_older_names_of_options():
    config = {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.1}}
    config = normalized(config, Version((2, 2, 4)))
    assert layer_from_config(config, layers.LeakyReLU) == layers.LeakyReLU(0.1, name="leaky", dtype="float32")


def test_lists_are_the_tuples_they_stand_for():
    assert layers.LayerNormalization(axis=[3, 1]) == layers.LayerNormalization(axis=(1, 3))
    assert hash(layers.PReLU([1, 2])) == hash(layers.PReLU((1, 2)))
    assert layers.Reshape([2, 3]) == layers.Reshape((2, 3))
    assert layers.Permute([2, 1]) == layers.Permute((2, 1))
    assert layers.Dot([1, 2]) == layers.Dot((1, 2))


REFUSED = [  # layer, shapes, what the message says
    (layers.Add(), [IMAGE, SEQUENCE], "Add takes inputs of one shape"),
    (layers.Subtract(), [IMAGE, IMAGE, IMAGE], "Subtract takes two inputs"),
    (layers.Dot(1), [VECTOR, (5,)], "Dot cannot sum along axes=1"),
    (layers.Dot((0, 1)), [VECTOR, VECTOR], "Dot cannot sum"),
    (layers.Reshape((5, 5)), [IMAGE], "192 values cannot be reshaped"),
    (layers.Reshape((5, -1)), [IMAGE], "192 values cannot be reshaped"),
    (layers.Permute((1, 3)), [SEQUENCE], "not a permutation"),
    (layers.RepeatVector(2), [SEQUENCE], "Expected vectors"),
    (layers.PReLU(), [FREE], "needs a fixed size"),
    (layers.LayerNormalization(axis=1), [FREE], "must be known"),
    (layers.LayerNormalization(axis=4), [IMAGE], "no axis 4"),
    (layers.GroupNormalization(3), [IMAGE], "8 channels cannot be divided into 3 groups"),
    (layers.SpatialDropout2D(0.5), [VECTOR], "Expected images"),
    (layers.Activation("glu"), [(3,)], "must be even"),
    (layers.Activation("threshold"), [VECTOR], "Unknown activation 'threshold'"),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), REFUSED, ids=lambda value: getattr(value, "class_name", ""))
def test_refused_while_recording(layer, shapes, message):
    nodes = [flaxapps.Input(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        layer(nodes)


def train_on(layer: Layer, x: jax.Array, seed: int = 0) -> jax.Array:
    """The output of one layer in training mode."""
    node = flaxapps.Input(x.shape[1:], dtype=str(x.dtype))
    return flaxapps.Model(node, layer(node)).apply({}, x, train=True, rngs={"dropout": jax.random.key(seed)})


NOISES = [
    layers.Dropout(0.25),
    layers.SpatialDropout2D(0.25),
    layers.GaussianNoise(0.5),
    layers.GaussianDropout(0.25),
    layers.AlphaDropout(0.25),
]


@pytest.mark.parametrize("layer", NOISES, ids=lambda layer: layer.class_name)
def test_noise_follows_the_key_and_keeps_the_mean(layer):
    x = jax.random.normal(jax.random.key(1), (64, 8, 8, 32))
    output = train_on(layer, x)
    np.testing.assert_array_equal(output, train_on(layer, x))
    assert (output != train_on(layer, x, seed=1)).any()
    assert abs(output.mean()) < 0.02
    assert train_on(layer, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("layer", [type(layer)(0.0) for layer in NOISES], ids=lambda layer: layer.class_name)
def test_no_noise_needs_no_key(layer):
    node = flaxapps.Input((4, 4, 2))
    x = jnp.ones((1, 4, 4, 2))
    np.testing.assert_array_equal(flaxapps.Model(node, layer(node)).apply({}, x, train=True), x)


@pytest.mark.parametrize("layer", [layers.Dropout(0.25), layers.Dropout(0.25, (None, 1, 1, None))], ids=repr)
def test_dropout_scales_what_it_keeps(layer):
    output = np.asarray(train_on(layer, jnp.ones((256, 4, 4, 8))))
    np.testing.assert_allclose(np.unique(output), [0, 4 / 3], rtol=1e-6)
    assert abs((output == 0).mean() - 0.25) < 0.03
    assert (output == output[:, :1, :1]).all() == (layer.noise_shape is not None)


def test_spatial_dropout_drops_whole_channels_of_each_image():
    output = np.asarray(train_on(layers.SpatialDropout2D(0.25), jnp.ones((256, 4, 4, 8))))
    assert (output == output[:, :1, :1]).all()
    assert len(np.unique(output[:, 0, 0], axis=0)) > 20  # patterns of channels
    np.testing.assert_allclose(np.unique(output), [0, 4 / 3], rtol=1e-6)


def test_everything_dropped_is_zero_with_gradients():
    value, gradient = jax.value_and_grad(lambda x: train_on(layers.Dropout(1.0), x).sum())(jnp.ones((2, 3)))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize(
    ("layer", "deviation"),
    [(layers.GaussianNoise(0.5), 0.5), (layers.GaussianDropout(0.2), 0.5), (layers.Dropout(0.2), 0.5)],
    ids=repr,
)
def test_strength_of_noise(layer, deviation):
    output = train_on(layer, jnp.ones((1000, 100)))
    assert abs(output.std() - deviation) < 0.01
    assert abs(output.mean() - 1) < 0.01


def test_alpha_dropout_keeps_mean_and_variance_of_selu_networks():
    x = jax.random.normal(jax.random.key(1), (1000, 100))
    output = train_on(layers.AlphaDropout(0.3), x)
    assert abs(output.mean()) < 0.02
    assert abs(output.var() - 1) < 0.02
    values, counts = np.unique(np.asarray(output), return_counts=True)
    assert abs(counts.max() / x.size - 0.3) < 0.01  # those at the saturation of selu
    assert values[counts.argmax()] < output.mean()


@pytest.mark.parametrize("kind", [layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.AlphaDropout])
@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_rates_are_fractions(kind, rate):
    with pytest.raises(ValueError, match="rate is a fraction"):
        kind(rate)
