"""Sample weights, several inputs and outputs, regression and regularizers, beside Keras."""

import warnings

import jax
import numpy as np
import optax
import pytest

import flaxapps
from flaxapps import Input, Model, layers, train
from tests.imported import randomise
from tests.networks import fresh_keras
from tests.train.small import assert_close, assert_same, fit

COUNT, BATCH = 40, 16
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(COUNT, 6, 6, 2)).astype("float32")
NUMBERS = RANDOM.normal(size=(COUNT, 3)).astype("float32")
KINDS = RANDOM.integers(0, 3, COUNT).astype("int32")
TARGETS = (NUMBERS @ [[1.0], [-2.0], [0.5]]).astype("float32")
YES = (RANDOM.random((COUNT, 2)) < 0.4).astype("float32")
WEIGHTS = RANDOM.uniform(0, 3, COUNT).astype("float32") * (np.arange(COUNT) % 4 > 0)  # a quarter are zeros
SGD = optax.sgd(0.05, momentum=0.9)


def two_outputs(keras):
    """Two inputs, and three outputs: classes, a number, and two times yes or no."""
    image, numbers = keras.Input((6, 6, 2), name="image"), keras.Input((3,), name="numbers")
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    y = keras.layers.Concatenate()([y, numbers])
    kind = keras.layers.Dense(3, "softmax", name="kind")(y)
    number = keras.layers.Dense(1, name="number")(keras.layers.Dense(4, "tanh", name="hidden")(y))
    return keras.Model([image, numbers], [kind, number, keras.layers.Dense(2, "sigmoid", name="yes")(y)])


def one_output(keras, units=3, activation="softmax", conv=(), head=()):
    image = keras.Input((6, 6, 2), name="image")
    y = keras.layers.Conv2D(4, 3, activation="relu", name="conv", **dict(conv))(image)
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(image, keras.layers.Dense(units, activation, name="head", **dict(head))(y))


def imported(reference, tmp_path):
    randomise(reference)
    reference.save(tmp_path / "before.keras")
    return flaxapps.load_model(tmp_path / "before.keras")


def in_lists(data):
    """Labels and weights by the index of outputs, by which Keras looks up weights."""
    return data and (data[0], *(list(part.values()) if isinstance(part, dict) else part for part in data[1:]))


def keras_run(reference, tmp_path, data, validation=None, epochs=4, class_weight=None, **compiled):
    """History and arrays of Keras's fit: 3 batches an epoch, the last of 8."""
    import keras

    with jax.numpy_dtype_promotion("standard"):
        reference.compile(keras.optimizers.SGD(0.05, momentum=0.9), **compiled)
        images, labels, *weights = in_lists(data)
        given = {"sample_weight": weights[0] if weights else None, "class_weight": class_weight}
        with warnings.catch_warnings():
            # Keras asks JAX for int64 where it maps labels to class weights; jax 0.12 warns that they become int32
            warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
            history = reference.fit(
                images, labels, validation_data=in_lists(validation), batch_size=BATCH, epochs=epochs, shuffle=False,
                verbose=0, **given,
            ).history  # fmt: skip # on few lines on purpose
    reference.save(tmp_path / "after.keras")
    return history, flaxapps.load_model(tmp_path / "after.keras").variables


def in_batches(data):
    """The data as Keras reads it without shuffling."""
    rows = [slice(start, start + BATCH) for start in range(0, COUNT, BATCH)]
    return [tuple(jax.tree.map(lambda array, own=own: array[own], part) for part in data) for own in rows]


def check(network, wanted, data, validation=None, **options):
    """Trains beside Keras: history, val_ values and arrays."""
    history, variables = wanted
    options = {"variables": network.variables, "optimizer": SGD, "epochs": 4, "batch_size": BATCH, **options}
    result, _ = fit(in_batches(data), network.model, validation_data=validation, **options)
    assert set(history) == set(result.history)
    for name, values in history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_close(result.variables, variables, 1e-4)
    return result


def test_sample_weights_are_those_of_keras(tmp_path):
    reference = one_output(fresh_keras())
    network = imported(reference, tmp_path)
    data = (IMAGES, KINDS, WEIGHTS)
    loss = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    check(network, keras_run(reference, tmp_path, data, data, **loss), data, data, **loss)


def test_class_weights_are_those_of_keras(tmp_path):
    reference = one_output(fresh_keras())
    network = imported(reference, tmp_path)
    data, weights = (IMAGES, KINDS), {0: 5.0, 1: 1.0, 2: 0.1}
    loss = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    wanted = keras_run(reference, tmp_path, data, data, class_weight=weights, **loss)
    check(network, wanted, data, data, class_weights=weights, **loss)


def test_label_smoothing_is_that_of_keras(tmp_path):
    """In training; val_loss is without it here, so that it is what `evaluate` gives."""
    keras = fresh_keras()
    reference = one_output(keras)
    network = imported(reference, tmp_path)
    data = (IMAGES, np.eye(3, dtype="float32")[KINDS])
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    wanted = keras_run(reference, tmp_path, data, loss=smooth, metrics=["accuracy"])
    check(network, wanted, (IMAGES, KINDS), label_smoothing=0.2, metrics=["accuracy"])


def test_regression_is_that_of_keras(tmp_path):
    reference = one_output(fresh_keras(), 1, None)
    network = imported(reference, tmp_path)
    data = (IMAGES, TARGETS[:, 0], WEIGHTS)
    options = {"loss": "mse", "metrics": ["mae", "RootMeanSquaredError", "R2Score"]}
    keras_data = (IMAGES, TARGETS, WEIGHTS)
    check(network, keras_run(reference, tmp_path, keras_data, keras_data, **options), data, data, **options)


def test_class_weights_multiply_sample_weights():
    model = one_output(flaxapps_layers())
    options = {"variables": model.init_variables(), "batch_size": BATCH, "loss": "sparse_categorical_crossentropy"}
    classes = {0: 2.0, 2: 0.5}
    both = WEIGHTS * np.array([2.0, 1.0, 0.5], "float32")[KINDS]
    one, other = (
        fit((IMAGES, KINDS, weights), model, class_weights=given, **options)
        for weights, given in ((WEIGHTS, classes), (both, None))
    )
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5)


class flaxapps_layers:  # noqa: N801  (stands for the module keras)
    """`Input`, `Model` and `layers` as attributes, as Keras has them."""

    Input, Model, layers = staticmethod(Input), Model, layers


@pytest.mark.parametrize("options", [{"computation": train.Computation(accumulate=2)}, {"parallel": "pmap"}])
def test_parts_and_devices_weigh_as_one(options):
    model = one_output(flaxapps_layers())
    common = {"variables": model.init_variables(), "batch_size": BATCH, "loss": "sparse_categorical_crossentropy"}
    one, losses = fit((IMAGES, KINDS, WEIGHTS), model, devices=jax.devices()[:1], **common)
    devices = {} if "computation" not in options else {"devices": jax.devices()[:2]}
    many, others = fit((IMAGES, KINDS, WEIGHTS), model, **common, **options, **devices)
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    assert_close(one.variables, many.variables)


def test_weighted_runs_resume_to_the_same_bits(tmp_path):
    data = ({"image": IMAGES}, {"head": TARGETS}, WEIGHTS)
    model = one_output(flaxapps_layers(), 1, None)
    options = {"variables": model.init_variables(), "batch_size": BATCH, "loss": "mse"}
    options["metrics"] = ["rmse", "r2", "mae"]
    whole, losses = fit(data, model, epochs=2, **options)
    fit(data, model, epochs=1, checkpoint_dir=train.CheckpointFolder(tmp_path / "run", every=2), **options)
    folder = train.CheckpointFolder(tmp_path / "run", resume=True)
    resumed, rest = fit(data, model, epochs=2, checkpoint_dir=folder, **options)
    assert losses[3:] == rest
    assert whole.history == resumed.history
    assert_same(whole.variables, resumed.variables)


def test_several_inputs_and_outputs_are_those_of_keras(tmp_path):
    reference = two_outputs(fresh_keras())
    network = imported(reference, tmp_path)
    labels = {"kind": KINDS, "number": TARGETS, "yes": YES}
    weights = {"kind": WEIGHTS, "number": WEIGHTS[::-1].copy(), "yes": np.ones(COUNT, "float32")}
    data = ({"image": IMAGES, "numbers": NUMBERS}, labels, weights)
    options = {
        "loss": {"kind": "sparse_categorical_crossentropy", "number": "mse", "yes": "binary_crossentropy"},
        "loss_weights": {"kind": 1.0, "number": 0.3, "yes": 2.0},
        "metrics": {"kind": ["accuracy"], "number": ["mae"], "yes": []},
    }
    wanted = keras_run(reference, tmp_path, data, data[:2], **options)
    result = check(network, wanted, data, data[:2], **options)
    values = train.evaluate(network.model, result.variables, data[:2], batch_size=BATCH, **options)
    for name, value in values.items():
        np.testing.assert_allclose(value, result.history[f"val_{name}"][-1], rtol=1e-5)


def test_early_stopping_and_names_of_outputs():
    model = two_outputs(flaxapps_layers())
    data = ((IMAGES, NUMBERS), {"kind": KINDS, "number": TARGETS, "yes": YES})
    options = {"variables": model.init_variables(), "batch_size": BATCH, "validation_data": data}
    losses = {"kind": "sparse_categorical_crossentropy", "yes": "binary_crossentropy"}
    stop = train.EarlyStopping("val_kind_accuracy")
    result, _ = fit(data, model, loss=losses, early_stopping=stop, **options)
    assert {"val_kind_accuracy", "val_yes_accuracy", "kind_loss", "val_yes_loss"} <= set(result.history)
    with pytest.raises(ValueError, match=r"monitors 'val_number_loss', but the run has .*val_kind_loss"):
        fit(data, model, loss=losses, early_stopping=train.EarlyStopping("val_number_loss"), **options)


def test_regularizers_are_those_of_keras(tmp_path):
    keras = fresh_keras()
    regularizers = keras.regularizers
    options = {
        "kernel_regularizer": regularizers.L1L2(0.01, 0.02),
        "bias_regularizer": regularizers.L2(0.1),
        "activity_regularizer": regularizers.L2(0.05),
    }
    reference = one_output(keras, conv=options, head=options)
    network = imported(reference, tmp_path)
    data = (IMAGES, KINDS, WEIGHTS)
    loss = {"loss": "sparse_categorical_crossentropy", "metrics": []}
    check(network, keras_run(reference, tmp_path, data, data, **loss), data, data, **loss)


def test_regularizers_of_frozen_layers_are_left_out_as_in_keras(tmp_path):
    keras = fresh_keras()
    orthogonal = keras.regularizers.OrthogonalRegularizer(0.5, "columns")
    conv = {"kernel_regularizer": keras.regularizers.L2(0.3)}
    reference = one_output(keras, conv=conv, head={"kernel_regularizer": orthogonal})
    network = imported(reference, tmp_path)
    reference.get_layer("conv").trainable = False
    frozen = frozenset({"conv"})
    data = (IMAGES, KINDS, None)
    loss = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    wanted = keras_run(reference, tmp_path, data, data[:2], **loss)
    result = check(network, wanted, data[:2], data[:2], frozen=frozen, **loss)
    value = train.evaluate(network.model, result.variables, data[:2], frozen=frozen, **loss)
    np.testing.assert_allclose(value["loss"], result.history["val_loss"][-1], rtol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_features_and_optimized_trunks_keep_weights_and_regularizers(cached, tmp_path):
    keras = fresh_keras()
    network = imported(one_output(keras, head={"kernel_regularizer": keras.regularizers.L2(0.1)}), tmp_path)
    options = {"variables": network.variables, "batch_size": BATCH, "loss": "sparse_categorical_crossentropy"}
    options |= {"frozen": {"conv"}, "validation_data": (IMAGES, KINDS, WEIGHTS)}
    faster = {"cache_features": True} if cached else {"computation": train.Computation(optimize_frozen="default")}
    plain, losses = fit((IMAGES, KINDS, WEIGHTS), network.model, **options)
    result, others = fit((IMAGES, KINDS, WEIGHTS), network.model, **options, **faster)
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    np.testing.assert_allclose(plain.history["val_loss"], result.history["val_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ((IMAGES, KINDS, WEIGHTS[:5]), {}, "as many rows in every array"),
        ((IMAGES, KINDS, WEIGHTS * np.nan), {}, "finite numbers"),
        ((IMAGES, KINDS, WEIGHTS - WEIGHTS.max()), {}, "at least 0, got -.*give 0 to leave it out"),
        ([(IMAGES, KINDS, WEIGHTS - WEIGHTS.max())], {}, "at least 0, got -.*give 0 to leave it out"),
        ((IMAGES, KINDS, np.ones((COUNT, 2))), {}, r"one for each example.*\(40, 2\)"),
        (({"picture": IMAGES}, KINDS), {}, "takes 'image', but the data has picture"),
        ((IMAGES, {"other": KINDS}), {}, "no labels for the output 'head'"),
        ((IMAGES, KINDS), {"loss": {"tail": "mse"}}, "loss names 'tail', but the outputs are 'head'"),
        ((IMAGES, KINDS), {"loss_weights": {"head": 2.0}}, "loss_weights are for models with several outputs"),
        ((IMAGES, KINDS), {"loss_weights": [1.0]}, "loss_weights should be a dict"),
        ((IMAGES, KINDS), {"metrics": {"tail": "accuracy"}}, "metrics names the outputs tail"),
        ((IMAGES, KINDS, WEIGHTS), {"augmentation": train.Augmentation(mixup=0.2)}, "without sample weights"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_write(data, options, says):
    model = one_output(flaxapps_layers())
    options = {"loss": "sparse_categorical_crossentropy", "variables": model.init_variables(), **options}
    with pytest.raises(ValueError, match=says):
        fit(data, model, **options)
