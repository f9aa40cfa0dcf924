"""Metrics of numbers and of yes or no, beside scikit-learn and Keras, over ragged batches that are added up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn

from flaxapps import Input, Model, layers, train
from flaxapps.train.history import add_fetched, fetch_sums, sums_from_json, sums_to_json
from flaxapps.train.step.metrics import METRICS, batch_metrics
from tests.networks import fresh_keras

RANDOM = np.random.default_rng(0)
COUNT = 500
NUMBERS = RANDOM.normal(3, 2, (COUNT, 2)).astype("float32")
GUESSES = (NUMBERS + RANDOM.normal(0, 1, NUMBERS.shape) * [1.0, 0.3]).astype("float32")
YES = (RANDOM.random((COUNT, 3)) < [0.2, 0.5, 0.8]).astype("float32")
LIKELY = (1 / (1 + np.exp(-(RANDOM.normal(0, 1.5, YES.shape) + 2 * YES - 1)))).astype("float32")
KINDS = RANDOM.integers(0, 4, COUNT).astype("int32")
SCORES = RANDOM.normal(0, 1, (COUNT, 4)) + 1.5 * np.eye(4)[KINDS]
SHARES = (np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)).astype("float32")


def objective(units, activation, loss):
    x = Input((3,))
    return train.make_objective(Model(x, layers.Dense(units, activation)(x)), loss)


OBJECTIVES = {
    "numbers": (objective(2, None, "mse"), NUMBERS, GUESSES),
    "yes": (objective(3, "sigmoid", "binary_crossentropy"), YES, np.log(LIKELY / (1 - LIKELY))),
    "kinds": (objective(4, "softmax", "sparse_categorical_crossentropy"), KINDS, np.log(SHARES)),
}


def computed(case, *names):
    """The values over batches of 128, the last of 116 padded, as a run that was saved and resumed adds them up."""
    own, labels, outputs = OBJECTIVES[case]
    compute = jax.jit(lambda *batch: batch_metrics(own, names, *batch))
    total = {}
    for start in range(0, COUNT, 128):
        rows = np.arange(start, start + 128) % COUNT
        mask = jnp.asarray(np.arange(start, start + 128) < COUNT)
        total = add_fetched(sums_from_json(sums_to_json(total)), fetch_sums(compute(labels[rows], outputs[rows], mask)))
    return train.summarise(total)


def test_regression_is_scikit_learn_s():
    values = computed("numbers", "mae", "mse", "rmse", "r2", "mean_squared_error")
    np.testing.assert_allclose(values["mae"], sklearn.mean_absolute_error(NUMBERS, GUESSES), rtol=1e-6)
    np.testing.assert_allclose(values["mse"], sklearn.mean_squared_error(NUMBERS, GUESSES), rtol=1e-6)
    np.testing.assert_allclose(values["rmse"] ** 2, values["mean_squared_error"], rtol=1e-12)
    np.testing.assert_allclose(values["r2"], sklearn.r2_score(NUMBERS, GUESSES), rtol=1e-5)


@pytest.mark.parametrize("case", ["yes", "kinds"])
def test_decisions_are_scikit_learn_s(case):
    values = computed(case, "precision", "recall", "f1")
    labels = YES if case == "yes" else np.eye(4)[KINDS]
    shares = LIKELY if case == "yes" else SHARES
    taken = shares > 0.5
    np.testing.assert_allclose(values["precision"], sklearn.precision_score(labels, taken, average="micro"), rtol=1e-6)
    np.testing.assert_allclose(values["recall"], sklearn.recall_score(labels, taken, average="micro"), rtol=1e-6)
    if case == "yes":
        wanted = sklearn.f1_score(YES, taken, average="macro")
    else:
        wanted = sklearn.f1_score(KINDS, SHARES.argmax(1), average="macro")
    np.testing.assert_allclose(values["f1"], wanted, rtol=1e-6)


def test_auc_is_keras_s_and_nearly_scikit_learn_s():
    value = computed("yes", "auc")["auc"]
    metric = fresh_keras().metrics.AUC()
    with jax.numpy_dtype_promotion("standard"):
        metric.update_state(YES, LIKELY)
        np.testing.assert_allclose(value, metric.result(), rtol=1e-5)
    assert abs(value - sklearn.roc_auc_score(YES.ravel(), LIKELY.ravel())) < 1e-3


@pytest.mark.parametrize(
    ("name", "kind", "case", "labels", "outputs"),
    [
        ("mae", "MeanAbsoluteError", "numbers", NUMBERS, GUESSES),
        ("rmse", "RootMeanSquaredError", "numbers", NUMBERS, GUESSES),
        ("r2", "R2Score", "numbers", NUMBERS, GUESSES),
        ("precision", "Precision", "yes", YES, LIKELY),
        ("recall", "Recall", "kinds", np.eye(4, dtype="float32")[KINDS], SHARES),
        ("binary_accuracy", "BinaryAccuracy", "yes", YES, LIKELY),
        ("mse", "MeanSquaredError", "kinds", np.eye(4, dtype="float32")[KINDS], SHARES),
    ],
)
def test_values_are_keras_s(name, kind, case, labels, outputs):
    metric = getattr(fresh_keras().metrics, kind)()
    with jax.numpy_dtype_promotion("standard"):
        metric.update_state(labels, outputs)
        wanted = float(metric.result())
    np.testing.assert_allclose(computed(case, name)[name], wanted, rtol=1e-5)


def test_functions_get_what_the_model_returns():
    def largest(labels, outputs):
        return outputs.max(-1)

    np.testing.assert_allclose(computed("kinds", largest)["largest"], SHARES.max(1).mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="value per example"):
        computed("kinds", lambda labels, outputs: outputs.mean())


def test_nothing_is_found_and_nothing_varies():
    own, labels, outputs = OBJECTIVES["numbers"]
    nothing = batch_metrics(own, ["r2"], labels[:4] * 0, outputs[:4] * 0, jnp.ones(4, bool))
    assert train.summarise(nothing)["r2"] == 1
    own, labels, outputs = OBJECTIVES["yes"]
    empty = batch_metrics(
        own, ["precision", "recall", "f1", "auc"], labels[:4] * 0, outputs[:4] - 99, jnp.ones(4, bool)
    )
    assert set(train.summarise(empty).values()) == {0.0}


def test_every_metric_has_a_value_for_one_kind_at_least():
    found = set()
    for own, labels, outputs in OBJECTIVES.values():
        for name in METRICS:
            try:
                batch_metrics(own, [name], labels[:9], outputs[:9], jnp.ones(9, bool))
            except (TypeError, ValueError):
                continue
            found.add(name)
    assert found == set(METRICS)
