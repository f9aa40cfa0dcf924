"""`flaxapps quantize`, and predicting with its file."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import flaxapps
from flaxapps.cli.commands import main
from flaxapps.cli.models import Recipe, read_recipe
from flaxapps.photos.photo import Resizing
from tests.flaxapps.quantization.networks import every_kind, variables_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, labels, and twelve photos."""
    folder = tmp_path_factory.mktemp("quantize")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(12):
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    model = every_kind()
    flaxapps.save_model(model, variables_of(model), folder / "model.npz")
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    return folder


def test_quantize_and_predict(folder, capsys):
    photos, output = str(folder / "photos"), str(folder / "int8.npz")
    options = ["--preprocess", "tf", "--interpolation", "bilinear", "--labels", str(folder / "labels.txt")]
    assert main(["quantize", str(folder / "model.npz"), photos, "--output", output, *options]) == 0
    said = capsys.readouterr().out
    assert "3 images" in said
    assert "int8 layers; those that lose most" in said
    assert read_recipe(output) == Recipe(output, ["a", "b", "c", "d", "e"], "tf", Resizing())
    rows = {}
    for model, given in ((output, []), (str(folder / "model.npz"), options)):
        assert main(["predict", photos, "--model", model, *given, "--format", "csv", "--top", "1"]) == 0
        rows[model] = list(csv.reader(capsys.readouterr().out.splitlines()))
    int8, exact = rows.values()
    assert [row[:-1] for row in int8] == [row[:-1] for row in exact]
    scores = np.array([[float(row[-1]) for row in each[1:]] for each in (int8, exact)])
    assert 0 < abs(scores[0] - scores[1]).max() < 0.02


def test_held_out_photos_and_layers_kept(folder, capsys):
    photos, output = str(folder / "photos"), folder / "kept.npz"
    command = ["quantize", str(folder / "model.npz"), photos, "--preprocess", "tf", "--output", str(output)]
    assert main([*command, "--held-out", photos, "--keep-float", "conv", "inner", "--largest-change", "0.5"]) == 0
    assert "12 images" in capsys.readouterr().out
    model, _ = flaxapps.load_model(output)
    assert model.get_layer("conv").class_name == "Conv2D"
    assert model.get_layer("linear").class_name == "QuantizedConv2D"
    assert main(["inspect", str(output), "--format", "json"]) == 0
    dtypes = {row["array"].partition("/")[2]: row["dtype"] for row in json.loads(capsys.readouterr().out)}
    assert (dtypes["linear/kernel"], dtypes["conv/kernel"]) == ("int8", "float32")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--output", "x.keras"], "--output should end in .npz, got x.keras"),
        (["--output", "nowhere/x.npz"], "there is no folder nowhere"),
        (["--output", "x.npz"], "preprocessing of 'every_kind' is not known"),
        (["--output", "x.npz", "--preprocess", "tf", "--keep-float", "odd"], "there are no layers 'odd'"),
    ],
)
def test_errors(folder, capsys, monkeypatch, tmp_path, options, problem):
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", str(folder / "model.npz"), str(folder / "photos"), *options]) == 1
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_do_not_go_with_our_own_files(folder, capsys):
    model = str(folder / "model.npz")
    assert main(["predict", str(folder / "photos"), "--model", model, "--weights", model]) == 1
    assert "leave out --weights" in capsys.readouterr().err
    assert main(["summary", model]) == 0
    assert "separable" in capsys.readouterr().out
