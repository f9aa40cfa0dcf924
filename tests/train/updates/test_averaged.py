"""The average is Keras's and timm's, and is what `fit` evaluates, keeps, saves, resumes and returns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import train
from flaxapps.train.step.state import create_state
from tests.train.small import assert_close, assert_same, fit, small_data, small_model
from weight_port.trees import load_orbax

DATA, VALIDATION = small_data(36), small_data(21, seed=1)
SGD = optax.sgd(0.1, momentum=0.9)
EMA = train.averaged(SGD, 0.9)
STEPS = 6


def gradients():
    return np.random.default_rng(0).normal(size=(STEPS, 4, 3)).astype(np.float32)


def averages(optimizer, steps=STEPS):
    params = {"kernel": jnp.zeros((4, 3))}
    state = optimizer.init(params)
    for gradient in gradients()[:steps]:
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        yield params["kernel"], state.average["kernel"]


def test_the_average_is_that_of_keras():
    import keras

    variable = keras.Variable(np.zeros((4, 3), np.float32))
    with jax.numpy_dtype_promotion("standard"):
        theirs = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.8)
        theirs.build([variable])
        for gradient, (trained, average) in zip(
            gradients(), averages(train.averaged(SGD, 0.8, warmup=False)), strict=True
        ):
            theirs.apply([jnp.asarray(gradient)], [variable])
            np.testing.assert_allclose(trained, variable.numpy(), atol=1e-6)
            np.testing.assert_allclose(average, theirs._model_variables_moving_average[0].numpy(), atol=1e-6)


def timm_decay(step, decay, power=2 / 3):
    """ModelEmaV3.get_decay with use_warmup, as timm's train.py calls it: with the number of updates, from 1 on."""
    step = max(0, step - 1)
    return 0.0 if step <= 0 else max(min(1 - (1 + step) ** -power, decay), 0.0)


def test_the_warm_up_is_that_of_timm():
    wanted = np.zeros((4, 3), np.float32)
    for step, (trained, average) in enumerate(averages(train.averaged(SGD, 0.6)), start=1):
        wanted += (1 - timm_decay(step, 0.6)) * (trained - wanted)  # lerp_
        np.testing.assert_allclose(average, wanted, atol=1e-6)
    assert timm_decay(STEPS, 0.6) == 0.6  # its end is seen, too
    assert timm_decay(3, 0.6) < 0.6


def test_a_decay_out_of_range_is_refused():
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="decay should be from 0 to below 1"):
            train.averaged(SGD, decay)


def test_fit_trains_as_without_and_evaluates_and_returns_the_average():
    model, evaluated, frozen = small_model(), [], ("conv1", "norm1")

    def keep(event):
        if isinstance(event, train.EpochEnd):
            evaluated.append(jax.device_get(event.variables))

    options = {"validation_data": VALIDATION, "frozen": frozenset(frozen), "epochs": 3}
    plain, losses = fit(DATA, model, optimizer=SGD, **options)
    result, same = fit(DATA, model, optimizer=EMA, callbacks=[keep], **options)
    assert same == losses
    assert_close(result.state.params, plain.state.params, 1e-6)
    assert_same(result.variables["batch_stats"], plain.variables["batch_stats"])
    trained = {name: leaves for name, leaves in result.variables["params"].items() if name not in frozen}
    assert_same(trained, result.state.optimizer_state.average)
    assert not np.allclose(trained["head"]["kernel"], result.state.params["head"]["kernel"], atol=1e-4)
    for name in frozen:
        assert_same(result.variables["params"].get(name), model.init_variables()["params"].get(name))
    values = train.evaluate(model, result.variables, VALIDATION)
    np.testing.assert_allclose(values["loss"], result.history["val_loss"][-1], rtol=1e-5)
    worst = train.EarlyStopping("val_loss", patience=9, mode="max")  # the first, most likely
    restored, _ = fit(DATA, model, optimizer=EMA, early_stopping=worst, **options)
    assert restored.best_epoch != 2
    assert_close(restored.variables, evaluated[restored.best_epoch], 1e-6)


def test_a_checkpoint_holds_the_average_and_a_run_resumes_from_what_trained(tmp_path):
    model = small_model()
    options = {"optimizer": EMA, "validation_data": VALIDATION}
    whole, _ = fit(DATA, model, epochs=3, **options)
    parts, _ = fit(DATA, model, epochs=2, checkpoint_dir=tmp_path, **options)
    assert_same(load_orbax(parts.checkpoint / "variables"), jax.device_get(parts.variables))
    folder = train.CheckpointFolder(tmp_path, resume=True)
    result, _ = fit(DATA, model, epochs=3, checkpoint_dir=folder, **options)
    assert_same(result.variables, whole.variables)
    assert_same(result.state.params, whole.state.params)


@pytest.mark.parametrize("options", [{"devices": train.Devices(shard_optimizer=True)}, {"parallel": "pmap"}], ids=str)
def test_eight_devices_are_as_one(options, tmp_path):
    """Also where the average is sharded with the optimizer: what is evaluated, saved and returned is whole."""
    model = small_model()
    common = {"optimizer": EMA, "validation_data": VALIDATION, "epochs": 1}
    alone, _ = fit(DATA, model, devices=jax.devices()[:1], **common)
    spread, _ = fit(DATA, model, checkpoint_dir=tmp_path, **common, **options)
    assert_close(jax.device_get(spread.variables), jax.device_get(alone.variables), 1e-4)
    np.testing.assert_allclose(spread.history["val_loss"], alone.history["val_loss"], rtol=1e-4)
    assert_same(load_orbax(spread.checkpoint / "variables"), jax.device_get(spread.variables))


def test_an_average_of_some_parameters_is_that_of_these():
    model = small_model()
    head = train.param_labels(model.init_variables()["params"], {"head": ["head"]}, default="rest")
    result, _ = fit(DATA, model, epochs=2, optimizer=optax.partition({"head": EMA, "rest": SGD}, head))
    for name, leaves in result.state.params.items():
        same = np.allclose(leaves["bias"], result.variables["params"][name]["bias"], atol=1e-6)
        assert same == (name != "head")


def test_a_skipped_step_of_loss_scaling_leaves_the_average():
    model = small_model()
    optimizer = train.dynamic_loss_scale(EMA)
    state = create_state(model, model.init_variables(), optimizer)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.params)
    _, following = optimizer.update(bad, state.optimizer_state, state.params)
    assert_same(following.inner_state, state.optimizer_state.inner_state)
