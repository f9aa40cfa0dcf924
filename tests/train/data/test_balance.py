"""Balanced weights are scikit-learn's, and `fit` finds them itself."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from flaxapps import train
from tests.train.small import CLASSES, assert_same, fit, small_data, small_model

IMAGES, _ = small_data(24)
LABELS = np.repeat(np.arange(CLASSES, dtype=np.int32), [12, 6, 4, 2])


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(CLASSES)[LABELS]], ids=["", "column", "one-hot"])
def test_weights_are_those_of_scikit_learn(labels):
    wanted = compute_class_weight("balanced", classes=np.arange(CLASSES), y=LABELS)
    assert train.balanced_class_weights(labels, CLASSES) == pytest.approx(dict(enumerate(wanted)))


def test_a_class_without_examples_has_no_weight():
    assert set(train.balanced_class_weights(LABELS[LABELS > 0], CLASSES)) == {1, 2, 3}


def test_fit_finds_them():
    model = small_model()
    given, losses = fit((IMAGES, LABELS), model, class_weights=train.balanced_class_weights(LABELS, CLASSES))
    found, same = fit((IMAGES, LABELS), model, class_weights="balanced")
    assert same == losses
    assert losses != fit((IMAGES, LABELS), model)[1]
    assert_same(found.variables, given.variables)


def test_cached_features_have_them_too():
    model = small_model()
    options = {"frozen": train.frozen_layers(model, until="norm1"), "cache_features": True}
    _, losses = fit((IMAGES, LABELS), model, class_weights="balanced", **options)
    assert losses == fit((IMAGES, LABELS), model, class_weights={0: 0.5, 1: 1.0, 2: 1.5, 3: 3.0}, **options)[1]


def test_what_cannot_be_counted_is_refused():
    batches = [(IMAGES[:8], LABELS[:8])]
    with pytest.raises(ValueError, match=r"give train\.balanced_class_weights"):
        fit(batches, class_weights="balanced", batch_size=8)
    with pytest.raises(ValueError, match="or \"balanced\", got 'equal'"):
        fit((IMAGES, LABELS), class_weights="equal")
