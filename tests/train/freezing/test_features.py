"""Features computed once: the same training as on the images, in memory and in a file that nobody sees."""

import os

import numpy as np
import pytest

from flaxapps import train
from flaxapps.train.freezing.features import compute_features
from tests.train.freezing.test_split import chain, residual, seen_before
from tests.train.small import assert_close, assert_same, fit

CASES = {"chain": (chain(), {"conv1", "norm1"}), "two tensors": (residual(), {"conv1", "norm1", "conv2", "norm2"})}
LOSS = {"loss": "sparse_categorical_crossentropy"}


def photos(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 8, 8, 3), "uint8")
    return train.ArrayDataset(images, random.integers(0, 4, count), ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("case", "parallel"), [("chain", "jit"), pytest.param("two tensors", "pmap", marks=pytest.mark.slow)]
)
def test_fit_on_features_is_fit_on_images(case, parallel):
    model, frozen = CASES[case][0], frozenset(CASES[case][1])
    options = {"frozen": frozen, "batch_size": 8, "epochs": 3, "preprocess": "tf", "validation_data": photos(6, 1)}
    options |= {"variables": seen_before(model), "parallel": parallel} | LOSS
    wanted, wanted_losses = fit(photos(20), model, **options)
    limit = 0 if case == "chain" else 1 << 20
    result, losses = fit(photos(20), model, cache_features=train.FeatureCache(limit), **options)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
    assert_close(result.variables, wanted.variables)
    assert_close(result.history, wanted.history)
    for collection, layers in options["variables"].items():
        assert_same(
            {name: result.variables[collection][name] for name in frozen & set(layers)},
            {name: layers[name] for name in frozen & set(layers)},
        )


def test_a_run_on_features_goes_on_from_its_checkpoint(tmp_path):
    model, frozen = CASES["chain"][0], frozenset(CASES["chain"][1])
    options = {"frozen": frozen, "batch_size": 8, "cache_features": True} | LOSS
    wanted, _ = fit(photos(20), model, epochs=2, **options)
    fit(photos(20), model, epochs=1, checkpoint_dir=tmp_path, **options)
    resumed, _ = fit(
        photos(20), model, epochs=2, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options
    )
    assert_same(resumed.variables, wanted.variables)


@pytest.mark.parametrize("on_disk", [False, True])
def test_features_are_those_of_the_images_in_any_order(on_disk, tmp_path):
    model, frozen = CASES["two tensors"]
    variables, data = seen_before(model), photos(12)
    trunk, _ = train.split_at_frozen(model, frozenset(frozen))
    limit = 0 if on_disk else 1 << 20
    features = compute_features(trunk, variables, data, batch_size=5, memory_limit=limit, folder=tmp_path)
    assert all(isinstance(array, np.memmap) == on_disk for array in features.features)
    assert not list(tmp_path.iterdir())  # nothing that an interrupted process could leave
    assert (features.class_names, features.fingerprint, len(features)) == (data.class_names, data.fingerprint, 12)
    for batch, (images, labels) in zip(
        features.batches(4, seed=7, epoch=1, start=1), data.batches(4, seed=7, epoch=1, start=1), strict=True
    ):
        assert_close(batch, (trunk.apply(trunk.init_variables(base=variables), images), labels), 1e-4)


def test_what_differs_between_epochs_is_refused():
    model, frozen = CASES["chain"]
    stream = [(np.zeros((2, 8, 8, 3), "float32"), np.zeros(2, "int32"))]
    with pytest.raises(ValueError, match="same in every epoch"):
        fit(stream, model, frozen=frozenset(frozen), cache_features=True, **LOSS)
    with pytest.raises(ValueError, match="augmentation"):
        fit(photos(4), model, frozen=frozenset(frozen), cache_features=True, augmentation=lambda key, x: x, **LOSS)
    with pytest.raises(ValueError, match="No layer"):
        fit(photos(4), model, cache_features=True, **LOSS)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not reserved here")
def test_a_full_disk_is_an_error_and_no_crash(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    model, frozen = CASES["chain"]
    trunk, _ = train.split_at_frozen(model, frozenset(frozen))
    with pytest.raises(OSError, match="No space"):
        compute_features(trunk, model.init_variables(), photos(4), memory_limit=0)
