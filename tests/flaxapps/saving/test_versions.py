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
@pytest.mark.filterwarnings("ignore:Layer 'random_crop'")  # imported as the resizing that it is
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
