"""Runs that continue another: from a state, epoch by epoch."""

import jax
import numpy as np
import optax
import optax.contrib
import pytest

from flaxapps import train
from tests.train.small import assert_close, assert_same, fit, small_data, small_model

DATA, VALIDATION = small_data(36), small_data(21, seed=1)
ADAM = optax.adam(0.01)
SCHEDULE_FREE = optax.contrib.schedule_free_sgd(0.3, warmup_steps=2)


def darken(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype)


@pytest.mark.parametrize("frozen", [(), ("conv1", "norm1")], ids=["", "frozen"])
def test_fit_epoch_by_epoch_is_one_fit(frozen):
    """As in Keras, whose model keeps its optimizer; there, too, `initial_epoch` counts."""
    model = small_model(dropout=0.5)
    options = {"optimizer": ADAM, "augmentation": darken, "frozen": frozenset(frozen)}
    whole, losses = fit(DATA, model, epochs=3, **options)
    given, parts, epochs = model.init_variables(), [], []
    for epoch in range(3):
        events = {"callbacks": [lambda event: epochs.append(event.epoch)]}
        result, more = fit(DATA, model, variables=given, initial_epoch=epoch, epochs=epoch + 1, **options, **events)
        parts += more
        if isinstance(given, train.TrainState):
            assert not given.key.is_deleted()
        given = result.state
    assert parts == losses
    assert_same(result.variables, whole.variables)
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2}


def test_an_initial_epoch_alone_has_its_own_order_and_random_numbers():
    model = small_model(dropout=0.5)
    options = {"optimizer": optax.sgd(0.0), "batch_size": 36}  # the order of one batch is no matter
    seen = [fit(DATA, model, initial_epoch=epoch, epochs=epoch + 1, **options)[1][0] for epoch in range(3)]
    assert len(set(seen)) == 3
    with pytest.raises(ValueError, match="initial_epoch should be from 0 to epochs=1, got 2"):
        fit(DATA, model, initial_epoch=2)


def test_a_state_of_another_run_is_refused():
    model = small_model()
    state = fit(DATA, model)[0].state
    with pytest.raises(ValueError, match="other layers than frozen leaves"):
        fit(DATA, model, variables=state, frozen=frozenset({"conv1"}))
    with pytest.raises(ValueError, match="another optimizer"):
        fit(DATA, model, variables=state, optimizer=ADAM)
    fit(DATA, model, variables=state, optimizer=optax.sgd(0.01, momentum=0.9))  # another rate is no other optimizer


@pytest.mark.parametrize("frozen", [frozenset(), frozenset({"conv1", "norm1"})], ids=["", "frozen"])
def test_a_schedule_free_optimizer_is_evaluated_at_its_average(frozen):
    model, evaluated = small_model(), []

    def keep(event):
        if isinstance(event, train.EpochEnd):
            evaluated.append(jax.device_get(event.variables))

    options = {"optimizer": SCHEDULE_FREE, "validation_data": VALIDATION, "frozen": frozen, "callbacks": [keep]}
    result, _ = fit(DATA, model, epochs=3, **options)
    state = result.state
    wanted = optax.contrib.schedule_free_eval_params(state.optimizer_state, state.params)
    trained = {name: leaves for name, leaves in result.variables["params"].items() if name not in frozen}
    assert_close(trained, wanted, 1e-6)
    assert not np.allclose(trained["head"]["kernel"], state.params["head"]["kernel"], atol=1e-4)
    assert_same(evaluated[-1], jax.device_get(result.variables))
    values = train.evaluate(model, result.variables, VALIDATION)
    np.testing.assert_allclose(values["loss"], result.history["val_loss"][-1], rtol=1e-5)
    best = train.EarlyStopping("val_loss", patience=9, mode="max")  # the first, most likely
    restored, _ = fit(DATA, model, epochs=3, early_stopping=best, **options)
    assert restored.best_epoch != 2
    assert_close(restored.variables, evaluated[3 + restored.best_epoch], 1e-6)


def test_an_average_of_some_parameters_is_that_of_these():
    model = small_model()
    head = train.param_labels(model.init_variables()["params"], {"head": ["head"]}, default="rest")
    parts = {"head": optax.contrib.schedule_free_sgd(0.3), "rest": optax.sgd(0.05)}
    result, _ = fit(DATA, model, epochs=2, optimizer=optax.partition(parts, head))
    for name, leaves in result.state.params.items():
        same = np.allclose(leaves["bias"], result.variables["params"][name]["bias"], atol=1e-6)
        assert same == (name != "head")


@pytest.mark.slow
def test_a_schedule_free_run_resumes_to_the_same_bits(tmp_path):
    model = small_model()
    options = {"optimizer": SCHEDULE_FREE, "validation_data": VALIDATION}
    whole, _ = fit(DATA, model, epochs=3, **options)
    fit(DATA, model, epochs=2, checkpoint_dir=tmp_path, **options)
    result, _ = fit(DATA, model, epochs=3, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options)
    assert_same(result.variables, whole.variables)
