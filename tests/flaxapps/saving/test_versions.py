"""What is read where a file does not say, or says in one place only, which Keras wrote it."""

import shutil
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import layers
from flaxapps.layers.augmentation.geometry import SEPARATE_FLIPS
from flaxapps.saving.load import model_from_config
from tests.networks import fresh_keras
from tests.places import LEGACY

CROP = LEGACY / "tk24" / "L_RandomCrop_0.h5"


def without(path: Path, groups: tuple[str, ...]) -> Path:
    """Remove the version of Keras from groups of a file."""
    with h5py.File(path, "a") as file:
        for group in groups:
            del file[group].attrs["keras_version"]
    return path


@pytest.mark.parametrize("group", ["/", "model_weights"])
def test_one_group_without_a_version_does_not_hide_the_other(group, tmp_path):
    path = without(Path(shutil.copy(CROP, tmp_path)), (group,))
    assert flaxapps.load_model(path).model == flaxapps.load_model(CROP).model


def test_a_layer_of_several_meanings_without_a_version_is_warned_of(tmp_path):
    path = without(Path(shutil.copy(CROP, tmp_path)), ("/", "model_weights"))
    with pytest.warns(UserWarning, match="'random_crop' of kind RandomCrop is read as in Keras 3.8 and later"):
        flaxapps.load_model(path)


def unversioned(*kinds):
    keras = fresh_keras()
    config = {"class_name": "Sequential", "config": keras.Sequential(kinds).get_config()}
    assert "keras_version" not in config
    return config


def test_integer_images_that_are_resized_without_a_version_are_warned_of():
    import keras

    config = unversioned(keras.Input((8, 8, 3), dtype="uint8"), keras.layers.Resizing(4, 4))
    with pytest.warns(UserWarning, match="of kind Resizing is read as in Keras 3.6 and later"):
        model_from_config(config)


def test_layers_of_one_meaning_need_no_version(recwarn):
    import keras

    model_from_config(unversioned(keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.UpSampling2D()))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("version", "contrast", "mode"),
    [
        ("2.15.0", (0.2, 0.2), SEPARATE_FLIPS),
        ("3.5.0", (0.2, 0.2), SEPARATE_FLIPS),
        ("3.6.0", 0.2, "horizontal_and_vertical"),
    ],
)
def test_random_layers_train_as_in_the_version_that_wrote_them(version, contrast, mode):
    """Read in the source of Keras 2.15, 3.0, 3.3, 3.6 and 3.15; from 3.6 on Keras writes a pair, flaxapps may not."""
    kinds = [("InputLayer", {"batch_shape": (None, 4, 4, 3)}), ("RandomContrast", {"factor": 0.2}), ("RandomFlip", {})]
    entries = [{"class_name": kind, "config": {"name": kind.lower(), **config}} for kind, config in kinds]
    config = {"name": "model", "layers": entries}
    model = model_from_config({"class_name": "Sequential", "config": config, "keras_version": version})
    first, second = (layer.layer for layer in model.layers[1:])
    assert (first.factor, second.mode) == (contrast, mode)


@pytest.mark.parametrize(
    ("version", "rows", "places"),
    [
        ("2.4.0", 8, 9),
        ("2.15.0", 8, 9),
        ("3.5.0", 8, 9),
        ("3.5.0", 6, 3),
        ("3.6.0", 8, 9),
        ("3.7.0", 6, 1),
        ("3.8.0", 8, 9),
    ],
)
def test_a_crop_is_random_in_training_in_every_version(version, rows, places):
    """It was imported as the resizing of inference. Beside Keras 3.5 and 3.7 by hand, read in the source of 2.15."""
    entries = [
        {"class_name": "InputLayer", "config": {"name": "image", "batch_shape": (None, rows, 7, 3)}},
        {"class_name": "RandomCrop", "config": {"name": "crop", "height": 6, "width": 5}},
    ]
    config = {"name": "model", "layers": entries}
    model = model_from_config({"class_name": "Sequential", "config": config, "keras_version": version})
    x = np.random.default_rng(0).normal(size=(2, rows, 7, 3)).astype("float32")
    crop = jax.jit(lambda key: model.apply({}, x, train=True, rngs={"dropout": key}))
    found = np.asarray([crop(jax.random.key(seed)) for seed in range(60)])
    windows = [x[:, top : top + 6, left : left + 5] for top in range(rows - 5) for left in range(3)]
    counts = np.array([(found == window).all((1, 2, 3, 4)).sum() for window in windows])
    assert (counts > 0).sum() == places
    assert counts.sum() == 60  # both images at the same place


def test_a_crop_of_before_keras_38_is_exported_as_its_resizing(tmp_path):
    for name in ("tk24/L_RandomCrop_0.h5", "tk215/random_crop.keras"):
        model, variables = flaxapps.load_model(LEGACY / name)
        with pytest.warns(UserWarning, match="is saved as the resizing that it is outside training"):
            flaxapps.save_model(model, variables, tmp_path / "model.keras")
        x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
        wanted = fresh_keras().saving.load_model(tmp_path / "model.keras")(x)
        np.testing.assert_allclose(model.apply(variables, x), wanted, atol=1e-5)


def test_flips_drawn_for_each_direction_are_exported_as_two_layers(tmp_path):
    image = flaxapps.Input((4, 4, 3))
    model = flaxapps.Model(image, layers.RandomFlip(SEPARATE_FLIPS)(image))
    flaxapps.save_model(model, {}, tmp_path / "model.keras")
    opened = fresh_keras().saving.load_model(tmp_path / "model.keras")
    assert [layer.mode for layer in opened.layers[1:]] == ["horizontal", "vertical"]
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype("float32")
    flipped = np.asarray(model.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    ways = [np.flip(x, axes) for axes in ((), 1, 2, (1, 2))]
    assert all(5 < (flipped == way).all((1, 2, 3)).sum() < 27 for way in ways)  # a quarter each
