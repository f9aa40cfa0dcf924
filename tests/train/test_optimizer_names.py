"""Optimizers by name take the steps of Keras's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.train.optimizers import OPTIMIZERS, find_optimizer

STEPS = 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_keras(name):
    import keras

    random = np.random.default_rng(0)
    start = random.normal(size=(4, 3)).astype(np.float32)
    gradients = random.normal(size=(STEPS, 4, 3)).astype(np.float32)
    variable = keras.Variable(start)
    with jax.numpy_dtype_promotion("standard"):
        theirs = keras.optimizers.get(name)
        for gradient in gradients:
            theirs.apply([jnp.asarray(gradient)], [variable])
    ours = find_optimizer(name.upper())
    value = jnp.asarray(start)
    with jax.numpy_dtype_promotion("standard"):
        state = ours.init(value)
        for gradient in gradients:
            changes, state = ours.update(jnp.asarray(gradient), state, value)
            value = optax.apply_updates(value, changes)
    assert np.abs(value - start).max() > 1e-6
    np.testing.assert_allclose(value - start, variable.numpy() - start, rtol=1e-4, atol=3e-7)


def test_fit_takes_a_name():
    image = Input((4,))
    model = Model(image, layers.Dense(2, activation="softmax")(image))
    data = np.ones((4, 4), np.float32), np.array([0, 1, 0, 1])
    given = {"batch_size": 4, "epochs": 2, "verbose": False}
    by_name = train.fit(model, model.init_variables(), data, optimizer="Adam", **given)
    by_optax = train.fit(model, model.init_variables(), data, optimizer=optax.adam(1e-3, eps=1e-7), **given)
    jax.tree.map(np.testing.assert_array_equal, by_name.variables, by_optax.variables)
    for wrong in ("adam(0.1)", ("adam", 1e-3), optax.adam):
        with pytest.raises(ValueError, match=r"optimizer should be from Optax with its rate, such as optax\.adam"):
            train.fit(model, model.init_variables(), data, optimizer=wrong, **given)
