"""Incomplete model files: JSON beside weights, Sequential models without an input shape."""

import json
import shutil
import warnings

import h5py
import numpy as np
import pytest
from PIL import Image

import flaxapps
import weight_port
from flaxapps.cli.commands import main
from flaxapps.saving.load import model_from_config
from tests.places import LEGACY
from weight_port import WeightError


@pytest.fixture
def project(tmp_path):
    """Half of the old projects: the model as JSON, its weights beside."""
    shutil.copy(LEGACY / "k224" / "plain_seq.h5", tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "model.h5", "w") as weights:
        config = {**json.loads(whole.attrs["model_config"]), "keras_version": "2.2.4", "backend": "tensorflow"}
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", weights)
        for name, value in whole["model_weights"].attrs.items():
            weights.attrs[name] = value
    (tmp_path / "model.json").write_text(json.dumps(config))
    return tmp_path


def test_json_beside_weights(project):
    with np.load(LEGACY / "k224" / "plain_seq.npz") as stored:
        images, expected = stored["x0"], stored["y0"]
    model, variables = flaxapps.load_model(project / "model.json", weights=project / "model.h5")
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-5, atol=1e-6)


def test_json_alone_says_what_is_missing(project, capsys):
    with pytest.raises(WeightError, match="holds a model without weights: give weights="):
        flaxapps.load_model(project / "model.json")
    Image.new("RGB", (12, 12)).save(project / "photo.png")
    assert (
        main(["predict", str(project / "photo.png"), "--model", str(project / "model.json"), "--preprocess", "rescale"])
        == 1
    )
    assert "their file with --weights" in capsys.readouterr().err


def test_commands_take_json_and_weights(project, capsys):
    Image.new("RGB", (12, 12), (200, 10, 40)).save(project / "photo.png")
    options = ["--weights", str(project / "model.h5"), "--preprocess", "rescale"]
    assert main(["predict", str(project / "photo.png"), "--model", str(project / "model.json"), *options]) == 0
    assert "photo.png" in capsys.readouterr().out
    assert main(["summary", str(project / "model.json")]) == 0


def test_a_square_is_found_from_the_weights():
    with pytest.warns(UserWarning, match=r"its weights fit \(12, 12, 3\), which is taken"):
        network = flaxapps.load_model(LEGACY / "k224" / "plain_seq_inputlayer.h5")
    assert network.model.input_shape == (None, 12, 12, 3)


def test_the_shape_can_be_said():
    network = flaxapps.load_model(LEGACY / "k224" / "plain_seq_inputlayer.h5", input_shape=(12, 12, 3))
    assert network.model.input_shape == (None, 12, 12, 3)
    with pytest.raises(WeightError, match="other shapes"):
        flaxapps.load_model(LEGACY / "k224" / "plain_seq_inputlayer.h5", input_shape=(14, 12, 3))


def test_several_squares_are_not_chosen_from(tmp_path):
    import keras

    model = keras.Sequential(
        [keras.Input((13, 13, 3)), keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D(2), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(2))
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        del config["config"]["layers"][0], config["config"]["build_input_shape"]
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(WeightError, match=r"weights fit \(12, 12, 3\), \(13, 13, 3\): give input_shape="):
        flaxapps.load_model(tmp_path / "model.h5")
    assert flaxapps.load_model(tmp_path / "model.h5", input_shape=(13, 13, 3)).model.input_shape == (None, 13, 13, 3)


@pytest.mark.parametrize(
    ("version", "strides", "size", "warned"),
    [("3.5.0", 2, 8, True), ("3.5.0", 2, None, True), ("3.5.0", 1, 8, False), ("3.15.0", 2, 8, False)],
)
def test_output_padding_that_a_version_does_not_store_is_warned_of(version, strides, size, warned, tmp_path):
    import keras

    x = keras.Input((size, size, 3))
    keras.Model(x, keras.layers.Conv2DTranspose(2, 3, strides)(x)).save(tmp_path / "model.keras")
    config = weight_port.read_config(tmp_path / "model.keras") | {"keras_version": version}
    if version != "3.15.0":
        del config["config"]["layers"][1]["config"]["output_padding"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model_from_config(config)
    assert any("does not store output_padding" in str(each.message) for each in caught) == warned
