"""Import and export of Keras 3 models with channels_first images, layer by layer."""

import numpy as np
import pytest

import flaxapps
from weight_port import WeightError

FIRST = "channels_first"


def conv(keras, x):
    return keras.layers.Conv2D(4, 3, data_format=FIRST)(x)


CASES = {
    "flatten as stored": lambda keras, x: keras.layers.Dense(3)(keras.layers.Flatten()(conv(keras, x))),
    "flatten": lambda keras, x: keras.layers.Dense(3)(keras.layers.Flatten(data_format=FIRST)(conv(keras, x))),
    "flatten of sequences": lambda keras, x: keras.layers.Flatten(data_format=FIRST)(
        keras.layers.Reshape((4, 24))(conv(keras, x))
    ),
    "rescaling": lambda keras, x: conv(keras, keras.layers.Rescaling([1.0, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])(x)),
    "normalization": lambda keras, x: conv(
        keras, keras.layers.Normalization(axis=1, mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0])(x)
    ),
    "group normalization": lambda keras, x: keras.layers.GroupNormalization(2, axis=1)(conv(keras, x)),
    "layer normalization": lambda keras, x: keras.layers.LayerNormalization(axis=[1, 2, 3])(conv(keras, x)),
    "layer normalization over the width": lambda keras, x: keras.layers.LayerNormalization()(conv(keras, x)),
    "softmax over the width": lambda keras, x: keras.layers.Activation("softmax")(conv(keras, x)),
    "pooling of the other format": lambda keras, x: keras.layers.GlobalAveragePooling2D(data_format="channels_last")(
        conv(keras, x)
    ),
    "dropout": lambda keras, x: keras.layers.Dropout(0.2, noise_shape=(None, 4, 1, 1))(conv(keras, x)),
    "dense": lambda keras, x: keras.layers.Dense(3)(conv(keras, x)),
    "prelu": lambda keras, x: keras.layers.PReLU()(conv(keras, x)),
    "mean": lambda keras, x: keras.ops.mean(conv(keras, x), axis=1),
    "slice": lambda keras, x: conv(keras, x)[:, 1:3, ::-1],
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_channels_first_models(build, tmp_path):
    import keras

    random = np.random.default_rng(0)
    x = keras.Input((3, 8, 6))
    model = keras.Model(x, build(keras, x))
    for weight in model.weights:
        weight.assign(random.uniform(0.2, 1.5, weight.shape))
    images = random.normal(size=(2, 3, 8, 6)).astype("float32")
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(network.model.apply(network.variables, images), expected, rtol=1e-4, atol=1e-5)
    flaxapps.save_model(*network, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_flatten_of_channels_first_images_in_a_channels_last_model(tmp_path):
    import keras

    x = keras.Input((8, 6, 3))
    model = keras.Model(x, keras.layers.Flatten(data_format=FIRST)(keras.layers.MaxPooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(network.model.apply(network.variables, images), model.predict(images, verbose=0))


def test_a_softmax_inside_a_channels_first_convolution_is_refused(tmp_path):
    import keras

    x = keras.Input((3, 8, 6))
    layer = keras.layers.Conv2D(4, 3, data_format=FIRST, activation="softmax", name="odd")
    keras.Model(x, layer(x)).save(tmp_path / "model.keras")
    with pytest.raises(WeightError, match="'odd' of kind Conv2D cannot be turned"):
        flaxapps.load_model(tmp_path / "model.keras")
