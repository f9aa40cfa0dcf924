"""The half of `flaxapps demo` that trains."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flaxapps import load_model, predict, quantize
from flaxapps.demo import digits as demo
from flaxapps.demo.photos import fetch_demo
from tests.places import DEMO


def test_held_out_digits_are_not_trained_on():
    training, held_out = demo.load_digits()
    assert (len(training.labels), len(held_out.labels)) == (1300, 497)
    assert training.images.shape == (1300, demo.SIZE, demo.SIZE, 3)
    assert training.images.dtype == np.uint8
    assert {*training.labels.tolist()} == {*held_out.labels.tolist()} == {*range(10)}
    assert not {image.tobytes() for image in training.images} & {image.tobytes() for image in held_out.images}


@pytest.mark.slow
def test_misread_digits_are_drawn_in_red(tmp_path: Path):
    digits = demo.Digits(np.full((5, 8, 8, 3), 255, np.uint8), np.arange(5, dtype=np.int32))

    def has_red(probabilities: np.ndarray) -> bool:
        demo.write_digits(digits, probabilities, tmp_path / "digits.png")
        with Image.open(tmp_path / "digits.png") as picture:
            return (255, 0, 0) in {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=1 << 24)}

    assert not has_red(np.eye(10, dtype=np.float32)[:5])
    assert has_red(np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 9]])


@pytest.mark.real
@pytest.mark.slow
def test_xception_learns_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    data = fetch_demo()
    accuracy = demo.run_training(data.model, tmp_path)
    assert accuracy >= 0.97
    printed = capsys.readouterr().out
    assert re.search(rf"The last block as well: {accuracy:.1%} of 497 held-out digits", printed)
    assert f"loaded again, reads {accuracy:.1%}" in printed
    before, after = load_model(data.model).variables, load_model(tmp_path / "digits.keras").variables
    before, after = ({name: tree[name]["xception"] for name in ("params", "batch_stats")} for tree in (before, after))
    jax.tree.map(
        np.testing.assert_array_equal,
        after["batch_stats"],
        {name: before["batch_stats"][name] for name in after["batch_stats"]},
    )
    moved = {
        name
        for name, layer in after["params"].items()
        if any((leaf != before["params"][name][key]).any() for key, leaf in layer.items())
    }
    assert moved == {"block12_sepconv1", "block12_sepconv2", "block12_sepconv3"}
    for name in ("digits.png", "digits_curves.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert picture.width > 1000
    # In int8, quantized on digits that it was trained on, it reads as many within half a percent.
    training, held_out = demo.load_digits()
    rounded = quantize(*load_model(tmp_path / "digits.keras"), training.images[:64], preprocess=True)
    read = predict(*rounded, held_out.images, batch_size=64, preprocess=True).argmax(axis=1)
    assert (read == held_out.labels).mean() >= accuracy - 0.005
