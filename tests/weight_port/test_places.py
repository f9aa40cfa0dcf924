"""Weights in unusual places: several files, names of Windows, folders."""

import json
import os
import shutil
import zipfile

import h5py
import jax
import numpy as np
import pytest

import flaxapps
import weight_port
from flaxapps.saving.load import load_architecture
from tests.places import LEGACY
from weight_port import WeightError
from weight_port.readers import open_weights


@pytest.fixture
def saved(tmp_path):
    """A nested model of Keras with random weights, as `model.keras`."""
    import keras

    x = keras.Input((8, 8, 3))
    base = keras.Model(x, keras.layers.BatchNormalization()(keras.layers.Conv2D(64, 3)(x)), name="base")
    y = keras.layers.Dense(60)(keras.layers.Flatten()(base(x)))
    model = keras.Model(x, keras.layers.Dense(300)(y))
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.5, 1.5, weight.shape).astype("float32") for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    return model


def assert_same(loaded, network):
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(network.variables))


def test_weights_in_several_files(saved, tmp_path):
    saved.save_weights(tmp_path / "model.weights.json", max_shard_size=0.00055)
    assert len(list(tmp_path.glob("*.weights.h5"))) > 1
    network = flaxapps.load_model(tmp_path / "model.keras")
    assert_same(weight_port.load_weights(tmp_path / "model.weights.json", network.model), network)


@pytest.mark.parametrize("name", ["../other.weights.h5", "missing.weights.h5", "model.keras"])
def test_lists_of_files_that_are_not_beside_them_are_refused(saved, tmp_path, name):
    network = flaxapps.load_model(tmp_path / "model.keras")
    (tmp_path / "x.weights.json").write_text(json.dumps({"weight_map": {"/layers/dense/vars": [name]}}))
    with pytest.raises(WeightError, match="lists"):
        weight_port.load_weights(tmp_path / "x.weights.json", network.model)


def test_files_of_windows(saved, tmp_path):
    """Keras joined the names of groups with os.path.join there."""
    network = flaxapps.load_model(tmp_path / "model.keras")
    saved.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file, h5py.File(tmp_path / "windows.weights.h5", "w") as windows:

        def copy(path, item):
            if path.endswith("/vars"):
                file.copy(path, windows.require_group(path.removesuffix("/vars").replace("/", "\\")), "vars")

        file.visititems(copy)
        assert "layers\\functional\\layers\\conv2d" in windows
    assert_same(weight_port.load_weights(tmp_path / "windows.weights.h5", network.model), network)
    with zipfile.ZipFile(tmp_path / "model.keras") as old, zipfile.ZipFile(tmp_path / "windows.keras", "w") as new:
        for member in ("metadata.json", "config.json"):
            new.writestr(member, old.read(member))
        new.write(tmp_path / "windows.weights.h5", "model.weights.h5")
    assert_same(flaxapps.load_model(tmp_path / "windows.keras").variables, network)


def test_the_name_of_a_file_does_not_matter(saved, tmp_path):
    network = flaxapps.load_model(tmp_path / "model.keras")
    saved.save(tmp_path / "model.h5")
    shutil.move(tmp_path / "model.h5", tmp_path / "mine.keras")
    assert_same(flaxapps.load_model(tmp_path / "mine.keras").variables, network)


@pytest.mark.parametrize("read", [flaxapps.load_model, load_architecture, weight_port.read_config])
def test_a_saved_model_of_tensorflow_is_refused_by_name(tmp_path, read):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(WeightError, match=r"is a SavedModel, a graph of TensorFlow.*model\.save"):
        read(tmp_path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(WeightError, match="is a folder, not a file of Keras"):
        flaxapps.load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5"])
def test_skip_mismatch_also_where_a_bias_is_missing(saved, tmp_path, name):
    (saved.save_weights if "weights" in name else saved.save)(tmp_path / name)
    x = flaxapps.Input((8, 8, 3))
    base = flaxapps.load_model(tmp_path / "model.keras").model.get_layer("base").layer
    y = flaxapps.layers.Flatten()(base(x))
    y = flaxapps.layers.Dense(60, use_bias=False, name="unbiased")(y)
    model = flaxapps.Model(x, flaxapps.layers.Dense(300, name="head")(y))
    with pytest.raises(WeightError, match="arrays"):
        weight_port.load_weights(tmp_path / name, model)
    with pytest.warns(UserWarning, match=r"left fresh: unbiased/kernel"):
        loaded = weight_port.load_weights(tmp_path / name, model, skip_mismatch=True)
    np.testing.assert_array_equal(loaded["params"]["head"]["kernel"], saved.layers[-1].get_weights()[0])


def test_weights_of_several_gpus(tmp_path):
    """`multi_gpu_model` of Keras 2 holds the model as one layer; its weights are the model's."""
    folder = LEGACY / "k224"
    whole = flaxapps.load_model(folder / "multi_gpu_like.h5")
    single = whole.model.get_layer("single")
    model = flaxapps.Model(single.layer.graph.inputs[0], single.layer.graph.outputs[0])
    loaded = weight_port.load_weights(folder / "multi_gpu_like.h5", model)
    jax.tree.map(np.testing.assert_array_equal, loaded["params"], dict(whole.variables["params"]["single"]))


@pytest.mark.parametrize(
    "value",
    ["../x.h5", "/etc/passwd", "..\\x.h5", "C:x.h5", "\0.h5", "", "x.h5/..", "gone.h5", "a" * 5000 + ".h5", "pipe.h5",
     "self.h5", "folder.h5", "link.h5", None, 5, True, {"x.h5": 1}, [["x.h5"]], [5]],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip # kept on few lines on purpose
def test_lists_of_shards_that_lead_elsewhere(value, tmp_path):
    text = json.dumps({"weight_map": {"/layers/dense/vars": value}})
    (tmp_path / "self.h5").write_text(text)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to("link.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "x.weights.json").write_text(text)
    with pytest.raises(WeightError, match=r"x\.weights\.json lists"), open_weights(tmp_path / "x.weights.json"):
        pass
