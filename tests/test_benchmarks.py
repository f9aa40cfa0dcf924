"""The inference benchmark: what it makes of times, and one real round of it on a small image."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from flaxapps import Input, Model, layers
from flaxapps.registry import list_models
from tests.benchmarks import catalogue, inference, int8_error, memory, random_weights, training
from tests.benchmarks.chart import draw
from tests.benchmarks.inference import Measurement
from tests.places import ROOT

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


def test_precisions_have_tables_of_their_own():
    measured = [
        *MEASURED,
        Measurement("vgg16", 8, "flaxapps-int8", [0.5, 0.5], 0, 3.0, 0.02),
        Measurement("vgg16", 8, "openvino", [0.4, 0.6], 0, 1.0, 0.01),
    ]
    assert inference.ratios(measured, 8, "flaxapps-int8")["openvino"]["vgg16"] == pytest.approx(1.0)
    console = Console(record=True, width=120)
    inference.print_tables(console, measured)
    inference.print_costs(console, measured)
    text = console.export_text()
    assert "Batch 8, reduced precision" in text
    assert "2.0e-02" in text


def test_tables_of_memory():
    found = [memory.Memory("vgg16", "flaxapps", 557_000_000, 1_318_000_000, 1_400_000_000)]
    console = Console(record=True, width=120)
    memory.print_tables(console, [*found, memory.Memory("resnet50", "torch", 1, 2, 3)], 8)
    text = console.export_text()
    assert "Peak, then a batch of 8, MB" in text
    assert all(cell in text for cell in ("557", "1,318", "1,400", "absent"))


def test_error_of_int8():
    exact, rounded = np.array([[0.0, 4.0], [2.0, 1.0]]), np.array([[0.0, 4.0], [1.0, 1.5]])
    largest, rms, agreeing = int8_error.judge(exact, rounded)
    assert (largest, agreeing) == (0.25, 1)
    assert rms == pytest.approx(np.sqrt((0.25**2 + 0.125**2) / 4))
    halves = int8_error.crosswise(lambda photos: lambda x: x + 10 * photos.sum(), np.array([[1], [2], [3], [4]]))
    assert halves[:, 0].tolist() == [61, 42, 63, 44]  # each by the other half


def test_statistics_of_images_normalize_them():
    """In inference mode, every BatchNormalization has outputs of mean 0 and deviation 1 on these images."""
    image = Input((9, 9, 3))
    x = layers.BatchNormalization(momentum=0.9)(layers.DepthwiseConv2D(3)(layers.Conv2D(8, 3)(image)))
    model = Model(image, layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    variables = random_weights.random_variables(jax.eval_shape(model.init_variables))
    images = np.random.default_rng(0).random((16, 9, 9, 3), np.float32) * 50
    outputs = model.apply(random_weights.with_statistics(model, variables, images), images)
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 1, atol=1e-2)
    assert variables["params"]["depthwise_conv2d"]["kernel"].std() == pytest.approx(np.sqrt(2 / 9), rel=0.2)


def test_all_networks_are_measured_and_drawn(tmp_path: Path):
    """What the site shows."""
    report = json.loads((ROOT / "docs" / "pictures" / "networks.json").read_text())
    assert list(report["networks"]) == list_models()
    catalogue.draw(report, str(tmp_path / "networks.svg"))
    assert (tmp_path / "networks.svg").stat().st_size > 10_000


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
