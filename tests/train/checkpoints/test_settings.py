"""Runs that are resumed with other settings: what changed is said, and holds."""

import re
import warnings

import jax
import numpy as np
import optax
import pytest

from flaxapps import train
from tests.train.small import assert_same, fit, small_data, small_model

DATA = small_data(32)
OPTIONS = {"epochs": 2, "batch_size": 16}


def injected(rate):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=0.9)


def resumed(folder, **options):
    """A run of one epoch that is resumed for another, and the warnings of the second."""
    model = small_model()
    fit(DATA, model, checkpoint_dir=folder, **OPTIONS | {"epochs": 1, "optimizer": optax.sgd(0.05)} | options["before"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        options = OPTIONS | {"optimizer": optax.sgd(0.05)} | options["after"]
        result, _ = fit(DATA, model, checkpoint_dir=train.CheckpointFolder(folder, resume=True), **options)
    return result, [str(warning.message) for warning in said]


def double(labels, outputs):
    return 2 * train.sparse_categorical_crossentropy(labels, outputs)


CHANGES = {
    "optimizer": (optax.sgd(0.05), optax.sgd(0.5), r"first steps of the optimizer: was \['-0.05'.*, is \['-0.5'"),
    "loss": ("categorical_crossentropy", double, "loss: was categorical_crossentropy, is .*double"),
    "class_weights": (None, {1: 2.0}, "class_weights: was None, is {'1': 2.0}"),
    "label_smoothing": (0.0, 0.1, "label_smoothing: was 0.0, is 0.1"),
    "augmentation": (train.Augmentation(flip=True), None, "augmentation: was Augmentation.*flip=True.*, is None"),
    "preprocess": (False, "rescale", "preprocess: was False, is rescale"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_said(name, tmp_path):
    before, after, says = CHANGES[name]
    _, said = resumed(tmp_path, before={name: before}, after={name: after})
    assert len(said) == 1
    assert "resumed with other settings, which hold from here on:" in said[0]
    assert said[0].count("was") == 1
    assert re.search(says, said[0]), said[0]
    assert resumed_again(tmp_path, after={name: after}) == []


def resumed_again(folder, after):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        options = OPTIONS | {"optimizer": optax.sgd(0.05)} | after
        fit(DATA, small_model(), checkpoint_dir=train.CheckpointFolder(folder, resume=True), **options)
    return [str(warning.message) for warning in said]


def test_a_new_rate_holds_and_one_that_a_callback_set_stays(tmp_path):
    """As the same rate in a closure: Optax keeps an injected one in its state, where it would be lost."""
    plain, _ = resumed(
        tmp_path / "plain",
        before={"optimizer": optax.sgd(0.05, momentum=0.9)},
        after={"optimizer": optax.sgd(0.5, momentum=0.9)},
    )
    result, said = resumed(tmp_path / "new", before={"optimizer": injected(0.05)}, after={"optimizer": injected(0.5)})
    assert "hyperparameters: was {'hyperparams.learning_rate': 0.05" in said[0]
    np.testing.assert_allclose(result.history["learning_rate"], [0.05, 0.5])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), result.variables, plain.variables)
    _, said = resumed(tmp_path / "same", before={"optimizer": injected(0.05)}, after={"optimizer": injected(0.05)})
    assert said == []


def test_a_schedule_is_no_new_rate(tmp_path):
    optimizer = injected(optax.linear_schedule(0.1, 0.0, 4))
    whole, _ = fit(DATA, **OPTIONS, optimizer=optimizer)
    result, said = resumed(tmp_path, before={"optimizer": optimizer}, after={"optimizer": optimizer})
    assert said == []
    assert_same(result.variables, whole.variables)
