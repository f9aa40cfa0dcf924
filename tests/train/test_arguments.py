"""Arguments as people type them: taken where their meaning is clear, else refused with what to write."""

import jax
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from tests.train.small import SGD, assert_same, fit, small_data, small_model

IMAGES, LABELS = DATA = small_data(36)
ONE = jax.devices()[:1]
MODEL = small_model()


def batches():
    yield IMAGES[:16], LABELS[:16]
    yield IMAGES[16:], LABELS[16:]


def endless():
    while True:
        yield from batches()


@pytest.fixture(scope="module")
def usual():
    return fit(DATA, MODEL, devices=ONE)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": ["accuracy"]},
        {"metrics": "accuracy"},
        {"frozen": []},
        {"frozen": None},
        {"batch_size": 16.0, "epochs": np.int64(1), "initial_epoch": 0.0, "seed": np.int32(0)},
        {"devices": ONE[0], "computation": None, "cache_features": None},
        {"class_weights": [1, 1, 1.0], "label_smoothing": None, "preprocess": None, "early_stopping": False},
        {"data": {"image": IMAGES, "label": LABELS}},
        {"data": [(image, label) for image, label in zip(*DATA, strict=True)]},
    ],
    ids=lambda options: ", ".join(options),
)
def test_other_spellings_are_the_same_run(options, usual):
    result, _ = fit(options.pop("data", DATA), MODEL, **{"devices": ONE} | options)
    assert result.history == usual.history
    assert_same(result.variables, usual.variables)


@pytest.mark.parametrize("frozen", ["conv1", {"conv1"}, ["conv1"], MODEL.layers[1:2]], ids=lambda given: type(given))
def test_frozen_layers_by_name_or_as_layers(frozen):
    result, _ = fit(DATA, MODEL, frozen=frozen, devices=ONE)
    assert set(result.state.frozen_params) == {"conv1"}


def test_one_callback_needs_no_list():
    events = []
    train.fit(MODEL, MODEL.init_variables(), DATA, optimizer=SGD, batch_size=36, verbose=False, callbacks=events.append)
    assert [type(event).__name__ for event in events] == ["StepEnd", "EpochEnd"]


WRONG = {
    "optimizer": ("adan", "optax.adam(1e-3), or with Keras's rate one of sgd, rmsprop"),
    "batch_size": (1.5, "batch_size should be a whole number, got 1.5"),
    "epochs": (None, "epochs should be a whole number, got None"),
    "seed": (-1, "seed should be a whole number, at least 0, got -1"),
    "loss": (None, '"categorical_crossentropy", or a function of (labels, outputs), got None'),
    "frozen": (True, 'train.frozen_layers(model, until="conv1"), got True'),
    "metrics": (3, 'metrics should be names or functions, such as ("accuracy",), or a dict of these'),
    "class_weights": ({"cat": 2}, "class_weights should be a dict of class indices"),
    "label_smoothing": (2, "label_smoothing should be from 0 to 1, got 2"),
    "augmentation": (lambda images: images, "augmentation should be a hashable function of (key, images)"),
    "preprocess": (3, "preprocess should be True, the name"),
    "callbacks": ([train.CSVLog], "callbacks should be functions of an event"),
    "early_stopping": (3, "train.EarlyStopping(patience=3), got 3"),
    "parallel": (None, "parallel should be one of auto, jit, pmap; got None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_refused_with_what_to_write(name):
    value, says = WRONG[name]
    with pytest.raises(ValueError, match="fit cannot run") as error:
        fit(DATA, MODEL, **{name: value} if name != "callbacks" else {"callbacks": value})
    assert says in str(error.value)


def test_all_wrong_arguments_are_listed():
    with pytest.raises(ValueError, match="fit cannot run") as error:
        fit(DATA, MODEL, **{name: value for name, (value, _) in WRONG.items()})
    assert all(says in str(error.value) for _, says in WRONG.values())


def test_a_loss_or_metric_with_its_arguments_in_the_order_of_optax_is_refused():
    """Of one-hot labels, softmax_cross_entropy of Optax took the labels for logits and trained on that."""

    def right(y_pred, y_true):
        return y_pred[:, 0] == y_true

    for wrong in ({"loss": optax.softmax_cross_entropy}, {"metrics": right}, {"metrics": ["accuracy", right]}):
        with pytest.raises(ValueError, match=r"of \(labels, outputs\), in this order; for one of"):
            fit(DATA, MODEL, **wrong)
    targets = DATA[0][:, 0, 0, :1]
    image = Input((8, 8, 3))
    model = Model(image, layers.Dense(1)(layers.GlobalAveragePooling2D()(image)))
    one, _ = fit((DATA[0], targets), model, loss=optax.squared_error, metrics=())
    other, _ = fit((DATA[0], targets), model, loss="mse", metrics=())
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-6)


@pytest.mark.parametrize("loss", [dict, lambda labels: labels, ["mse"]], ids=["class", "one argument", "list"])
def test_a_loss_is_a_name_or_a_function_of_two(loss):
    with pytest.raises(ValueError, match="loss should be"):
        fit(DATA, MODEL, loss=loss)
    with pytest.raises(ValueError, match="loss should be"):
        train.evaluate(MODEL, MODEL.init_variables(), DATA, loss=loss)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"devices": 1}, "jax.devices"),
        ({"computation": {"accumulate": 2}}, r"train.Computation\(accumulate=2\)"),
        ({"cache_features": "folder"}, r"train.FeatureCache\(folder="),
        ({"checkpoint_dir": True}, "checkpoint_dir should be a folder"),
        ({"validation_split": 0.2}, "give validation_data"),
        ({"shuffle": False}, r"data=lambda: train.as_dataset\(data\).batches\(32, seed=None\)"),
        ({"class_weight": {0: 1}, "learning_rate": 0.1}, r"write class_weights; learning_rate: .*optax.adam\(1e-3\)"),
        ({"x": IMAGES, "y": LABELS}, r"one tuple, the third argument"),
    ],
    ids=str,
)
def test_what_other_libraries_take_is_named(options, says):
    with pytest.raises(TypeError, match=says):
        fit(DATA, MODEL, **options)


def test_images_and_labels_are_one_argument():
    with pytest.raises(TypeError, match="one tuple, the third argument"):
        train.fit(MODEL, MODEL.init_variables(), *DATA, optimizer=SGD)


def without(tree, *path):
    kept = {name: leaf for name, leaf in tree.items() if name != path[0] or path[1:]}
    return kept | ({path[0]: without(tree[path[0]], *path[1:])} if path[1:] else {})


@pytest.mark.parametrize("call", [train.fit, train.evaluate])
def test_a_model_and_its_variables(call):
    options = {"optimizer": SGD, "verbose": False} if call is train.fit else {}
    variables = MODEL.init_variables()
    with pytest.raises(ValueError, match="got tuple: give its two parts, model and variables"):
        call((MODEL, variables), variables, DATA, **options)
    head = {"kernel": np.ones((4, 7), "f4"), "bias": np.ones(4, "f4")}
    for given, says in (
        (None, "as model.init_variables.. returns, or the state of a result, got None"),
        (variables["params"], "got a dict of conv1, norm1"),
        (without(variables, "batch_stats", "norm1"), "without batch_stats/norm1/mean, batch_stats/norm1/var "),
        (variables | {"params": variables["params"] | {"head": head}}, r"head/kernel is \(4, 7\) and .* be \(4, 4\)"),
    ):
        with pytest.raises(ValueError, match=says):
            call(MODEL, given, DATA, **options)


@pytest.mark.parametrize("options", [{}, {"augmentation": train.Augmentation(value_range=(0, 255))}], ids=str)
@pytest.mark.parametrize("preprocess", [False, "caffe"])
def test_channels_first_batches_are_named(preprocess, options):
    first = np.moveaxis(IMAGES, -1, 1)
    with pytest.raises(ValueError, match=r"channels first, but it takes channels last: np.moveaxis\(images, 1, -1\)"):
        fit([(first, LABELS)], MODEL, preprocess=preprocess, **options)
    with pytest.raises(ValueError, match="channels first"):
        fit(DATA, MODEL, validation_data=(first, LABELS))


def test_functions_of_users_may_change_the_size_of_images():
    larger = np.pad(IMAGES, ((0, 0), (0, 2), (0, 2), (0, 0)))

    def crop(images):
        return images[:, :8, :8]

    fit((larger, LABELS), MODEL, preprocess=crop, devices=ONE)
    fit((larger, LABELS), MODEL, augmentation=lambda key, images: crop(images), validation_data=DATA, devices=ONE)


def test_a_generator_function_serves_every_epoch():
    _, wanted = fit(list(batches()), MODEL, epochs=2, validation_data=list(batches()), devices=ONE)
    _, losses = fit(batches, MODEL, epochs=2, validation_data=batches, devices=ONE)
    assert losses == wanted


def test_steps_per_epoch_ends_the_epochs_of_an_endless_generator(tmp_path):
    _, wanted = fit([*batches(), *batches(), *batches()], MODEL, devices=ONE)
    validation = train.as_dataset(endless(), steps_per_epoch=2)
    for data in (endless(), endless, list(batches())):
        result, losses = fit(data, MODEL, epochs=2, steps_per_epoch=3, validation_data=validation, devices=ONE)
        assert losses == wanted
    options = {"steps_per_epoch": 3, "optimizer": optax.sgd(0.05), "devices": ONE}
    whole, _ = fit(endless, MODEL, epochs=3, **options)
    fit(endless(), MODEL, epochs=2, checkpoint_dir=tmp_path, **options)
    folder = train.CheckpointFolder(tmp_path, resume=True)
    result, losses = fit(endless(), MODEL, epochs=3, checkpoint_dir=folder, **options)
    assert_same(result.variables, whole.variables)
    with pytest.raises(ValueError, match="ended within an epoch of steps_per_epoch=3"):
        fit(batches(), MODEL, steps_per_epoch=3, devices=ONE)
    with pytest.raises(ValueError, match=r"steps_per_epoch=3 is for iterables of batches.* 36 examples"):
        fit(DATA, MODEL, steps_per_epoch=3)
