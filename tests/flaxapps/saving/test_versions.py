"""What is read where a file does not say, or says in one place only, which Keras wrote it."""

import shutil
from pathlib import Path

import h5py
import pytest

import flaxapps
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


def unversioned(*layers):
    keras = fresh_keras()
    config = {"class_name": "Sequential", "config": keras.Sequential(layers).get_config()}
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
