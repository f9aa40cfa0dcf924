"""Integer inputs and half-precision layers: values and kinds of dtype as in Keras."""

import jax
import numpy as np
import pytest

import flaxapps
from tests.imported import randomise

pytestmark = pytest.mark.filterwarnings("ignore:.*Explicitly requested dtype int64")  # Keras says so of MixUp
IMAGE = (6, 6, 3)
KINDS = {
    "AdaptiveAveragePooling2D": {"output_size": 3},
    "AutoContrast": {},
    "CenterCrop": {"height": 4, "width": 3},
    "Conv2D": {"filters": 2, "kernel_size": 2},
    "GroupNormalization": {"groups": 3},
    "LayerNormalization": {},
    "MaxPooling2D": {"pool_size": 2, "padding": "same"},
    "MixUp": {},
    "Normalization": {"mean": [1.0, 2.0, 3.0], "variance": [1.0, 2.0, 3.0]},
    "PReLU": {},
    "RMSNormalization": {},
    "RandAugment": {},
    "RandomContrast": {"factor": 0.1},
    "RandomFlip": {},
    "RandomRotation": {"factor": 0.1},
    "Rescaling": {"scale": 1 / 255},
    "Resizing": {"height": 4, "width": 9},
    "Softmax": {},
    "Solarization": {},
    "UpSampling2D": {},
    "ZeroPadding2D": {},
}
OVERFLOWS = ("AdaptiveAveragePooling2D", "Softmax")  # in Keras, where they compute in uint8


def compared(keras, model, arrays, path):
    """Our output and Keras's."""
    randomise(model)
    model.save(path)
    network = flaxapps.load_model(path)
    found = network.model.apply(network.variables, arrays)
    with jax.numpy_dtype_promotion("standard"):
        return found, model(arrays, training=False)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers(kind, dtype, tmp_path):
    import keras

    if dtype == "uint8" and kind in OVERFLOWS:
        pytest.skip("Keras overflows here")
    arrays = np.random.default_rng(0).integers(0, 256, (2, *IMAGE)).astype(dtype)
    x = keras.Input(IMAGE, dtype=dtype)
    found, expected = compared(
        keras, keras.Model(x, getattr(keras.layers, kind)(**KINDS[kind])(x)), arrays, tmp_path / "m.keras"
    )
    assert found.dtype == expected.dtype
    largest = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def wrapped_embedding(keras):
    x = keras.Input((4,), dtype="int32")
    return keras.Model(x, keras.layers.TimeDistributed(keras.layers.Embedding(20, 3))(keras.layers.Reshape((4, 1))(x)))


def wrapped_convolution(keras):
    x = keras.Input((4, *IMAGE), dtype="uint8")
    return keras.Model(x, keras.layers.TimeDistributed(keras.layers.Conv2D(2, 2))(x))


def pipeline(keras):
    x = keras.Input(IMAGE, dtype="uint8")
    return keras.Model(x, keras.layers.Pipeline([keras.layers.AutoContrast(), keras.layers.RandomContrast(0.1)])(x))


def ranges(keras):
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Discretization([3.0, 7.5])(x))


@pytest.mark.parametrize("build", [wrapped_embedding, wrapped_convolution, pipeline, ranges])
def test_whole_numbers_in_wrappers_and_out_of_ranges(build, tmp_path):
    import keras

    with jax.numpy_dtype_promotion("standard"):
        model = build(keras)
    arrays = np.random.default_rng(0).integers(0, 20, (2, *model.inputs[0].shape[1:])).astype(model.inputs[0].dtype)
    found, expected = compared(keras, model, arrays, tmp_path / "model.keras")
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


HALF = {
    "BatchNormalization": ({}, (5, 5, 8)),
    "GroupNormalization": ({"groups": 2}, (5, 5, 8)),
    "LayerNormalization": ({}, (5, 5, 8)),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", HALF)
def test_norms_of_large_values_in_half_precision(kind, policy, tmp_path):
    import keras

    options, shape = HALF[kind]
    x = keras.Input(shape)
    model = keras.Model(x, getattr(keras.layers, kind)(**options, dtype=policy)(x))
    # Beyond 65504, the largest number of float16; Keras casts the input of BatchNormalization.
    scale = 1e6 if kind != "BatchNormalization" else 1e3
    arrays = (np.random.default_rng(0).normal(size=(2, *shape)) * scale).astype("float32")
    found, expected = (
        np.asarray(each, np.float32) for each in compared(keras, model, arrays, tmp_path / "model.keras")
    )
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention_of_large_values_in_half_precision(kind, tmp_path):
    import keras

    x = keras.Input((6, 8))
    sizes = (2, 8) if kind == "MultiHeadAttention" else (8, 4, 2)
    model = keras.Model(x, getattr(keras.layers, kind)(*sizes, dtype="mixed_float16")(x, x))
    arrays = (np.random.default_rng(0).normal(size=(2, 6, 8)) * 1e3).astype("float32")
    found, expected = (
        np.asarray(each, np.float32) for each in compared(keras, model, arrays, tmp_path / "model.keras")
    )
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_batch_renormalization(tmp_path):
    import keras

    x = keras.Input((5, 5, 3))
    model = keras.Model(x, keras.layers.BatchNormalization(renorm=True)(x))
    arrays = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    found, expected = compared(keras, model, arrays, tmp_path / "model.keras")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    network = flaxapps.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="renorm=True, which does not train here"):
        network.model.apply(network.variables, arrays, train=True, mutable=["batch_stats"])
    flaxapps.save_model(*network, tmp_path / "again.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "again.keras")(arrays), expected, rtol=1e-5, atol=1e-6
    )


def test_counts_with_weights(tmp_path):
    import keras

    x, y = keras.Input((4,), dtype="int32"), keras.Input((4,))
    model = keras.Model([x, y], keras.layers.CategoryEncoding(5, output_mode="count")(x, count_weights=y))
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 5, (2, 4)).astype("int32"), random.normal(size=(2, 4)).astype("float32")]
    found, expected = compared(keras, model, arrays, tmp_path / "model.keras")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    flaxapps.save_model(*flaxapps.load_model(tmp_path / "model.keras"), tmp_path / "again.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "again.keras")(arrays), expected, rtol=1e-6)


def test_numbers_of_channels_that_come_first(tmp_path):
    """Keras spreads them so in a session of `image_data_format` channels_first, which no file records."""
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        x = keras.Input((3, 5, 6))
        model = keras.Model(x, keras.layers.Rescaling([1.0, 2.0, 3.0], 4.0)(x))
        arrays = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype("float32")
        found, expected = compared(keras, model, arrays, tmp_path / "model.keras")
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
