"""fit: what it returns, what it is told, what it refuses, and that the same seed gives the same bits."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import train
from flaxapps.train.devices.placement import STEPS_KEPT
from flaxapps.train.step.step import train_step
from tests.train.small import CLASSES, assert_close, assert_same, fit, small_data, small_model

DATA = small_data(36)
ONE = jax.devices()[:1]


def test_fit_is_its_steps_in_the_order_of_the_data():
    """Against a loop by hand over the same batches, with the ragged last one at its own size."""
    model = small_model()
    result, losses = fit(DATA, model, epochs=2, seed=5, devices=ONE)
    sgd = optax.sgd(0.05, momentum=0.9)
    state = train.create_state(model, model.init_variables(), sgd, seed=5)
    objective = train.make_objective(model, "sparse_categorical_crossentropy")
    wanted = []
    for epoch in range(2):
        for batch in train.as_dataset(DATA).batches(16, seed=5, epoch=epoch):
            state, sums = train_step(state, *map(jnp.asarray, batch), objective=objective, optimizer=sgd)
            wanted.append((sums["loss"].value, len(batch[1])))
    np.testing.assert_allclose(losses, [loss for loss, _ in wanted], rtol=1e-6)
    assert [count for _, count in wanted] == [16, 16, 4] * 2
    assert_close(result.variables, state.variables)
    means = [np.average(losses[start : start + 3], weights=[16, 16, 4]) for start in (0, 3)]
    np.testing.assert_allclose(result.history["loss"], means, rtol=1e-6)
    assert (result.steps, result.stopped, result.checkpoint) == (6, None, None)


def test_the_same_seed_gives_the_same_bits():
    model = small_model(dropout=0.5)
    first, losses = fit(DATA, model, seed=1)
    second, same = fit(DATA, model, seed=1)
    other, different = fit(DATA, model, seed=2)
    assert losses == same != different
    assert_same(first.variables, second.variables)
    assert first.history == second.history != other.history


def test_training_learns_and_validation_is_exact():
    model = small_model()
    data, validation = small_data(64), small_data(21, seed=1)
    result, _ = fit(
        data,
        model,
        epochs=8,
        optimizer=optax.adam(0.02),
        validation_data=validation,
        metrics=("accuracy", "confusion_matrix"),
        devices=ONE,
    )
    assert result.history["loss"][-1] < 0.8 * result.history["loss"][0]
    assert set(result.history) == {
        "loss", "accuracy", "confusion_matrix", "val_loss", "val_accuracy", "val_confusion_matrix"
    }  # fmt: skip # kept on few lines on purpose
    outputs = model.apply(result.variables, validation[0])
    assert result.history["val_accuracy"][-1] == np.mean(np.argmax(outputs, -1) == validation[1])
    assert np.sum(result.history["val_confusion_matrix"][-1]) == 21
    values = train.evaluate(model, result.variables, validation, batch_size=8)
    np.testing.assert_allclose(values["loss"], result.history["val_loss"][-1], rtol=1e-5)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("names", [[], ["conv1"]], ids=["", "frozen"])
def test_variables_given_stay_usable(names, parallel):
    model = small_model()
    variables = jax.device_put(model.init_variables(), ONE[0])
    frozen = train.frozen_layers(model, names=names) if names else frozenset()
    before = jax.device_get(variables)
    fit(DATA, model, variables=variables, frozen=frozen, parallel=parallel, devices=ONE)
    assert_same(variables, before)


def test_frozen_parameters_are_not_copied():
    model = small_model()
    variables = jax.device_put(model.init_variables(), ONE[0])
    result, _ = fit(DATA, model, variables=variables, frozen=train.frozen_layers(model, names=["conv1"]), devices=ONE)
    kernels = (each["params"]["conv1"]["kernel"] for each in (variables, result.variables))
    assert len({kernel.unsafe_buffer_pointer() for kernel in kernels}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"accumulate": 3}, {"remat": True}], ids=str)
def test_accumulation_and_remat_change_nothing(options):
    model = small_model()
    frozen = train.frozen_layers(model, names=["norm1", "norm2"])  # statistics are those of each part
    usual, losses = fit(DATA, model, frozen=frozen, devices=ONE)
    result, same = fit(DATA, model, frozen=frozen, devices=ONE, computation=train.Computation(**options))
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    assert_close(result.variables, usual.variables)


@pytest.mark.slow
def test_bfloat16_computes_in_half_and_keeps_float32():
    _, losses = fit(DATA, small_model(), devices=ONE)
    result, half = fit(DATA, small_model(dtype="bfloat16"), devices=ONE)
    np.testing.assert_allclose(half, losses, rtol=0.02)
    assert half != losses
    assert {leaf.dtype for leaf in jax.tree.leaves(result.variables)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_schedules_and_the_learning_rate_shown():
    schedule = optax.linear_schedule(0.1, 0.0, 3)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
    result, _ = fit(DATA, optimizer=optimizer, epochs=2)
    np.testing.assert_allclose(result.history["learning_rate"], [0.1 / 3, 0.0], atol=1e-7)


@pytest.mark.slow
def test_augmentation_and_preprocessing_run_in_the_step():
    images = (np.abs(DATA[0]) * 40).clip(0, 255).astype("uint8")

    def scale(images):
        return images.astype(jnp.float32) / 127.5 - 1

    def darken(key, images):
        assert images.dtype == jnp.uint8
        return images * (jax.random.uniform(key) < 0.5).astype(images.dtype)

    plain, _ = fit((scale(images), DATA[1]), devices=ONE)
    inside, losses = fit((images, DATA[1]), preprocess=scale, devices=ONE)
    assert_close(inside.variables, plain.variables)
    _, others = fit((images, DATA[1]), preprocess=scale, augmentation=darken, devices=ONE)
    _, same = fit((images, DATA[1]), preprocess=scale, augmentation=darken, devices=ONE)
    assert others == same != losses


def test_labels_are_indices_or_one_hot():
    _, losses = fit(DATA, devices=ONE)
    _, same = fit((DATA[0], np.eye(CLASSES, dtype="f4")[DATA[1]]), devices=ONE)
    np.testing.assert_allclose(same, losses, rtol=1e-6)


@pytest.mark.slow
def test_batches_from_elsewhere():
    batches = [(DATA[0][:10], DATA[1][:10]), (DATA[0][10:], DATA[1][10:])]
    _, losses = fit(batches, epochs=2, devices=ONE)
    assert len(losses) == 4
    with pytest.raises(ValueError, match="exhausted and cannot start again"):
        fit(iter(batches), epochs=2, devices=ONE)


def test_events_come_in_order_and_a_callback_can_stop():
    events = []

    def stop(event):
        events.append(event)
        return isinstance(event, train.EpochEnd) and event.epoch == 1

    result, _ = fit(DATA, epochs=5, callbacks=[stop])
    steps = [event for event in events if isinstance(event, train.StepEnd)]
    assert [type(event).__name__ for event in events] == (["StepEnd"] * 3 + ["EpochEnd"]) * 2
    assert [(each.step, each.epoch, each.batch, each.examples) for each in steps[3:]] == [
        (4, 1, 1, 16), (5, 1, 2, 16), (6, 1, 3, 4)
    ]  # fmt: skip # kept on few lines on purpose
    assert events[-1].history == result.history
    assert result.stopped == "callback"


@pytest.mark.slow
def test_early_stopping_returns_the_best_epoch():
    rates = optax.piecewise_constant_schedule(0.02, {6: 100.0})  # good for two epochs, then far too high
    kept = []

    def keep(event):
        if isinstance(event, train.EpochEnd):
            kept.append(jax.device_get(event.variables))

    stopping = train.EarlyStopping(patience=2)
    result, _ = fit(
        DATA, epochs=20, optimizer=optax.sgd(rates), validation_data=DATA, early_stopping=stopping, callbacks=[keep]
    )
    assert result.stopped == "early stopping"
    assert len(result.history["loss"]) == result.best_epoch + 3 < 20
    assert result.history["val_loss"][result.best_epoch] == min(result.history["val_loss"])
    assert_same(result.variables, kept[result.best_epoch])


@pytest.mark.parametrize(
    ("monitor", "values", "patience", "stops"),
    [
        ("val_loss", [1.0], 0, False),
        ("val_loss", [1.0, 1.0], 0, True),
        ("val_accuracy", [0.1, 0.2, 0.3], 1, False),
        ("val_accuracy", [0.3, 0.2], 1, True),
        ("loss", [2.0, float("nan"), 1.0, 1.5], 2, False),
    ],
)
def test_when_to_stop(monitor, values, patience, stops):
    assert train.EarlyStopping(monitor, patience=patience).should_stop({monitor: values}) is stops


def closeness(labels, outputs):
    return jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0]


@pytest.mark.parametrize(
    ("monitor", "options", "says"),
    [
        ("val_loss", {}, "'val_loss', but the run has accuracy, loss; give validation_data"),
        ("val_acc", {"validation_data": DATA}, "'val_acc', but the run has accuracy, loss, val_accuracy, val_loss"),
        ("confusion_matrix", {"metrics": ("confusion_matrix",)}, "'confusion_matrix', but the run has loss"),
        ("accuracy", {"loss": "mse"}, None),
        ("closeness", {"metrics": (closeness,)}, "'closeness', whose name does not tell.*give mode=\"max\" or"),
    ],
)
def test_early_stopping_on_what_is_not_there_is_an_error_before_the_first_step(monitor, options, says):
    """Keras warns in every epoch and trains on."""
    steps = []
    options |= {"early_stopping": train.EarlyStopping(monitor), "callbacks": [steps.append]}
    if says is None:  # four outputs are compared as classes, whatever the loss
        fit((DATA[0], np.eye(CLASSES, dtype="f4")[DATA[1]]), **options)
        return
    with pytest.raises(ValueError, match=says):
        fit(DATA, **options)
    assert steps == []


def test_nan_stops_with_the_step():
    images = DATA[0].copy()
    images[:] = np.where(np.arange(36)[:, None, None, None] == 7, np.nan, images)
    with pytest.raises(train.TrainingError, match=r"loss is nan at step [123] \(epoch 1\).*none was written"):
        fit((images, DATA[1]))
    with pytest.raises(train.TrainingError, match="parameter or a moving statistic is NaN or infinite after step 1"):
        fit((DATA[0][:16], DATA[1][:16]), optimizer=optax.sgd(float("inf")))


def test_everything_wrong_is_listed():
    with pytest.raises(ValueError, match="arguments") as error:
        fit(DATA, batch_size=0, epochs=-1, metrics=("preciseness",), parallel="tpu")
    for part in ("batch_size", "epochs", "preciseness", "tpu"):
        assert part in str(error.value)
    named = train.ArrayDataset(*DATA, class_names=[*"abcde"])
    with pytest.raises(ValueError, match="5 classes"):
        fit(named)
    with pytest.raises(train.TrainingError, match="no batch"):
        fit([])


def test_another_thread_can_fit():
    """Signal handlers are for the main thread only."""
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(DATA)))
    thread.start()
    thread.join()
    assert results


def test_steps_of_dead_optimizers_are_freed():
    """Twenty runs in one process, as in a search over rates, kept twenty compiled steps."""
    model, optimizers = small_model(), []
    for rate in range(1, STEPS_KEPT + 2):
        optimizer = optax.sgd(rate / 100)
        optimizers.append(weakref.ref(optimizer.update))
        fit(DATA, model, optimizer=optimizer, devices=ONE)
        del optimizer
    gc.collect()
    assert [each() is None for each in optimizers] == [True, *[False] * STEPS_KEPT]
