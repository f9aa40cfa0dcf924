"""Dynamic loss scaling, beside Keras's LossScaleOptimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from tests.imported import randomise
from tests.train.small import CLASSES, assert_same, fit, small_data

DATA = small_data(40)


def faint_model(dtype):
    """Its first kernel has gradients that float16 rounds to zero."""
    x = y = Input((8, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="conv", dtype=dtype)(y)
    for name in ("faint", "fainter"):
        y = layers.Rescaling(1e-3, name=name, dtype=dtype)(y)
    y = layers.Dense(CLASSES, name="mixed", dtype=dtype)(layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(y))
    return Model(x, layers.Activation("softmax", name="probabilities", dtype="float32")(y))


def kernel_after(dtype, rate=1e4, **options):
    """The first kernel after a step, less that before, and that of float32."""
    model = faint_model(dtype)
    variables = model.init_variables()
    options |= {"optimizer": optax.sgd(rate), "batch_size": 40, "variables": variables}
    result, _ = fit(DATA, model, **options)
    return np.asarray(result.variables["params"]["conv"]["kernel"]) - variables["params"]["conv"]["kernel"]


def test_early_layers_in_float16_train_with_scaling_and_not_without():
    wanted = kernel_after(None)
    found = kernel_after("float16")
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    without = kernel_after("float16", computation=train.Computation(loss_scaling=False))
    assert np.mean(without == 0) > 0.9


def test_bfloat16_and_float32_are_not_scaled():
    for dtype in ("bfloat16", None):
        result, _ = fit(DATA, faint_model(dtype))
        assert not hasattr(result.state.optimizer_state, "scale")
    result, _ = fit(DATA, faint_model("float16"))
    assert result.state.optimizer_state.scale == 2**15


def test_the_scale_follows_that_of_keras():
    """Doubled after three finite steps, halved after one that is not, which changes nothing else."""
    import keras

    gradients = [1.0, 2.0, np.inf, 1.0, 3.0, 1.0, 1.0, np.nan, np.nan, 1.0]
    with jax.numpy_dtype_promotion("standard"):
        variable = keras.Variable(np.ones(2, "float32"))
        inner = keras.optimizers.SGD(0.1, momentum=0.9)
        theirs = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=3)
        theirs.build([variable])
    values, kept = [variable.value], [each.value for each in theirs.variables]
    place = [each.path for each in theirs.variables].index(theirs.dynamic_scale.path)
    ours = train.dynamic_loss_scale(optax.sgd(0.1, momentum=0.9), 8.0, 3)
    params = {"kernel": jnp.ones(2)}
    state = ours.init(params)
    for gradient in gradients:
        changes, state = ours.update({"kernel": jnp.full(2, gradient)}, state, params)
        params = optax.apply_updates(params, changes)
        with jax.numpy_dtype_promotion("standard"):
            scale = kept[place]
            values, kept = theirs.stateless_apply(kept, [jnp.full(2, gradient) * scale], values)
        assert float(state.scale) == float(kept[place])
        np.testing.assert_allclose(params["kernel"], values[0], rtol=1e-6)
    optimizer = optax.identity()
    assert train.dynamic_loss_scale(optimizer) is train.dynamic_loss_scale(optimizer)  # compiled once


def test_ten_steps_in_float16_are_those_of_keras(tmp_path):
    import keras

    import weight_port

    x = y = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, activation="relu", name="conv", dtype="mixed_float16")(y)
    y = keras.layers.GlobalAveragePooling2D(name="pool", dtype="mixed_float16")(y)
    twin = keras.Model(x, keras.layers.Dense(CLASSES, activation="softmax", name="head", dtype="float32")(y))
    x = y = Input((8, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="conv", dtype="float16")(y)
    y = layers.GlobalAveragePooling2D(name="pool", dtype="float16")(y)
    model = Model(x, layers.Dense(CLASSES, activation="softmax", name="head", dtype="float32")(y))
    randomise(twin)
    twin.save_weights(tmp_path / "before.weights.h5")
    variables = weight_port.load_weights(tmp_path / "before.weights.h5", model)
    batches = [(DATA[0][start : start + 4], DATA[1][start : start + 4]) for start in range(0, 40, 4)]
    with jax.numpy_dtype_promotion("standard"):
        # A larger rate would show the order in which threads add float16: Keras's own losses then differ by 2e-4.
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
        twin.compile(optimizer, "sparse_categorical_crossentropy")
        wanted = [twin.fit(*batch, batch_size=4, verbose=0).history["loss"][0] for batch in batches]
    options = {"optimizer": optax.sgd(0.01), "variables": variables, "devices": jax.devices()[:1]}
    result, losses = fit(batches, model, **options)
    np.testing.assert_allclose(losses, wanted, atol=1e-4)
    kernel = twin.get_layer("conv").get_weights()[0]
    np.testing.assert_allclose(result.variables["params"]["conv"]["kernel"], kernel, atol=1e-4)


@pytest.mark.parametrize("options", [{"parallel": "pmap"}, {"computation": train.Computation(accumulate=5)}], ids=str)
def test_devices_and_parts_scale_alike(options):
    alone = kernel_after("float16", devices=jax.devices()[:1])
    np.testing.assert_allclose(kernel_after("float16", **options), alone, atol=0.02 * np.abs(alone).max())


def test_the_scale_is_resumed(tmp_path):
    model = faint_model("float16")
    options = {"optimizer": optax.adam(optax.constant_schedule(0.01))}
    whole, _ = fit(DATA, model, epochs=2, **options)
    fit(DATA, model, epochs=1, checkpoint_dir=tmp_path, **options)
    result, _ = fit(DATA, model, epochs=2, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options)
    assert_same(result.state.optimizer_state, whole.state.optimizer_state)
    assert_same(result.variables, whole.variables)
