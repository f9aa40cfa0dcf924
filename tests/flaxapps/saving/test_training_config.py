"""Import of training options: frozen layers, regularizers, constraints."""

import json

import jax
import numpy as np
import optax
import pytest

import flaxapps
from flaxapps import train


@pytest.fixture
def saved(tmp_path):
    import keras

    image = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, name="first", trainable=False)(image)
    y = keras.layers.Conv2D(4, 3, name="second", kernel_regularizer=keras.regularizers.L2(0.25))(y)
    base = keras.Model(image, keras.layers.BatchNormalization(name="norm")(y), name="base")
    frozen = keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image), name="frozen")
    frozen.trainable = False
    x = keras.Input((8, 8, 3))
    pooled = [keras.layers.GlobalAveragePooling2D()(each(x)) for each in (base, frozen)]
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax", name="head")(keras.layers.Add()(pooled)))
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_frozen_layers_as_saved(saved):
    model, variables = flaxapps.load_model(saved)
    frozen = train.frozen_layers(model, as_saved=True)
    assert {"base/first", "frozen", "frozen/conv"} <= frozen
    assert not {"head", "base", "base/second", "base/norm"} & frozen
    data = np.ones((2, 8, 8, 3), "float32"), np.eye(2, dtype="float32")
    result = train.fit(model, variables, data, optimizer=optax.sgd(0.1), frozen=frozen, batch_size=2, verbose=False)
    kept, trained = (jax.tree.leaves(each["params"]["base"]["first"]) for each in (variables, result.variables))
    assert all(map(np.array_equal, kept, trained))
    assert not np.array_equal(variables["params"]["head"]["kernel"], result.variables["params"]["head"]["kernel"])


def test_models_in_which_nothing_was_frozen_say_so(saved):
    x = flaxapps.Input((3,))
    model = flaxapps.Model(x, flaxapps.layers.Dense(2)(x))
    with pytest.raises(ValueError, match="no layer was frozen"):
        train.frozen_layers(model, as_saved=True)


def test_flags_and_regularizers_go_back(saved, tmp_path):
    import keras

    network = flaxapps.load_model(saved)
    second = network.model.get_layer("base").layer.graph.layers[2]
    assert json.loads(dict(second.training_options)["kernel_regularizer"])["config"]["l2"] == 0.25
    flaxapps.save_model(*network, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    assert not again.get_layer("base").get_layer("first").trainable
    assert again.get_layer("base").get_layer("second").trainable
    assert not again.get_layer("frozen").trainable
    assert again.get_layer("base").get_layer("second").kernel_regularizer.l2 == 0.25


def test_constraints_are_warned_of(tmp_path):
    import keras

    x = keras.Input((3,))
    layer = keras.layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(2), name="bounded")
    keras.Model(x, layer(x)).save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="'bounded' has kernel_constraint"):
        flaxapps.load_model(tmp_path / "model.keras")


def test_layers_with_slashes_stay_frozen():
    x = flaxapps.Input((3,))
    y = flaxapps.layers.Dense(3, name="block/dense")(x)
    model = flaxapps.Model(x, flaxapps.layers.Dense(2, activation="softmax", name="head")(y))
    variables = model.init_variables()
    frozen = train.frozen_layers(model, until="block/dense")
    assert not train.trainable_mask(variables["params"], frozen)["block/dense"]["kernel"]
    data = np.ones((2, 3), "float32"), np.eye(2, dtype="float32")
    result = train.fit(model, variables, data, optimizer=optax.sgd(0.1), frozen=frozen, batch_size=2, verbose=False)
    assert np.array_equal(
        result.variables["params"]["block/dense"]["kernel"], variables["params"]["block/dense"]["kernel"]
    )
