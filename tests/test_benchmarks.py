"""The inference benchmark: what it makes of times, and one real round of it on a small image."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import inference, training
from tests.benchmarks.chart import draw
from tests.benchmarks.inference import Measurement

MEASURED = [
    Measurement("vgg16", 8, "flaxapps", [1.0, 1.5, 9.0], 0),
    Measurement("vgg16", 8, "torch", [3.0, 2.0, 3.5], 0),
    Measurement("resnet50", 8, "flaxapps", [4.0, 4.0, 4.0], 0),
    Measurement("resnet50", 8, "torch", [2.0, 2.0, 2.0], 0),
    Measurement("resnet50", 1, "torch", [2.0, 2.0, 2.0], 0),
]


def test_ratios_are_of_medians():
    assert inference.ratios(MEASURED, 8) == {"torch": {"vgg16": 2.0, "resnet50": 0.5, "all": pytest.approx(1.0)}}
    assert inference.ratios(MEASURED, 1) == {}


def test_table():
    console = Console(record=True, width=120)
    inference.print_tables(console, MEASURED)
    text = console.export_text()
    assert "2.7 (2.00)" in text
    assert "4.0 (0.50)" in text
    assert "absent" in text


@pytest.mark.slow
def test_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two runtimes in processes of their own, and one whose interpreter is not there."""
    options = ["--networks", "vgg16", "--size", "32", "--batches", "1", "--repetitions", "2"]
    peers = ["--peers", "flaxapps-plain", "flaxapps", "onnxruntime", "--python", f"onnxruntime={tmp_path / 'python'}"]
    inference.main([*options, *peers, "--json", str(tmp_path / "times.json")])
    printed = capsys.readouterr().out
    assert "absent: onnxruntime" in printed
    report = json.loads((tmp_path / "times.json").read_text())
    assert [(each["peer"], len(each["seconds"])) for each in report["measurements"]] == [
        ("flaxapps-plain", 2),
        ("flaxapps", 2),
    ]
    assert report["versions"]["flaxapps"]["jax"]
    draw(report, str(tmp_path / "chart.svg"), batch=1)
    assert "flaxapps-plain" in (tmp_path / "chart.svg").read_text()


@pytest.mark.slow
def test_training_beside_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The programs that the benchmark of training runs are strings, which no import checks."""
    options = ["--phase", "head", "--size", "75", "--batch", "2", "--images", "2", "--repetitions", "1"]
    monkeypatch.setattr("sys.argv", ["training", *options, "--json", str(tmp_path / "times.json")])
    training.main()
    results = json.loads((tmp_path / "times.json").read_text())["results"]
    assert [row["way"] for row in results] == ["Keras", "cached features"]
