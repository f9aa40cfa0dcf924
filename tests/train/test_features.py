"""Features computed once: the same training as on the images, in memory and in a file that nobody sees."""

import os

import jax
import numpy as np
import optax
import pytest

import train
from tests.train.test_splitting import chain, residual, seen_before
from train.features import compute_features

FROZEN = {"chain": (chain(), {"conv1", "norm1"}), "two tensors": (residual(), {"conv1", "norm1", "conv2", "norm2"})}
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


def photos(count, seed=0):
    random = np.random.default_rng(seed)
    return train.ArrayDataset(
        random.integers(0, 256, (count, 8, 8, 3), "uint8"), random.integers(0, 4, count), ("a", "b", "c", "d")
    )


def scale(images):
    return images.astype("float32") / 127.5 - 1.0


def train_epochs(model, variables, frozen, data, prepare):
    """Losses of the epochs and the variables at the end."""
    objective = train.make_objective(model, "sparse_categorical_crossentropy", from_logits=True)
    state = train.create_state(model, variables, OPTIMIZER, frozen)
    losses = []
    for epoch in range(3):
        for x, labels in data.batches(4, seed=7, epoch=epoch):
            state, sums = train.train_step(
                state, prepare(x), labels, objective=objective, optimizer=OPTIMIZER, frozen=frozen
            )
            losses.append(train.summarise(sums)["loss"])
    return losses, jax.device_get(state.variables)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("cut", FROZEN)
def test_training_on_features_is_training_on_images(cut, on_disk, tmp_path):
    model, frozen = FROZEN[cut][0], frozenset(FROZEN[cut][1])
    variables, data = seen_before(model), photos(12)
    trunk, head = train.split_at_frozen(model, frozen)
    limit = 0 if on_disk else 1 << 20
    features = compute_features(
        trunk, variables, data, batch_size=5, preprocess=scale, memory_limit=limit, folder=tmp_path
    )
    assert all(isinstance(array, np.memmap) == on_disk for array in features.features)
    assert not list(tmp_path.iterdir())  # nothing that an interrupted process could leave
    assert (features.class_names, features.fingerprint, len(features)) == (data.class_names, data.fingerprint, 12)
    losses, trained = train_epochs(head, head.init_variables(base=variables), frozenset(), features, lambda x: x)
    wanted_losses, wanted = train_epochs(model, variables, frozen, data, scale)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
    merged = train.merge_params(trained, variables)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5), merged, wanted)


def test_batches_that_may_differ_are_refused():
    model, frozen = FROZEN["chain"]
    trunk, _ = train.split_at_frozen(model, frozenset(frozen))
    stream = train.as_dataset([(np.zeros((2, 8, 8, 3), "float32"), np.zeros(2, "int32"))])
    with pytest.raises(ValueError, match="same in every epoch"):
        compute_features(trunk, model.init_variables(), stream)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not reserved here")
def test_a_full_disk_is_an_error_and_no_crash(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    model, frozen = FROZEN["chain"]
    trunk, _ = train.split_at_frozen(model, frozenset(frozen))
    with pytest.raises(OSError, match="No space"):
        compute_features(trunk, model.init_variables(), photos(4), memory_limit=0)
