"""Models of every structure Keras stores, imported and computed."""

import jax
import numpy as np
import pytest

import flaxapps
from tests.imported import check_import, random_inputs, relative_difference
from tests.networks import fresh_keras


def sequential():
    import keras
    from keras import layers

    return keras.Sequential(
        [keras.Input((9, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)]
    )


def sequential_without_input():
    import keras
    from keras import layers

    model = keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()])
    model.build((None, 9, 9, 3))
    return model


def nested_sequential():
    import keras
    from keras import layers

    image = keras.Input((9, 9, 3))
    block = keras.Sequential([keras.Input((9, 9, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    return keras.Model(image, layers.GlobalAveragePooling2D()(block(image)))


def nested_twice_and_shared():
    import keras
    from keras import layers

    x = keras.Input((8, 8, 3))
    inner = keras.Model(x, layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x)), name="inner")
    y = keras.Input((8, 8, 3))
    outer = keras.Model(y, layers.Add()([inner(inner(y)), y]), name="outer")
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    dense = layers.Dense(5)
    features = [dense(layers.GlobalAveragePooling2D()(outer(each))) for each in (a, b)]
    return keras.Model([a, b], [layers.Concatenate()(features), features[0]])


def operations():
    import keras
    from keras import layers, ops

    x = keras.Input((8, 8, 3))
    y = layers.Activation("relu")(layers.Conv2D(3, 3, padding="same")(x) + 3.0) * (1 / 6)
    scale = ops.mean(y, axis=(1, 2), keepdims=True)
    return keras.Model(x, [2.0 - y * scale, 1 / (ops.exp(y) + 5), ops.concatenate([x - y, -y], axis=-1), x / 2 + x])


def fixed_training_modes():
    import keras
    from keras import layers

    x = keras.Input((8, 8, 3))
    y = layers.BatchNormalization()(x, training=False)
    return keras.Model(x, layers.Dropout(0.5)(y, training=False))


STRUCTURES = [
    sequential, sequential_without_input, nested_sequential, nested_twice_and_shared, operations, fixed_training_modes
]  # fmt: skip # kept on few lines on purpose


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("build", STRUCTURES, ids=lambda build: build.__name__)
def test_structure(build, form, tmp_path):
    fresh_keras()
    check_import(build(), tmp_path / f"model.{form}")


@pytest.mark.parametrize("form", ["keras", "h5"])
def test_channels_first(form, tmp_path):
    import keras
    from keras import layers

    keras.config.set_image_data_format("channels_first")
    try:
        x = keras.Input((3, 9, 8))
        y = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3, strides=2, activation="relu")(x))
        y = layers.Concatenate(axis=1)([y, layers.AveragePooling2D(3, 1, padding="same")(y)])
        y = layers.ZeroPadding2D(((1, 0), (0, 2)))(layers.SeparableConv2D(5, 3, padding="same")(y))
        model = keras.Model(x, [y, layers.Dense(3)(layers.Flatten()(y)), layers.GlobalMaxPooling2D()(y)])
        network = check_import(model, tmp_path / f"model.{form}")
    finally:
        keras.config.set_image_data_format("channels_last")
    assert network.model.input_shape == (None, 3, 9, 8)


def test_mixed_precision_policy_computes_in_half(tmp_path):
    import keras
    from keras import layers

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = keras.Input((8, 8, 3))
        features = layers.Flatten()(layers.Conv2D(4, 3, name="half")(x))
        model = keras.Model(x, layers.Dense(3, dtype="float32")(features))
        network = check_import(model, tmp_path / "model.keras", tolerance=2e-2)
    finally:
        keras.config.set_dtype_policy("float32")
    convolution = flaxapps.Model(network.model.input, network.model.get_layer("half").output)
    assert convolution.apply(network.variables, random_inputs(model)[0]).dtype == "bfloat16"


def test_registered_handler_and_its_weights(tmp_path):
    import keras
    from keras import layers

    from flaxapps.graph.symbolic import Layer, Weight

    @keras.saving.register_keras_serializable()
    class Offset(layers.Layer):
        def build(self, shape):
            self.offset = self.add_weight(shape=(shape[-1],), name="offset")

        def call(self, x):
            return x + self.offset

    x = keras.Input((5,))
    model = keras.Model(x, layers.Dense(3)(Offset()(x)))
    with pytest.raises(flaxapps.saving.load.WeightError, match=r"(?s)offset \(Offset; .*register"):
        check_import(model, tmp_path / "model.keras")

    import dataclasses

    @flaxapps.layers.register("Offset")
    @dataclasses.dataclass(frozen=True)
    class OffsetHere(Layer):
        def weights(self, *shapes):
            return {"offset": Weight((shapes[0][-1],), "zeros")}

        def call(self, weights, *inputs):
            return inputs[0] + weights["offset"]

        @property
        def class_name(self):
            return "Offset"

    try:
        check_import(model, tmp_path / "model.keras")
    finally:
        flaxapps.layers.custom._REGISTERED.clear()


def test_operations_are_not_layers(tmp_path):
    fresh_keras()
    model = operations()
    network = check_import(model, tmp_path / "model.keras")
    assert [layer.name for layer in network.model.layers] == [layer.name for layer in model.layers]


def test_keras_2_whole_model(tmp_path):
    """A file as Keras 2.0 wrote it: old names of options, calls as nested lists, a nested model counted from 1."""
    import json

    import h5py

    def layer(kind, name, inbound, **config):
        return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": inbound}

    inner = {
        "name": "inner",
        "layers": [
            layer("InputLayer", "input_1", [], batch_input_shape=[None, 8, 8, 3], dtype="float32", sparse=False),
            layer("Conv2D", "conv2d_1", [[["input_1", 0, 0, {}]]], filters=4, kernel_size=[3, 3], strides=[1, 1],
                  padding="valid", data_format="channels_last", dilation_rate=[1, 1], activation="relu",
                  use_bias=True, trainable=True, kernel_initializer={"class_name": "VarianceScaling", "config": {}}),
        ],
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [["conv2d_1", 0, 0]],
    }  # fmt: skip # as in Keras's file
    config = {
        "class_name": "Model",
        "config": {
            "name": "outer",
            "layers": [
                layer("InputLayer", "input_2", [], batch_input_shape=[None, 8, 8, 3], dtype="float32"),
                {"class_name": "Model", "name": "inner", "config": inner, "inbound_nodes": [[["input_2", 0, 0, {}]]]},
                layer("GlobalAveragePooling2D", "pool", [[["inner", 1, 0, {}]]], data_format="channels_last"),
                layer("Dense", "dense_1", [[["pool", 0, 0, {}]]], units=2, activation="softmax", use_bias=True),
            ],
            "input_layers": [["input_2", 0, 0]],
            "output_layers": [["dense_1", 0, 0]],
        },
    }
    random = np.random.default_rng(0)
    arrays = {
        "inner": {"conv2d_1/kernel:0": random.normal(size=(3, 3, 3, 4)), "conv2d_1/bias:0": random.normal(size=4)},
        "dense_1": {"dense_1/kernel:0": random.normal(size=(4, 2)), "dense_1/bias:0": random.normal(size=2)},
    }
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.0.4"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"input_2", b"inner", b"pool", b"dense_1"]
        for name in ("input_2", "inner", "pool", "dense_1"):
            below = group.create_group(name)
            below.attrs["weight_names"] = [key.encode() for key in arrays.get(name, {})]
            for key, value in arrays.get(name, {}).items():
                below[key] = value.astype("float32")
    network = flaxapps.load_model(tmp_path / "model.h5")
    images = random.normal(size=(2, 8, 8, 3)).astype("float32")
    kernel, bias = arrays["inner"].values()
    features = jax.lax.conv_general_dilated(
        images, kernel.astype("float32"), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    pooled = np.maximum(features + bias.astype("float32"), 0).mean((1, 2))
    logits = pooled @ arrays["dense_1"]["dense_1/kernel:0"].astype("float32") + arrays["dense_1"]["dense_1/bias:0"]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert relative_difference(flaxapps.predict(*network, images), expected) <= 1e-5
