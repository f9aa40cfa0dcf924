"""Losses and metrics against Keras, and where the loss takes its logits from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.train.step.metrics import METRICS, batch_metrics

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (16, 7)).astype("float32")
CLASSES = RANDOM.integers(0, 7, 16)
ONE_HOT = np.eye(7, dtype="float32")[CLASSES]
ANSWERS = RANDOM.integers(0, 2, (16, 7)).astype("float32")


def softmax(x):
    return np.asarray(jax.nn.softmax(x, axis=-1))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("categorical_crossentropy", ONE_HOT),
        ("sparse_categorical_crossentropy", CLASSES),
        ("binary_crossentropy", ANSWERS),
    ],
)
def test_losses_are_keras(name, labels, smoothing, from_logits):
    import keras

    outputs = LOGITS
    if not from_logits:
        outputs = np.asarray(jax.nn.sigmoid(LOGITS)) if name.startswith("binary") else softmax(LOGITS)
    got = getattr(train, name)(
        jnp.asarray(labels), jnp.asarray(outputs), from_logits=from_logits, label_smoothing=smoothing
    )
    options = {"from_logits": from_logits, "label_smoothing": smoothing}
    if name.startswith("sparse"):  # has no smoothing in Keras: one-hot labels have
        name, labels = "categorical_crossentropy", ONE_HOT
    with jax.numpy_dtype_promotion("standard"):
        want = getattr(keras.losses, name)(labels, outputs, **options)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_sparse_is_keras_for_both_label_shapes():
    import keras

    with jax.numpy_dtype_promotion("standard"):
        want = keras.losses.sparse_categorical_crossentropy(CLASSES, LOGITS, from_logits=True)
    for labels in (CLASSES, CLASSES[:, None]):
        got = train.sparse_categorical_crossentropy(jnp.asarray(labels), jnp.asarray(LOGITS), from_logits=True)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def head(activation, kind="dense"):
    x = Input((5,), name="image")
    if kind == "dense":
        return Model(x, layers.Dense(3, activation=activation, name="head")(x))
    if kind == "layer":
        last = layers.Softmax(name="last") if activation == "softmax" else layers.Activation(activation, name="last")
        return Model(x, last(layers.Dense(3, name="head")(x)))
    if kind == "nested":
        outside = Input((5,), name="outside")
        return Model(outside, Model(x, head(activation).get_layer("head").layer(x), name="inner")(outside))
    shared = layers.Dense(5, activation=activation, name="head")
    return Model(x, shared(shared(x)))


def test_a_column_of_class_indices_and_indices_that_are_no_integers():
    outputs, indices = jax.nn.softmax(jnp.arange(12.0).reshape(3, 4)), jnp.array([0, 3, 1])
    wanted = train.categorical_crossentropy(indices, outputs)
    np.testing.assert_array_equal(train.categorical_crossentropy(indices[:, None], outputs), wanted)
    for floats in (indices.astype(jnp.float32), indices[:, None].astype(jnp.float32)):
        with pytest.raises(ValueError, match=r"should be integers, got float32.*or sparse_categorical_crossentropy"):
            train.categorical_crossentropy(floats, outputs)
        np.testing.assert_array_equal(train.sparse_categorical_crossentropy(floats, outputs), wanted)


@pytest.mark.parametrize("kind", ["dense", "layer", "nested", "shared"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_are_what_the_last_activation_is_applied_to(kind, activation):
    model = head(activation, kind)
    assert train.last_activation(model) == activation
    bare = train.without_last_activation(model)
    assert bare == train.without_last_activation(head(activation, kind))
    assert hash(bare) == hash(train.without_last_activation(head(activation, kind)))
    assert bare != model
    assert train.last_activation(bare) == "linear"
    variables, x = model.init_variables(), jnp.asarray(LOGITS[:, :5])
    apply = jax.nn.softmax if activation == "softmax" else jax.nn.sigmoid
    np.testing.assert_allclose(apply(bare.apply(variables, x)), model.apply(variables, x), rtol=1e-6)


def test_from_logits_is_told_by_the_model():
    assert train.make_objective(head("softmax"), "categorical_crossentropy").from_logits
    assert train.make_objective(head("sigmoid"), "binary_crossentropy").from_logits
    assert train.make_objective(head(None), "categorical_crossentropy").from_logits
    mixed = train.make_objective(head("sigmoid"), "categorical_crossentropy")
    assert not mixed.from_logits
    assert mixed.model == head("sigmoid")
    custom = train.make_objective(head("softmax"), lambda labels, outputs: jnp.sum((labels - outputs) ** 2, -1))
    assert custom.model == head("softmax")


def test_far_off_probabilities_keep_their_gradient():
    model = head("softmax")
    objective = train.make_objective(model, "categorical_crossentropy")
    logits = jnp.array([[60.0, 0.0, 0.0]])
    assert objective.per_example(jnp.array([[0, 1, 0]]), logits)[0] == pytest.approx(60)


def test_class_weights_are_those_of_keras():
    weights = {1: 3.0, 4: 0.5}
    want = train.categorical_crossentropy(jnp.asarray(ONE_HOT), jnp.asarray(LOGITS), from_logits=True)
    want = want * np.array([weights.get(int(each), 1.0) for each in CLASSES], "float32")
    x = Input((7,))
    model = Model(x, layers.Dense(7)(x))
    for name, labels in [("categorical_crossentropy", ONE_HOT), ("sparse_categorical_crossentropy", CLASSES)]:
        objective = train.make_objective(model, name, class_weights=weights)
        np.testing.assert_allclose(objective.per_example(jnp.asarray(labels), jnp.asarray(LOGITS)), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "loss", "options", "message"),
    [
        ("softmax", "hing", {}, "Unknown loss"),
        ("relu", "binary_crossentropy", {}, "relu"),
        ("softmax", "binary_crossentropy", {"label_smoothing": 2.0}, "from 0 to 1"),
        ("softmax", "binary_crossentropy", {"class_weights": {-1: 1.0}}, "class_weights"),
        ("softmax", jnp.subtract, {"from_logits": True}, "for the cross-entropies"),
    ],
)
def test_objective_errors(activation, loss, options, message):
    with pytest.raises(ValueError, match=message):
        train.make_objective(head(activation), loss, **options)


def test_metrics_are_keras_and_add_up_over_ragged_batches():
    import keras

    x = Input((7,))
    for name, labels in [("categorical_crossentropy", ONE_HOT), ("sparse_categorical_crossentropy", CLASSES)]:
        objective = train.make_objective(Model(x, layers.Dense(7)(x)), name)
        parts = []
        for start in (0, 6, 12):
            rows = np.arange(start, start + 6)
            mask = jnp.asarray(rows < 16)
            rows = rows % 16
            given = (jnp.asarray(labels[rows]), jnp.asarray(LOGITS[rows]), mask)
            parts.append(batch_metrics(objective, METRICS, *given))
        values = train.summarise(train.add_sums(train.add_sums(parts[0], parts[1]), parts[2]))
        assert values["accuracy"] == np.mean(LOGITS.argmax(-1) == CLASSES)
        with jax.numpy_dtype_promotion("standard"):
            top = keras.metrics.sparse_top_k_categorical_accuracy(CLASSES, LOGITS, k=5)
        assert values["top_5_accuracy"] == np.mean(top)
        want = np.zeros((7, 7), int)
        np.add.at(want, (CLASSES, LOGITS.argmax(-1)), 1)
        np.testing.assert_array_equal(values["confusion_matrix"], want)


def test_binary_metrics_have_the_threshold_of_their_outputs():
    x = Input((7,))
    names = ("accuracy", "confusion_matrix")
    for activation, outputs in [(None, LOGITS), ("hard_sigmoid", np.asarray(jax.nn.sigmoid(LOGITS)))]:
        objective = train.make_objective(Model(x, layers.Dense(7, activation=activation)(x)), "binary_crossentropy")
        mask = jnp.ones(16, bool)
        values = train.summarise(batch_metrics(objective, names, jnp.asarray(ANSWERS), jnp.asarray(outputs), mask))
        assert values["accuracy"] == np.mean((LOGITS > 0) == ANSWERS)
        assert values["confusion_matrix"].sum() == 16 * 7
        assert np.trace(values["confusion_matrix"]) == np.sum((LOGITS > 0) == ANSWERS)
