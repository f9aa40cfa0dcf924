"""What TPUs and GPUs would be given, told without having one: every network lowered from shapes, nothing allocated.

Each convolution should be a convolution there, each pooling a window, and none of the forms that are made for CPUs
(`flaxapps.ops.cpu_windows`, products in place of 1x1 convolutions, sums of blocks, barriers) should be left.
"""

import re
from collections import Counter
from functools import cache

import jax
import numpy as np
import optax
import pytest

from flaxapps import model_info, optimize, train
from flaxapps.graph.shapes import pair
from flaxapps.registry import build_model
from tests.networks import NETWORKS, all_layers
from tests.recipe import CLASSIC, HEADS

BATCH, CLASSES = 1, 1000  # of a single row too a dense layer is one product there
OPERATIONS = ("convolution", "dot_general", "reduce_window", "select_and_scatter", "optimization_barrier")
ADAM = optax.adam(1e-3)
DTYPES = pytest.mark.parametrize("dtype", [None, pytest.param("bfloat16", marks=pytest.mark.slow)])
# Forward the classic networks, backward two of them: a step takes 4 to 7 s to trace and lower.
BACKWARD = [
    name if name in ("resnet50", "vgg16") else pytest.param(name, marks=pytest.mark.slow) for name in (*CLASSIC, *HEADS)
]
PLATFORMS = [("tpu",), ("cuda",), ("tpu", "cuda")]


@cache
def network(name, dtype=None):
    size = model_info(name).min_size
    return build_model(name, input_shape=(size, size, 3), dtype=dtype)


def images_for(model):
    return jax.ShapeDtypeStruct((BATCH, *model.input_shape[1:]), "float32")


def inference(name, dtype):
    model = network(name, dtype)
    return jax.jit(model.apply).trace(jax.eval_shape(model.init_variables), images_for(model))


def training_step(name, dtype):
    """Every layer trains."""
    model = network(name, dtype)
    state = jax.eval_shape(lambda: train.create_state(model, model.init_variables(), ADAM))
    labels = jax.ShapeDtypeStruct((BATCH, CLASSES), "float32")
    options = {"objective": train.make_objective(model, "categorical_crossentropy"), "optimizer": ADAM}
    return train.train_step.trace(state, images_for(model), labels, **options)


def operations(traced, platforms):
    """How often each operation is there for each platform; a program for two holds the branches of both."""
    text = traced.lower(lowering_platforms=platforms).as_text()
    found = Counter(re.findall(r"stablehlo\.(\w+)", text))
    return {name: found[name] for name in OPERATIONS}


class Layers:
    """How many layers of each kind a model has."""

    def __init__(self, model):
        layers = list(all_layers(model.graph.layers))
        kinds = Counter(layer.class_name for layer in layers)
        self.convolutions = kinds["Conv2D"] + kinds["DepthwiseConv2D"] + 2 * kinds["SeparableConv2D"]
        self.dense, self.maxima, self.averages = kinds["Dense"], kinds["MaxPooling2D"], kinds["AveragePooling2D"]
        # "same" divides by the number of pixels that are there, which is a window over ones
        self.counts = sum(layer.padding == "same" for layer in layers if layer.class_name == "AveragePooling2D")


@DTYPES
@pytest.mark.parametrize("name", NETWORKS)
def test_inference(name, dtype):
    there, traced = Layers(network(name)), inference(name, dtype)
    for platforms in PLATFORMS:
        found = operations(traced, platforms)
        assert found["convolution"] == there.convolutions * len(platforms)
        assert found["dot_general"] == there.dense * len(platforms)
        assert found["reduce_window"] == there.maxima + there.averages + there.counts  # the default form is one branch
        assert found["optimization_barrier"] == found["select_and_scatter"] == 0
    on_cpu = operations(traced, ("cpu",))  # the counts tell the forms apart
    assert on_cpu["optimization_barrier"] > 0
    assert on_cpu["reduce_window"] == 0


@DTYPES
@pytest.mark.parametrize("name", BACKWARD)
def test_training_step(name, dtype):
    """Backward there are two more of every convolution and product, apart from the gradient of the images."""
    there, traced = Layers(network(name)), training_step(name, dtype)
    for platforms in PLATFORMS:
        found = operations(traced, platforms)
        assert found["convolution"] == (3 * there.convolutions - 1) * len(platforms)
        assert found["dot_general"] == 3 * there.dense * len(platforms)
        assert found["select_and_scatter"] == there.maxima * len(platforms)  # the gradient of a maximum
        assert found["reduce_window"] == there.maxima + 2 * there.averages + there.counts
        assert found["optimization_barrier"] == 0
    on_cpu = operations(traced, ("cpu",))
    assert on_cpu["optimization_barrier"] > 0
    assert on_cpu["select_and_scatter"] == 0


@pytest.mark.parametrize("mode", ["default", "fast"])
def test_an_optimized_network_keeps_its_convolutions(mode):
    """InceptionV3 has kernels of every shape that Winograd's products replace on CPUs."""
    plain = build_model("inception_v3", include_top=False, input_shape=(139, 139, 3))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(plain.init_variables))
    model, variables = optimize(plain, variables, mode, platform="tpu")
    kernels = {pair(layer.kernel_size) for layer in plain.layers if layer.class_name == "Conv2D"}
    assert kernels > {(3, 3), (5, 5), (1, 7), (7, 1)}
    traced = jax.jit(model.apply).trace(jax.eval_shape(lambda: variables), images_for(model))
    for platform in ("tpu", "cuda"):
        found = operations(traced, (platform,))
        assert found["convolution"] == Layers(plain).convolutions
        assert found["dot_general"] == found["optimization_barrier"] == 0
