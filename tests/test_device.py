"""The checks for an accelerator, tried on the processor, so that they do not fail for a reason of their own there."""

import json
from pathlib import Path

import pytest

from tests.device import __main__ as device
from tests.device.checks import Row


def test_a_figure_fails_above_its_bound_and_where_it_is_no_number():
    assert Row("outputs", "vgg16", "error", 2e-4, 1e-4).failed
    assert Row("outputs", "vgg16", "error", float("nan"), 1e-4).failed
    assert not Row("outputs", "vgg16", "error", 2e-4).failed
    assert "EXCEEDED" in device.table([Row("outputs", "vgg16", "error", 2e-4, 1e-4)])


@pytest.mark.slow
def test_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--networks", "mobilenet_v2", "--size", "32", "--batch", "2", "--json", str(tmp_path / "device.json")]
    assert device.main([*options, "--runtimes", "flaxapps"]) == 0
    report = json.loads((tmp_path / "device.json").read_text())
    figures = {(row["check"], row["network"]) for row in report["rows"]}
    network = "mobilenet_v2"
    assert figures == {
        ("ten steps", "small"), ("outputs", network), ("exported", network), ("int8", network), ("speed", "flaxapps")
    }  # fmt: skip # kept on few lines on purpose
    assert all(row["value"] > 0 for row in report["rows"] if row["check"] == "speed")
    assert report["platform"] == "cpu"
    assert "images per second" in capsys.readouterr().out


def test_what_does_not_fit_into_the_time_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert device.main(["--seconds", "-1", "--networks", "vgg16", "--json", str(tmp_path / "device.json")]) == 1
    assert "outputs of vgg16: not run, out of time" in capsys.readouterr().out
    assert json.loads((tmp_path / "device.json").read_text())["rows"] == []
