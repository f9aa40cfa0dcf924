"""Mixup and cutmix: images and labels are mixed in one proportion, whatever the devices and the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.train.step.mixing import Mixing, mixing_for
from flaxapps.train.step.objectives import make_objective
from tests.train.small import CLASSES, assert_close, assert_same, fit, small_data, small_model

mix = jax.jit(lambda mixing, *batch: mixing(*batch), static_argnums=0)
BOTH = train.Augmentation(mixup=0.4, cutmix=1.0)


def batch(count=8):
    """Images of one value each, so that a pixel tells which image it is from."""
    images = np.arange(1, count + 1, dtype=np.float32).reshape(count, 1, 1, 1) * np.ones((1, 8, 6, 3), np.float32)
    return images, np.arange(count, dtype=np.int32) % CLASSES


def test_mixup_mixes_images_and_labels_in_one_proportion():
    images, labels = batch()
    mixing, shares = Mixing(mixup=0.8, classes=CLASSES), []
    for seed in range(20):
        found, mixed = mix(mixing, jax.random.key(seed), images, labels)
        share = float(found[0, 0, 0, 0] - images[-1, 0, 0, 0]) / float(images[0, 0, 0, 0] - images[-1, 0, 0, 0])
        np.testing.assert_allclose(found, share * images + (1 - share) * images[::-1], rtol=1e-4)
        one_hot = np.eye(CLASSES)[labels]
        np.testing.assert_allclose(mixed, share * one_hot + (1 - share) * one_hot[::-1], atol=1e-5)
        shares.append(share)
    assert min(shares) < 0.3 < 0.7 < max(shares)


def test_the_loss_of_mixed_labels_is_the_mixed_loss():
    """As in the paper's code, which mixes the losses."""
    objective = make_objective(small_model(), "categorical_crossentropy", label_smoothing=0.1)
    images, labels = batch()
    outputs = jax.random.normal(jax.random.key(1), (len(labels), CLASSES))
    found, mixed = mix(Mixing(mixup=0.8, classes=CLASSES), jax.random.key(3), images, labels)
    share = (found[0, 0, 0, 0] - 8) / (1 - 8)
    own, other = objective.per_example(jnp.asarray(labels), outputs), objective.per_example(labels[::-1], outputs)
    np.testing.assert_allclose(objective.per_example(mixed, outputs), share * own + (1 - share) * other, rtol=1e-4)


def test_cutmix_cuts_out_one_box_and_labels_go_by_its_area():
    images, labels = batch()
    sizes = []
    for seed in range(30):
        found, mixed = mix(Mixing(cutmix=1.0, classes=CLASSES), jax.random.key(seed), images, labels)
        other = np.asarray(found)[0, :, :, 0] == 8
        assert ((np.asarray(found)[0, :, :, 0] == 1) ^ other).all()
        rows, columns = other.any(axis=1), other.any(axis=0)
        assert (other == rows[:, None] & columns).all()  # a box
        np.testing.assert_array_equal(found, np.where(other[..., None], images[::-1], images))
        np.testing.assert_allclose(mixed[0, labels[0]], 1 - other.mean(), atol=1e-6)
        sizes.append(other.sum())
    assert min(sizes) < 5
    assert max(sizes) >= 20


def test_both_take_turns():
    images, labels = batch()
    cut = []
    for seed in range(40):
        found = np.asarray(mix(Mixing(1.0, 1.0, CLASSES), jax.random.key(seed), images, labels)[0])[0, :, :, 0]
        cut.append(np.isin(found, (1, 8)).all())
    assert 10 < sum(cut) < 30


@pytest.mark.parametrize("mask", [[True] * 5 + [False] * 3, [True, True, False, False, True, True, True, False]])
def test_padding_is_mixed_with_nothing(mask):
    """The examples alone give the same, wherever the padding is: several processes have some each."""
    images, labels = batch()
    mask, mixing = np.array(mask), Mixing(0.4, 1.0, CLASSES)
    for seed in range(4):
        padded = mix(mixing, jax.random.key(seed), images, labels, mask)
        alone = mix(mixing, jax.random.key(seed), images[mask], labels[mask])
        for one, other in zip(padded, alone, strict=True):
            np.testing.assert_allclose(np.asarray(one)[mask], other, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "labels", "shape"),
    [
        ("categorical_crossentropy", np.eye(CLASSES, dtype=np.float32)[[0, 1, 2, 3]], (4, CLASSES)),
        ("sparse_categorical_crossentropy", np.array([[0], [1], [2], [3]], np.int32), (4, CLASSES)),
    ],
)
def test_labels_of_each_form_become_distributions(loss, labels, shape):
    mixing = mixing_for(BOTH, make_objective(small_model(), loss))
    _, mixed = mix(mixing, jax.random.key(0), batch(4)[0], labels)
    assert mixed.shape == shape
    np.testing.assert_allclose(mixed.sum(axis=-1), 1, atol=1e-6)
    indices = labels.reshape(4) if labels.shape[1] == 1 else labels.argmax(axis=-1)
    assert_close(mixed, mix(mixing, jax.random.key(0), batch(4)[0], indices.astype(np.int32))[1], 1e-6)


def test_yes_or_no_is_mixed_too():
    x = Input((8, 6, 3))
    model = Model(x, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))
    mixing = mixing_for(BOTH, make_objective(model, "binary_crossentropy"))
    _, mixed = mix(mixing, jax.random.key(0), batch(4)[0], np.array([0, 0, 1, 1], np.int32))
    assert mixed.shape == (4,)
    np.testing.assert_allclose(mixed + mixed[::-1], 1, atol=1e-6)
    images, labels = small_data(16)
    fit((images[:, :, :6], labels % 2), model, loss="binary_crossentropy", augmentation=BOTH)


def absolute(labels, outputs):
    return jnp.abs(labels - outputs).mean(axis=-1)


@pytest.mark.parametrize(("loss", "message"), [("mse", "mixup and cutmix mix"), (absolute, "the function absolute")])
def test_a_loss_whose_labels_cannot_be_mixed_is_refused_by_name(loss, message):
    images, labels = small_data(16)
    with pytest.raises(ValueError, match=message):
        fit((images, np.eye(CLASSES, dtype=np.float32)[labels]), loss=loss, augmentation=BOTH)


def test_a_model_of_pixels_is_refused():
    x = Input((8, 8, 3))
    model = Model(x, layers.Conv2D(CLASSES, 1, activation="softmax")(x))
    with pytest.raises(ValueError, match=r"cutmix are for models of one image with outputs \(batch, classes\)"):
        fit((small_data(16)[0], np.zeros((16, 8, 8), np.int32)), model, augmentation=train.Augmentation(cutmix=1.0))


def run(count=20, **options):
    ema = train.averaged(optax.sgd(0.05, momentum=0.9), 0.9)
    options = {"optimizer": ema, "augmentation": BOTH, "loss": "sparse_categorical_crossentropy", **options}
    return fit(small_data(count), epochs=1, **options)


@pytest.mark.slow
def test_eight_devices_are_as_one():
    """20 examples in batches of 16: the last has 4, which are padded on 8 devices."""
    alone, losses = run(devices=jax.devices()[:1])
    spread, same = run(parallel="jit")
    np.testing.assert_allclose(same, losses, rtol=1e-4)
    assert_close(spread.variables, alone.variables, 2e-4)


def test_steps_are_reproducible_and_not_all_alike():
    (one, losses), (again, same) = run(), run()
    assert losses == same
    assert_same(one.variables, again.variables)
    plain = run(augmentation=None)[1]
    assert len(set(np.round(np.subtract(losses, plain), 6))) == len(losses)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"parallel": "pmap"}, {"computation": train.Computation(accumulate=2)}])
def test_other_ways_to_run_a_step(options):
    result, losses = run(32, **options)
    assert np.isfinite(losses).all()
    assert not np.allclose(result.variables["params"]["head"]["kernel"], result.state.params["head"]["kernel"])
