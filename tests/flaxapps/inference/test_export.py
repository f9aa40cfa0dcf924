"""export and load_exported: what is written computes the same, anywhere, and without flaxapps."""

import re
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, export, layers, load_exported
from flaxapps.inference import export as stablehlo
from flaxapps.registry import build_model
from tests.networks import NETWORKS, all_layers
from weight_port import WeightError
from weight_port.trees import save_npz

SHAPE = (8, 7, 3)
PLATFORMS = ("cpu", "cuda", "tpu")


def small(shape=SHAPE):
    """A convolution of every lowering that depends on the platform, pooling, and a dense layer."""
    image = Input(shape)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = layers.MaxPooling2D(2, name="pool")(layers.Conv2D(4, 1, name="pointwise")(x))
    return Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="mean")(x)), name="small")


MODEL = small()
VARIABLES = MODEL.init_variables()
APPLY = jax.jit(MODEL.apply)  # operation by operation there are thirty programs to compile for every batch
CONVOLUTIONS = 4  # the separable one is two


def photos(count, dtype="float32"):
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE)).astype(dtype)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", ["inside", "beside"])
def test_any_batch_computes_the_same(weights, tmp_path):
    path = tmp_path / "small.stablehlo"
    export(MODEL, VARIABLES, path, weights=weights)
    network = load_exported(path)
    assert network.lowered.platforms == PLATFORMS
    assert [(str(each.dtype), str(each.shape)) for each in network.inputs] == [("float32", "(batch, 8, 7, 3)")]
    assert sorted(file.name for file in tmp_path.iterdir()) == (
        ["small.npz", "small.stablehlo"] if weights == "beside" else ["small.stablehlo"]
    )
    for count in (1, 2, 5):
        assert_close(network(photos(count)), APPLY(VARIABLES, photos(count)))


def test_weights_beside_can_be_replaced(tmp_path):
    export(MODEL, VARIABLES, tmp_path / "small.stablehlo", weights="beside")
    other = MODEL.init_variables(seed=1)
    save_npz(tmp_path / "small.npz", other)
    assert_close(load_exported(tmp_path / "small.stablehlo")(photos(2)), APPLY(other, photos(2)))
    save_npz(tmp_path / "small.npz", {"params": {"conv": other["params"]["conv"]}})
    with pytest.raises(WeightError, match="params/head/kernel"):
        load_exported(tmp_path / "small.stablehlo")


def test_half_precision_weights_beside(tmp_path):
    halves = jax.tree.map(lambda array: array.astype(jnp.bfloat16), VARIABLES)
    export(MODEL, halves, tmp_path / "small.stablehlo", weights="beside")
    network = load_exported(tmp_path / "small.stablehlo")
    assert {array.dtype for array in network.weights[0].values()} == {jnp.dtype(jnp.bfloat16)}
    assert_close(network(photos(2)), APPLY(halves, photos(2)))


def test_preprocessing_and_dtype(tmp_path):
    export(MODEL, VARIABLES, tmp_path / "small", dtype="uint8", preprocess="tf")
    output = load_exported(tmp_path / "small")(photos(3, "uint8"))
    assert_close(output, APPLY(VARIABLES, photos(3) / np.float32(127.5) - 1))


def test_several_inputs_and_outputs(tmp_path):
    first, second = Input((4,)), Input((3,))
    model = Model([first, second], [layers.Concatenate()([second, first]), first])
    arrays = [np.ones((2, 4), np.float32), np.zeros((2, 3), np.float32)]
    export(model, {}, tmp_path / "pair.stablehlo")
    outputs = load_exported(tmp_path / "pair.stablehlo")(arrays)
    for output, expected in zip(outputs, model.apply({}, arrays), strict=True):
        np.testing.assert_array_equal(output, expected)


CONSUMER = """
import pathlib, sys
sys.modules["flaxapps"] = sys.modules["weight_port"] = sys.modules["flax"] = None  # importing them fails
import jax, jax.export, numpy
network = jax.export.deserialize(bytearray(pathlib.Path("small.stablehlo").read_bytes()))
photos = numpy.load("photos.npy")
weights = [dict(numpy.load("small.npz"))] if pathlib.Path("small.npz").exists() else []
numpy.save("scores.npy", jax.jit(network.call)(*weights, photos))
"""


@pytest.mark.parametrize("weights", ["inside", "beside"])
def test_it_runs_with_jax_alone(weights, tmp_path):
    """In an interpreter that cannot import flaxapps, in a folder without it."""
    export(MODEL, VARIABLES, tmp_path / "small.stablehlo", weights=weights)
    np.save(tmp_path / "photos.npy", photos(3))
    subprocess.run([sys.executable, "-P", "-c", CONSUMER], cwd=tmp_path, check=True)
    assert_close(np.load(tmp_path / "scores.npy"), APPLY(VARIABLES, photos(3)))


def lowered_for(model, variables, platforms, path):
    export(model, variables, path, platforms=platforms, weights="beside")
    return jax.export.deserialize(bytearray(path.read_bytes())).mlir_module()


def count(operation, module):
    return len(re.findall(rf"stablehlo\.{operation}\b", module))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_convolutions(platform, tmp_path):
    module = lowered_for(MODEL, VARIABLES, [platform], tmp_path / "small.stablehlo")
    assert count("convolution", module) == CONVOLUTIONS
    assert count("reduce_window", module) == 1
    assert count("optimization_barrier", module) == 0
    on_cpu = lowered_for(MODEL, VARIABLES, ["cpu"], tmp_path / "small.stablehlo")
    assert count("convolution", on_cpu) == 1
    assert count("reduce_window", on_cpu) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_lowers_for_every_platform(name, tmp_path):
    """Folded, in one file for all; not folded, for each: a convolution stays one where there is hardware for it."""
    size = flaxapps.model_info(name).default_size
    model = build_model(name, input_shape=(size, size, 3))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(model.init_variables))
    kinds = [layer.class_name for layer in all_layers(model.graph.layers)]
    convolutions = kinds.count("Conv2D") + kinds.count("DepthwiseConv2D") + 2 * kinds.count("SeparableConv2D")
    path = tmp_path / "network.stablehlo"
    folded = flaxapps.fold_batch_norm(model, variables)
    assert count("convolution", lowered_for(*folded, PLATFORMS, path)) >= convolutions
    for platform in ("cuda", "tpu"):
        assert count("convolution", lowered_for(model, variables, [platform], path)) == convolutions


def test_arguments_are_checked(tmp_path):
    path = tmp_path / "small.stablehlo"
    for options, words in (
        ({"platforms": ["cpu", "gpu"]}, "some of cpu, cuda, rocm, tpu, got gpu"),
        ({"platforms": []}, "got none"),
        ({"weights": "none"}, "'inside' or 'beside', got 'none'"),
        ({"input_shape": (8, 8, 3)}, r"should fit \(8, 7, 3\), got \(8, 8, 3\)"),
        ({"preprocess": True}, "preprocess=True"),
    ):
        with pytest.raises(ValueError, match=words):
            export(MODEL, VARIABLES, path, **options)
    with pytest.raises(ValueError, match="take the name of the file"):
        export(MODEL, VARIABLES, tmp_path / "small.npz", weights="beside")
    assert not [*tmp_path.iterdir()]


def test_arrays_are_checked(tmp_path):
    export(MODEL, VARIABLES, tmp_path / "small.stablehlo")
    network = load_exported(tmp_path / "small.stablehlo")
    for x in (photos(2, "uint8"), photos(2)[0], photos(2)[:, 1:], [photos(2), photos(2)]):
        with pytest.raises(ValueError, match=r"takes float32\(batch, 8, 7, 3\), got"):
            network(x)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "small.stablehlo"
    for contents in (b"", b"StableHLO" * 100):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"small\.stablehlo is not a file of"):
            load_exported(path)
    export(MODEL, VARIABLES, path, platforms=["tpu"])
    with pytest.raises(ValueError, match="was exported for tpu; this is cpu"):
        load_exported(path)


def test_without_flatbuffers(tmp_path, monkeypatch):
    monkeypatch.setattr(stablehlo, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'flaxapps\[export\]'"):
        export(MODEL, VARIABLES, tmp_path / "small.stablehlo")
    with pytest.raises(ImportError, match="flatbuffers"):
        load_exported(tmp_path / "small.stablehlo")
