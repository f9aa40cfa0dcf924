"""Layers kept in float32, by name and by bounds; the report; saving, compiling, exporting."""

import os
import subprocess
import sys

import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, Network, layers
from flaxapps.demo import photos as demo
from flaxapps.photos.reading import photo_format, read_photos
from flaxapps.registry import build_model
from flaxapps.transforms.logits import without_last_activation
from tests.flaxapps.quantization.networks import every_kind, images, variables_of
from tests.places import DEMO
from tests.recipe import recipe_variables

MODEL = every_kind()
VARIABLES = variables_of(MODEL)
INT8 = ("branch_a", "conv", "inner/conv", "linear", "separable", "separable_depthwise")


def int8_layers(model, above=""):
    for layer in model.layers:
        if isinstance(layer.layer, layers.Functional):
            yield from int8_layers(layer, f"{layer.name}/")
        elif layer.class_name.startswith("Quantized") and "kernel" in layer.weights:
            yield above + layer.name


@pytest.fixture(scope="module")
def quantized():
    return flaxapps.quantize(MODEL, VARIABLES, images())


def test_layers_are_kept_by_name():
    kept = flaxapps.quantize(MODEL, VARIABLES, images(), keep_float=["conv", "separable", "inner"])
    assert sorted(int8_layers(kept.model)) == ["branch_a", "linear"]
    with pytest.raises(ValueError, match="there are no layers 'nothing'"):
        flaxapps.quantize(MODEL, VARIABLES, images(), keep_float=["conv", "nothing"])
    with pytest.raises(ValueError, match="keep_float should be a list"):
        flaxapps.quantize(MODEL, VARIABLES, images(), keep_float="conv")


def test_report(quantized):
    x = images(10)
    report = flaxapps.quantization_report(MODEL, VARIABLES, quantized, x)
    exact, rounded = flaxapps.predict(MODEL, VARIABLES, x), flaxapps.predict(*quantized, x, optimize=None)
    assert report.images == 10
    assert report.largest_change == pytest.approx(abs(exact - rounded).max(), rel=1e-2)
    assert report.agreement == np.mean(exact.argmax(1) == rounded.argmax(1))
    assert sorted(layer.name for layer in report.layers) == sorted(INT8)
    assert list(report.layers) == sorted(report.layers, key=lambda layer: layer.own)
    assert all(20 < layer.accumulated <= layer.own + 3 < 80 for layer in report.layers)
    text = str(report)
    assert "10 images" in text
    assert report.layers[0].name in text


def test_report_of_a_damaged_layer(quantized):
    """A layer whose kernel is damaged has the most noise of its own; a relu after it is part of it."""
    arrays = dict(quantized.variables["params"])
    arrays["conv"] = arrays["conv"] | {"kernel": arrays["conv"]["kernel"] * np.int8(0)}
    report = flaxapps.quantization_report(MODEL, VARIABLES, Network(quantized.model, {"params": arrays}), images(10))
    assert report.layers[0].name == "conv"
    assert report.layers[0].own < 10


@pytest.mark.slow
@pytest.mark.every_jax
def test_report_of_logits_and_of_features():
    logits = without_last_activation(MODEL)
    report = flaxapps.quantization_report(logits, VARIABLES, flaxapps.quantize(logits, VARIABLES, images()), images(9))
    assert 0 < report.largest_change < 0.02
    x = Input((12, 12, 16))
    features = Model(x, layers.Conv2D(16, 3, name="conv")(x))
    photos = np.random.default_rng(0).normal(size=(8, 12, 12, 16)).astype("f4")
    arrays = features.init_variables()
    report = flaxapps.quantization_report(features, arrays, flaxapps.quantize(features, arrays, photos), photos)
    assert (report.agreement, report.largest_change) == (None, None)
    assert report.output > 25


@pytest.mark.slow
@pytest.mark.every_jax
def test_bounds_keep_the_worst_layers():
    x = images(10)
    report = flaxapps.quantization_report(MODEL, VARIABLES, flaxapps.quantize(MODEL, VARIABLES, images()), x)
    worst = [layer.name for layer in report.layers[:4]]
    kept_by_hand = flaxapps.quantize(MODEL, VARIABLES, images(), keep_float=worst)
    bound = flaxapps.quantization_report(MODEL, VARIABLES, kept_by_hand, x).largest_change * 1.001
    assert bound < report.largest_change
    smaller = flaxapps.quantize(MODEL, VARIABLES, images(), held_out=x, largest_change=bound)
    kept = set(INT8) - set(int8_layers(smaller.model))
    assert kept == {layer.name for layer in report.layers[: len(kept)]}
    assert 0 < len(kept) < len(INT8)
    found = flaxapps.quantization_report(MODEL, VARIABLES, smaller, x)
    assert found.largest_change <= bound


def test_a_bound_that_is_met_keeps_nothing_and_one_that_none_meets_keeps_all(quantized):
    options = {"held_out": images(10)}
    assert flaxapps.quantize(MODEL, VARIABLES, images(), agreement=0.5, **options).model == quantized.model
    exact = flaxapps.quantize(MODEL, VARIABLES, images(), largest_change=1e-7, **options)
    assert not list(int8_layers(exact.model))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"largest_change": 0.1}, "give them as held_out"),
        ({"agreement": 1.1, "held_out": images()}, "agreement should be from 0 to 1, got 1.1"),
        ({"agreement": 1.0, "held_out": images(3, 11)}, r"takes arrays of shape"),
    ],
)
def test_wrong_bounds(options, problem):
    with pytest.raises(ValueError, match=problem):
        flaxapps.quantize(MODEL, VARIABLES, images(), **options)


def test_models_that_cannot_be_quantized(quantized):
    with pytest.raises(ValueError, match="is quantized or optimized already"):
        flaxapps.quantize(*quantized, images())
    x = Input((12, 12, 3))
    small = Model(x, layers.Conv2D(4, 3)(x), name="small")
    with pytest.raises(ValueError, match="small has no layer to quantize"):
        flaxapps.quantize(small, small.init_variables(), images())
    two = Model([x, Input((3,))], x)
    with pytest.raises(ValueError, match="several inputs"):
        flaxapps.quantize(two, {}, images())


def test_compile_and_export_compute_the_same(quantized, tmp_path):
    x = images(4)
    expected = flaxapps.predict(*quantized, x)
    compiled = flaxapps.compile(*flaxapps.optimize(*quantized), 4)
    np.testing.assert_allclose(compiled(x), expected, rtol=0, atol=1e-3)
    for weights in ("inside", "beside"):
        path = tmp_path / f"{weights}.stablehlo"
        flaxapps.export(*quantized, path, weights=weights)
        np.testing.assert_allclose(flaxapps.load_exported(path)(x), expected, rtol=0, atol=1e-3)
    with np.load(tmp_path / "beside.npz") as arrays:
        assert arrays["params/conv/kernel"].dtype == np.int8


OLD_PROCESSOR = """
import sys
import numpy as np
import flaxapps
network = flaxapps.load_model(sys.argv[1])
np.save(sys.argv[2], flaxapps.predict(*network, np.load(sys.argv[3])))
"""


@pytest.mark.slow
def test_a_processor_without_vector_instructions(quantized, tmp_path):
    """XLA's own code is limited to SSE; its libraries choose by the processor."""
    flaxapps.save_model(*quantized, tmp_path / "model.npz")
    np.save(tmp_path / "images.npy", images(4))
    files = [str(tmp_path / name) for name in ("model.npz", "outputs.npy", "images.npy")]
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2 --xla_cpu_use_xnnpack=false"}
    subprocess.run([sys.executable, "-c", OLD_PROCESSOR, *files], check=True, env=environment, timeout=300)
    expected = flaxapps.predict(*quantized, images(4))
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "resnet50", "xception"])
def test_networks(name):
    model = build_model(name, include_top=False, input_shape=(96, 96, 3), min_size=96, pooling="avg")
    variables = recipe_variables(model)
    x = np.random.default_rng(0).normal(size=(12, 96, 96, 3)).astype("f4")
    quantized = flaxapps.quantize(Model(model.inputs, model.outputs, name="features"), variables, x[:8])
    exact, rounded = (flaxapps.predict(*network, x[8:]) for network in ((model, variables), quantized))
    noise = 10 * np.log10((exact**2).sum() / ((exact - rounded) ** 2).sum())
    assert 20 < noise < 60
    convolutions = sum(layer.class_name in ("Conv2D", "SeparableConv2D") for layer in model.layers)
    assert len({name.removesuffix("_depthwise") for name in int8_layers(quantized.model)}) >= convolutions - 1


@pytest.mark.real
@pytest.mark.slow
def test_the_real_xception_agrees_on_all_photos(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    data = demo.fetch_demo()
    model, variables = flaxapps.load_model(data.model)
    photos = np.concatenate([batch for _, batch in read_photos(data.photos, photo_format(model))])
    quantized = flaxapps.quantize(model, variables, photos[::2], preprocess=True)
    exact, rounded = (
        flaxapps.predict(*network, photos, preprocess=True) for network in ((model, variables), quantized)
    )
    assert (exact.argmax(1) == rounded.argmax(1)).sum() == 18
    assert abs(exact - rounded).max() < 0.06 * (exact.max() - exact.min())
