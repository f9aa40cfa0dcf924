"""The range test ends where the loss diverges, and suggests a rate that trains."""

from pathlib import Path

import numpy as np
import optax
import pytest
from PIL import Image

from flaxapps import train
from flaxapps.train.figures import write_range_test
from flaxapps.train.range_test import DIVERGED, rounded
from tests.train.small import assert_same, fit, small_data, small_model

DATA = small_data(48)


def sgd(rate):
    return optax.sgd(rate, momentum=0.9)


def test_rates_grow_until_the_loss_diverges(tmp_path: Path):
    model = small_model()
    variables = model.init_variables()
    test = train.find_rate(model, variables, DATA, optimizer=sgd, lowest=1e-4, highest=1e6, steps=40, batch_size=16)
    assert_same(variables, model.init_variables())
    np.testing.assert_allclose(test.rates, np.geomspace(1e-4, 1e6, 40)[: len(test.rates)], rtol=1e-5)
    assert len(test.rates) == len(test.losses) == len(test.smoothed) < 40
    assert test.smoothed[-1] > DIVERGED * min(test.smoothed) or test.rates[-1] < 1e6
    assert test.suggested == pytest.approx(test.rates[int(np.argmin(test.smoothed))] / 10)
    _, losses = fit(DATA, model, optimizer=sgd(test.suggested), epochs=4)
    assert losses[-1] < losses[0]
    write_range_test(*test, tmp_path / "rates.png")
    with Image.open(tmp_path / "rates.png") as picture:
        assert picture.width > 500


def test_the_running_mean_is_corrected_for_its_start():
    test = train.find_rate(
        small_model(), small_model().init_variables(), DATA, optimizer=sgd, lowest=1e-9, highest=2e-9, steps=4
    )
    weights = 0.98 ** np.arange(len(test.losses))[::-1]
    np.testing.assert_allclose(test.smoothed[-1], np.average(test.losses, weights=weights), rtol=1e-5)


def test_what_is_wrong_is_said():
    model = small_model()
    variables = model.init_variables()
    for wrong in ({"lowest": 1.0, "highest": 0.1}, {"lowest": 0.0}, {"steps": 1}):
        with pytest.raises(ValueError, match="0 < lowest < highest"):
            train.find_rate(model, variables, DATA, optimizer=sgd, **wrong)
    for optimizer in ("adam", optax.adam(1e-3)):
        with pytest.raises(ValueError, match=r"a function of a learning rate, such as optax.adam, got"):
            train.find_rate(model, variables, DATA, optimizer=optimizer)
    broken = np.full_like(DATA[0], np.nan), DATA[1]
    with pytest.raises(train.TrainingError, match="loss is nan"):
        train.find_rate(model, variables, broken, optimizer=sgd)


def test_only_divergence_ends_the_test():
    """Images or labels that are NaN, and errors of callbacks, were taken for divergence after the first step."""
    model = small_model()

    def stop(event):
        raise train.TrainingError("the disk is full")

    def batches():
        yield DATA[0][:16], DATA[1][:16]
        yield np.full_like(DATA[0][:16], np.nan), DATA[1][:16]

    options = {"optimizer": sgd, "batch_size": 16}
    with pytest.raises(train.TrainingError, match="images of examples 0, 1"):
        train.find_rate(model, model.init_variables(), batches, **options)
    with pytest.raises(train.TrainingError, match="disk is full"):
        train.find_rate(model, model.init_variables(), DATA, callbacks=stop, **options)


def test_a_rate_is_rounded_to_a_digit():
    assert [rounded(rate) for rate in (0.00316, 1.0, 0.0999, 2.6e-5)] == [0.003, 1.0, 0.1, 3e-5]
