"""Labels that would train on nothing, or on something else, are named before they do."""

import warnings

import numpy as np
import pytest

from flaxapps import Input, Model, layers, train
from tests.train.small import SGD, assert_same, fit, small_data, small_model

IMAGES, LABELS = small_data(8)
MANY = np.arange(8) % 4


def model_of(outputs, activation, pixels=False):
    x = y = Input((8, 8, 3))
    y = y if pixels else layers.GlobalAveragePooling2D()(y)
    return Model(x, layers.Dense(outputs, activation=activation)(y))


@pytest.mark.parametrize(
    ("labels", "loss", "says"),
    [
        (MANY + 1, "categorical_crossentropy", "0 to 3, but the labels are 1, 2, 3, 4: they count from 1, so subtract"),
        (MANY * 2, "sparse_categorical_crossentropy", "labels are 0, 2, 4, 6: the last layer needs 7 outputs"),
        (np.where(MANY, MANY, 255), "categorical_crossentropy", "1, 2, 3, 255: there is no label to ignore"),
        (MANY + 0.5, "sparse_categorical_crossentropy", "whole numbers as class indices, got 0.5, 1.5, 2.5, 3.5"),
        (np.eye(4)[MANY] * 255, "categorical_crossentropy", "labels from 0 to 1, got 0.0, 255.0: divide masks"),
        (np.eye(4)[MANY] + 1, "binary_crossentropy", "labels from 0 to 1, got 1.0, 2.0: .* subtract 1"),
        (MANY + 2**40, "categorical_crossentropy", "beyond int32: np.unique"),
    ],
    ids=["from 1", "gaps", "ignored", "halves", "masks", "yes and no", "identifiers"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["arrays", "stream"])
def test_labels_outside_the_outputs_are_named_before_they_train(labels, loss, says, stream):
    data = [(IMAGES, labels)] if stream else (IMAGES, labels)
    with pytest.raises(ValueError, match=says):
        fit(data, loss=loss)
    model = small_model()
    with pytest.raises(ValueError, match=says):
        train.evaluate(model, model.init_variables(), data, loss=loss)


def test_labels_to_ignore_are_named_in_streams():
    labels = np.where(MANY, MANY, -1)
    with pytest.raises(ValueError, match="labels are -1, 1, 2, 3: there is no label to ignore"):
        fit([(IMAGES, labels)])
    with pytest.raises(ValueError, match="count from 0, got -1"):
        fit((IMAGES, labels))


def test_masks_of_pixels_are_checked_too():
    masks = np.where(IMAGES[..., :1] > 0, 255, 0).astype("uint8")
    with pytest.raises(ValueError, match="labels from 0 to 1, got 0, 255"):
        fit((IMAGES, masks), model_of(1, "sigmoid", pixels=True), loss="binary_crossentropy")
    _, losses = fit((IMAGES, masks // 255), model_of(1, "sigmoid", pixels=True), loss="binary_crossentropy")
    assert np.isfinite(losses).all()


def test_names_of_classes_are_indices_in_sorted_order():
    names = np.array(["ant", "bee", "cow", "dog"])
    data = train.ArrayDataset(IMAGES, names[MANY])
    assert data.class_names == tuple(names)
    assert data.labels.tolist() == MANY.tolist()
    backwards = train.ArrayDataset(IMAGES, list(names[MANY]), class_names=names[::-1])
    assert backwards.labels.tolist() == (3 - MANY).tolist()
    with pytest.raises(ValueError, match="not among the class_names: 'dog'"):
        train.ArrayDataset(IMAGES, names[MANY], class_names=names[:3])
    result, losses = fit((IMAGES, names[MANY]))
    assert result.class_names == tuple(names)
    assert_same(losses, fit((IMAGES, MANY))[1])
    with pytest.raises(ValueError, match=r"Labels should be numbers.*: ant, bee"):
        fit([(IMAGES, names[MANY])])


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_one_output_needs_a_loss_for_one_output(loss):
    """Keras warns of the first of these; ours would be 1e-7, its 0, and neither trains."""
    for activation in ("sigmoid", None):
        with pytest.raises(ValueError, match=r"one output.*binary_crossentropy.*mean_squared_error"):
            fit((IMAGES, MANY % 2), model_of(1, activation), loss=loss)
    with pytest.raises(ValueError, match="softmax of one output"):
        fit((IMAGES, MANY % 2), model_of(1, "softmax"), loss="binary_crossentropy")


def keras_twin(outputs, variables):
    import keras

    x = keras.Input((8, 8, 3))
    y = keras.layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax", name="head")
    twin = keras.Model(x, y(keras.layers.GlobalAveragePooling2D()(x)))
    twin.get_layer("head").set_weights([np.asarray(variables["params"]["dense"][name]) for name in ("kernel", "bias")])
    return twin


def squared(targets, outputs):
    return (targets - outputs) ** 2


def test_a_custom_loss_gets_targets_of_the_rank_of_the_outputs_as_in_keras():
    import keras

    model = model_of(1, "sigmoid")
    variables = model.init_variables()
    twin = keras_twin(1, variables)
    twin.compile(keras.optimizers.SGD(0.05, momentum=0.9), squared)
    targets = (MANY / 4).astype("float32")
    wanted = twin.fit(IMAGES, targets, batch_size=8, epochs=5, shuffle=False, verbose=0).history["loss"]
    options = {"loss": squared, "metrics": (), "variables": variables, "batch_size": 8, "epochs": 5}
    for given in (targets, targets[:, None]):
        _, losses = fit((IMAGES, given), model, **options)
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda targets, outputs: squared(targets[:, 0], outputs), r"got shape \(8, 8\)"),
        (lambda targets, outputs: squared(targets, outputs).mean(), r"got shape \(\)"),
        (lambda targets, outputs: 0.5, r"got 0\.5 for labels"),
        (lambda targets, outputs: None, r"got None for labels"),
    ],
    ids=["pairs", "a mean", "a number", "nothing"],
)
def test_a_loss_that_is_not_per_example_is_refused(loss, says):
    with pytest.raises(ValueError, match=says):
        fit((IMAGES, MANY / 4), model_of(1, "sigmoid"), loss=loss, metrics=())


def test_a_loss_that_broadcasts_to_the_shape_of_the_outputs_is_refused():
    """As many examples as outputs: the shape alone does not show it."""
    with pytest.raises(ValueError, match=r"labels \(8,\)"):
        fit((IMAGES, MANY / 4), model_of(8, "sigmoid"), loss=squared, metrics=())


def test_class_weights_and_smoothing_are_for_training_alone():
    import keras

    model = model_of(4, "softmax")
    variables = model.init_variables()
    weights = {0: 5.0, 3: 0.1}
    twin = keras_twin(4, variables)
    twin.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    options = {"batch_size": 8, "epochs": 3}
    with warnings.catch_warnings():
        # Keras asks JAX for int64 where it maps labels to class weights; jax 0.12 warns that they become int32
        warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
        history = twin.fit(
            IMAGES, MANY, class_weight=weights, validation_data=(IMAGES, MANY), shuffle=False, verbose=0, **options
        ).history
    options |= {"variables": variables, "validation_data": (IMAGES, MANY), "optimizer": SGD}
    result, _ = fit((IMAGES, MANY), model, class_weights=weights, **options)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(result.history[name], history[name], rtol=1e-5)
    smoothed, _ = fit((IMAGES, MANY), model, label_smoothing=0.3, **options)
    for each in (result, smoothed):
        values = train.evaluate(model, each.variables, (IMAGES, MANY))
        np.testing.assert_allclose(values["loss"], each.history["val_loss"][-1], rtol=1e-6)
