"""`x + y` and its kin on nodes, as Keras records them."""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from tests.imported import keras_outputs

EXPRESSIONS = {
    "sum": lambda x, y: x + y,
    "number on the right": lambda x, y: (x - 0.5) / 2,
    "number on the left": lambda x, y: 1 - x * 3,
    "quotient": lambda x, y: 2.0 / (x * x + y**2 + 1),
    "the same twice": lambda x, y: x + x,
    "NumPy's number": lambda x, y: x * np.float32(0.25) + np.float32(1),
    "negative": lambda x, y: -x - y,
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_numbers_are_those_of_keras(name, tmp_path):
    import keras

    compute = EXPRESSIONS[name]
    arrays = [np.random.default_rng(seed).normal(size=(2, 5, 4, 3)).astype("f4") for seed in range(2)]
    ours, theirs = [Input((5, 4, 3)) for _ in range(2)], [keras.Input((5, 4, 3)) for _ in range(2)]
    model = Model(ours, compute(*ours) + 0 * ours[1])
    keras_model = keras.Model(theirs, compute(*theirs) + 0 * theirs[1])
    expected = keras_outputs(keras_model, arrays)[0]
    np.testing.assert_allclose(model.apply({}, arrays), expected, rtol=1e-6, atol=1e-6)
    flaxapps.save_model(model, {}, tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(keras_outputs(again, arrays)[0], expected, rtol=1e-6, atol=1e-6)
    assert flaxapps.load_model(tmp_path / "ours.keras").model.graph == model.graph


def test_operations_are_not_among_the_layers():
    x = Input((4,))
    model = Model(x, layers.Dense(2)(x) + 1)
    assert [layer.class_name for layer in model.layers] == ["InputLayer", "Dense"]


def test_other_operands_are_python_errors():
    x = Input((4,))
    for compute in (lambda: x + "1", lambda: x * [1], lambda: np.ones(4) * x):
        with pytest.raises(TypeError):
            compute()


def test_numpys_numbers_on_the_left():
    (x, y) = Input((4,)), Input((4,))
    assert Model(x, np.float32(0.5) - x) == Model(y, 0.5 - y)


def test_no_activation_is_the_identity():
    x = Input((4,))
    model = Model(x, layers.Activation(None)(x))
    array = jax.numpy.arange(8.0).reshape(2, 4)
    assert (model.apply({}, array) == array).all()
