"""The command `python -m weight_port`: every command, its exit codes, and its errors in one line."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import weight_port
from flaxapps import load_model
from flaxapps.cli.commands import weights_main as main
from flaxapps.cli.weights.compare import compare_files
from flaxapps.cli.weights.verify import LayerDifference, first_beyond
from tests.arrays import read_npz
from tests.imported import randomise
from tests.networks import fresh_keras
from tests.places import ROOT
from weight_port import WeightError
from weight_port.trees import load_npz, save_npz, save_orbax
from weight_port.writers import leaves

NAMES = {"legacy": "x.h5", "tree": "x.weights.h5", "archive": "x.keras", "npz": "x.npz", "orbax": "x"}


def build():
    """A shared layer, a nested model, and kernels that look other when rotated only from the second on."""
    keras = fresh_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 1, name="first")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(x)
    inner = keras.Input((8, 8, 4))
    block = keras.Model(inner, keras.layers.BatchNormalization(name="bn")(inner), name="block")
    pool = keras.layers.GlobalAveragePooling2D(name="pool")
    dense = keras.layers.Dense(5, name="shared")
    joined = keras.layers.Concatenate(name="joined")([dense(pool(block(x))), dense(pool(x))])
    model = keras.Model(image, joined, name="small")
    randomise(model)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model in every form that Keras writes."""
    folder = tmp_path_factory.mktemp("files")
    model = build()
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    return folder


def run(*arguments):
    return main([os.fspath(argument) for argument in arguments])


def arrays(variables):
    return {"/".join(path): np.asarray(leaf) for path, leaf in leaves(variables)}


def assert_same_bits(ours, theirs):
    ours, theirs = arrays(ours), arrays(theirs)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype == np.float32
        assert array.shape == theirs[name].shape
        assert array.tobytes() == theirs[name].tobytes(), name


def assert_one_line(capsys, *words):
    output = capsys.readouterr().err
    assert output.startswith("weight_port: error: ")
    assert output.count("\n") == 1
    assert "Traceback" not in output
    for word in words:
        assert word in output


@pytest.mark.parametrize(
    ("name", "kind", "version"),
    [
        ("model.keras", "whole model of Keras 3 (.keras)", "3."),
        ("model.h5", "whole model, legacy HDF5 (.h5)", "3."),
        ("model.weights.h5", "HDF5 of Keras 3 (.weights.h5)", "not recorded"),
    ],
)
def test_inspect(files, capsys, name, kind, version):
    assert run("inspect", files / name) == 0
    output = capsys.readouterr().out
    content = (files / name).read_bytes()
    for fact in (
        kind,
        hashlib.sha256(content).hexdigest(),
        hashlib.md5(content).hexdigest(),
        f"{len(content):,} bytes",
    ):
        assert fact in output
    assert f"Keras version  {version}" in output
    for word in ("first", "second", "(3, 3, 4, 4)", "144", "float32"):
        assert word in output


def test_inspect_names_the_published_file(files, capsys, monkeypatch):
    from types import SimpleNamespace

    digest = hashlib.md5((files / "model.h5").read_bytes()).hexdigest()
    known = [SimpleNamespace(hashes={"md5": digest}, filename="famous.h5")]
    monkeypatch.setattr("weight_port.inspecting.PUBLISHED_FILES", known)
    assert run("inspect", files / "model.h5") == 0
    assert "famous.h5" in capsys.readouterr().out


def test_inspect_npz_and_orbax(files, capsys, tmp_path):
    for name, kind in (("x.npz", "NumPy arrays (.npz)"), ("x", "Orbax folder")):
        assert run("convert", files / "model.keras", tmp_path / name) == 0
        assert run("inspect", tmp_path / name) == 0
        output = capsys.readouterr().out
        assert kind in output
        assert "params/second/kernel" in output


def test_inspect_does_not_pass_on_what_steers_a_terminal(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **{"params/\x1b[2Jevil/kernel": np.zeros(2, "f4")})
    assert run("inspect", tmp_path / "x.npz") == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "evil" in output


def test_convert_round_trip_is_bit_identical(files, tmp_path):
    """Through all five forms, every form into every other."""
    wanted = load_model(files / "model.keras").variables
    model = ["--model", files / "model.keras"]
    for source, first in NAMES.items():
        (tmp_path / source).mkdir()
        origin = tmp_path / source / first
        assert run("convert", files / "model.keras", origin) == 0
        for target, second in NAMES.items():
            folder = tmp_path / f"{source}_{target}"
            folder.mkdir()
            assert run("convert", origin, folder / second, *model) == 0
            assert run("convert", folder / second, folder / "back.npz", *model) == 0
            assert_same_bits(load_npz(folder / "back.npz"), wanted)
            assert sorted(path.name for path in folder.iterdir()) == sorted([second, "back.npz"])
    assert read_npz(tmp_path / "npz" / "x.npz")["params/second/kernel"].shape == (3, 3, 4, 4)


def test_converted_files_open_in_keras(files, tmp_path):
    import keras

    original = build()
    original.load_weights(files / "model.weights.h5")
    assert run("convert", files / "model.h5", tmp_path / "x.npz") == 0
    assert run("convert", tmp_path / "x.npz", tmp_path / "x.keras", "--model", files / "model.keras") == 0
    loaded = keras.models.load_model(tmp_path / "x.keras")
    for ours, theirs in zip(loaded.weights, original.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_convert_a_network_by_name(tmp_path, monkeypatch):
    from flaxapps.registry import build_model

    model = build_model("vgg16", include_top=False)
    tree = {"params": {}}
    for layer in model.layers:
        if layer.weights:
            tree["params"][layer.name] = {leaf: np.zeros(each.shape, "f4") for leaf, each in layer.weights.items()}
    weight_port.save_weights(tmp_path / "x.h5", model, tree)
    assert run("convert", tmp_path / "x.h5", tmp_path / "x.npz", "--model", "vgg16", "--no-top") == 0
    assert_same_bits(load_npz(tmp_path / "x.npz"), tree)


def test_convert_says_what_it_needs(files, tmp_path, capsys):
    assert run("convert", files / "model.weights.h5", tmp_path / "x.npz") == 2
    assert_one_line(capsys, "--model")
    assert run("convert", files / "model.keras", tmp_path / "x.npz") == 0
    assert run("convert", tmp_path / "x.npz", tmp_path / "x.keras") == 2
    assert_one_line(capsys, "--model")
    assert run("convert", files / "model.keras", tmp_path / "x.txt") == 2
    assert_one_line(capsys, "x.txt", ".weights.h5")
    assert run("convert", files / "model.keras", files / "model.keras") == 2
    assert_one_line(capsys, "also the file to read")
    assert run("convert", tmp_path / "x.npz", tmp_path / "y.h5", "--model", "nothing") == 2
    assert_one_line(capsys, "'nothing' is neither a network of `flaxapps list` nor a file")
    assert run("convert", tmp_path / "x.npz", tmp_path / "y.h5", "--model", "vgg16") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("weight_port: error: ")
    assert lines[1] == "missing (32):"
    assert "  and 22 more" in lines
    assert run("convert", tmp_path / "none.h5", tmp_path / "y.h5") == 2
    assert_one_line(capsys, "none.h5")
    assert run("convert", files / "model.keras", tmp_path / "nowhere" / "y.npz") == 2
    assert_one_line(capsys, "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_convert_leaves_a_folder_that_is_no_checkpoint(files, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert run("convert", files / "model.keras", tmp_path / "mine") == 2
    assert_one_line(capsys, "is not an Orbax checkpoint")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_convert_replaces_a_checkpoint(files, tmp_path):
    save_orbax(tmp_path / "x", {"params": {"old": np.zeros(1, "f4")}})
    assert run("convert", files / "model.keras", tmp_path / "x") == 0
    assert run("diff", tmp_path / "x", files / "model.keras") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_npz_keeps_names_with_slashes(tmp_path):
    tree = {"params": {"a/b": {"kernel": np.ones(1, "f4")}, "a": {"b": np.zeros(1, "f4")}, "5%": np.ones(2, "f4")}}
    save_npz(tmp_path / "x.npz", tree)
    loaded = load_npz(tmp_path / "x.npz")
    assert loaded["params"].keys() == tree["params"].keys()
    assert loaded["params"]["a/b"]["kernel"] == 1


def test_diff(files, tmp_path, capsys):
    left, right = tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"
    shutil.copy(files / "model.weights.h5", left)
    shutil.copy(left, right)
    assert run("diff", left, right) == 0
    assert "are equal, 0 are not" in capsys.readouterr().out
    with h5py.File(right, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 0.5
        del file["layers/conv2d/vars/1"]
        file["layers/dense/vars/2"] = np.zeros(3, "f4")
        del file["layers/conv2d_1/vars/1"]
        file["layers/conv2d_1/vars/1"] = np.zeros(7, "f4")
    assert run("diff", left, right) == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "vars" in line}
    assert "other values" in lines["conv2d/vars/0"]
    assert "0.5" in lines["conv2d/vars/0"]
    assert "only in A" in lines["conv2d/vars/1"]
    assert "only in B" in lines["dense/vars/2"]
    assert "(4,), (7,)" in lines["conv2d_1/vars/1"]
    assert len(lines) == 4
    assert run("diff", left, tmp_path / "none.h5") == 2
    assert_one_line(capsys, "none.h5")


def test_diff_of_two_forms(files, tmp_path, capsys):
    assert run("diff", files / "model.h5", files / "model.keras") == 0
    assert run("diff", files / "model.h5", files / "model.weights.h5") == 0
    assert run("convert", files / "model.keras", tmp_path / "x.npz") == 0
    assert run("diff", tmp_path / "x.npz", files / "model.weights.h5") == 2
    assert_one_line(capsys, "--model")
    assert run("diff", tmp_path / "x.npz", files / "model.weights.h5", "--model", files / "model.keras") == 0


def test_diff_of_what_is_not_a_number(tmp_path):
    def write(name, *values):
        np.savez(tmp_path / name, **{"params/a": np.array(values, "f4")})

    write("a.npz", np.nan, np.inf, 1)
    write("b.npz", np.nan, np.inf, 1)
    write("c.npz", 0, np.inf, 1)
    assert not compare_files(str(tmp_path / "a.npz"), str(tmp_path / "b.npz")).differences
    assert compare_files(str(tmp_path / "a.npz"), str(tmp_path / "c.npz")).differences[0].detail == "nan"


def test_verify_passes(files, capsys):
    for name in ("model.keras", "model.h5"):
        assert run("verify", files / name) == 0
        output = capsys.readouterr().out
        assert "largest relative difference" in output
        for layer in ("first", "second", "block", "shared", "joined"):
            assert layer in output


def test_verify_a_sequential_model_of_free_size(tmp_path):
    import keras

    stack = keras.layers
    model = keras.Sequential([keras.Input((None, None, 3)), stack.Conv2D(2, 3), stack.GlobalMaxPooling2D()])
    model.save(tmp_path / "x.keras")
    assert run("verify", tmp_path / "x.keras") == 0


def test_verify_names_the_layer_that_departs(files, tmp_path, capsys):
    """Kernels said to be Theano's are rotated here and not in Keras 3; a 1x1 kernel looks the same rotated."""
    path = tmp_path / "tampered.h5"
    shutil.copy(files / "model.h5", path)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["backend"] = "theano"
    assert run("verify", path) == 1
    assert "first beyond 1e-05: layer 'second' of kind Conv2D" in capsys.readouterr().out
    assert run("verify", path, "--tolerance", "1e9") == 0


def test_verify_names_the_layer_inside_a_nested_model(tmp_path, capsys):
    import keras

    inner = keras.Input((8, 8, 4))
    block = keras.layers.Conv2D(3, 3, name="wide")(keras.layers.Conv2D(4, 1, name="narrow")(inner))
    middle = keras.Input((8, 8, 4))
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 1, name="first")(image)
    outer = keras.Model(middle, keras.Model(inner, block, name="block")(middle), name="outer")
    model = keras.Model(image, keras.layers.GlobalMaxPooling2D(name="last")(outer(x)))
    randomise(model)
    path = tmp_path / "nested.h5"
    model.save(path)
    assert run("verify", path) == 0
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["backend"] = "theano"
    capsys.readouterr()
    assert run("verify", path) == 1
    assert "first beyond 1e-05: layer 'outer/block/wide' of kind Conv2D" in capsys.readouterr().out


def test_not_a_number_departs():
    assert (
        first_beyond([LayerDifference("a", "Dense", 0.0), LayerDifference("b", "Dense", float("nan"))], 1.0).layer
        == "b"
    )


def test_verify_says_that_keras_is_missing(files, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "keras" else find(name))
    assert run("verify", files / "model.keras") == 2
    assert_one_line(capsys, "Keras", "not installed")


def test_verify_wants_a_whole_model(files, capsys):
    assert run("verify", files / "model.weights.h5") == 2
    assert_one_line(capsys, "no model configuration")


def hostile_files(folder: Path, good: Path):
    (folder / "text.h5").write_text("not a weights file")
    (folder / "empty.keras").write_bytes(b"")
    (folder / "cut.keras").write_bytes((good / "model.keras").read_bytes()[:2000])
    (folder / "cut.h5").write_bytes((good / "model.h5").read_bytes()[:900])
    (folder / "folder").mkdir()
    (folder / "orbax").mkdir()
    (folder / "orbax" / "_CHECKPOINT_METADATA").write_text("{")
    np.savez(folder / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(folder / "double.npz", **{"params/a": np.zeros(2)})
    np.savez(folder / "clash.npz", **{"params/a": np.zeros(2, "f4"), "params/a/b": np.zeros(2, "f4")})
    np.savez(folder / "text.npz", **{"params/a": np.array(["x"])})
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(folder / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "")
    return sorted(folder.iterdir())


def test_hostile_files_are_errors_of_one_line(files, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    for path in hostile_files(tmp_path / "in", files):
        for arguments in (
            ["inspect", path],
            ["convert", path, tmp_path / "out" / "x.npz"],
            ["diff", path, files / "model.keras"],
            ["verify", path],
        ):
            assert run(*arguments) == 2, arguments
            assert_one_line(capsys, path.name)
            with pytest.raises(WeightError):
                main([*map(os.fspath, arguments), "--debug"])
    assert not list((tmp_path / "out").iterdir())


def test_an_array_larger_than_its_file(tmp_path, capsys):
    paths = [tmp_path / name for name in ("a.weights.h5", "b.weights.h5")]
    for path in paths:
        with h5py.File(path, "w") as file:
            file.create_dataset("layers/dense/vars/0", (10**9,), "f4", chunks=(1000,))
    assert run("diff", *paths) == 2
    assert_one_line(capsys, "larger than")


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["inspect"], ["verify", "x", "--tolerance", "-1"], ["bake", "x"]]
)
def test_arguments_that_make_no_sense(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == (0 if arguments == ["--help"] else 2)
    output = capsys.readouterr()
    assert ("examples:" in output.out) == (arguments == ["--help"])


def test_as_a_module(files):
    command = [sys.executable, "-m", "weight_port", "inspect", os.fspath(files / "model.keras")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "whole model" in result.stdout
    missing = subprocess.run([*command[:-1], "none.h5"], capture_output=True, text=True, cwd=ROOT)
    assert missing.returncode == 2
    assert missing.stderr == "weight_port: error: none.h5: No such file or directory\n"
