"""Keras's regression and hinge losses, against Keras."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaxapps
from flaxapps import train
from flaxapps.train.step.distances import DISTANCES, keras_loss


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("shape", [(5, 3), (4, 1), (2, 6, 7, 3)])
def test_values_are_keras_s(name, shape):
    import keras

    random = np.random.default_rng(0)
    outputs = random.uniform(0.05, 2.5, shape).astype("float32")
    targets = random.uniform(-0.5, 2.5, shape).astype("float32")
    if "hinge" in name:
        targets = (targets > 1).astype("float32")
    named = {"kullback_leibler_divergence": "kld", "huber_loss": "huber", "logcosh": "log_cosh"}.get(name, name)
    expected = np.asarray(keras.losses.get(named)(targets, outputs))
    np.testing.assert_allclose(DISTANCES[name](targets, outputs), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["MSE", "MeanSquaredError", "mean_squared_error", "mse"])
def test_any_spelling(name):
    assert keras_loss(name) is DISTANCES["mse"]


def test_spellings_of_crossentropies():
    assert keras_loss("BCE") == keras_loss("BinaryCrossentropy") == "binary_crossentropy"
    assert keras_loss("SparseCategoricalCrossentropy") == "sparse_categorical_crossentropy"


def test_targets_without_the_axis_of_one_value():
    targets, outputs = jnp.arange(4.0), jnp.ones((4, 1))
    np.testing.assert_allclose(DISTANCES["mse"](targets, outputs), [1, 0, 1, 4])
    with pytest.raises(ValueError, match=r"shape of the outputs, \(4, 1\), got \(3, 1\)"):
        DISTANCES["mse"](targets[:3], outputs)


def test_training_by_mse_is_keras_s():
    import keras

    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 3)).astype("float32"), random.normal(size=(8,)).astype("float32")
    image = flaxapps.Input((3,))
    model = flaxapps.Model(image, flaxapps.layers.Dense(1, name="dense")(image))
    variables = model.init_variables()
    theirs = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    theirs.set_weights([np.asarray(variables["params"]["dense"][leaf]) for leaf in ("kernel", "bias")])
    theirs.compile(keras.optimizers.SGD(0.1), "mse")
    history = theirs.fit(x, y, batch_size=8, epochs=5, verbose=0, shuffle=False).history["loss"]
    result = train.fit(
        model, variables, (x, y), optimizer=optax.sgd(0.1), loss="mse", epochs=5, batch_size=8, verbose=False
    )
    np.testing.assert_allclose(result.history["loss"], history, rtol=1e-5)
    assert "accuracy" not in result.history
