"""What the batteries over the networks share: the networks, deterministic weights, and Keras's side."""

import importlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps.graph.graph import LayerInGraph
from flaxapps.layers import Functional
from tests.golden.recipe import image as recipe_image
from tests.golden.recipe import weight as recipe_weight
from tests.places import GOLDEN
from weight_port.layout import layer_targets

CLASSIC = ("xception", "vgg16", "vgg19", "resnet50", "inception_v3")  # those of Keras 2.0
FAMILIES: dict[str, list[str]] = {}  # names of the networks of each module, the smallest first
for _name in sorted(flaxapps.list_models(), key=lambda name: flaxapps.model_info(name).parameters):
    FAMILIES.setdefault(flaxapps.model_info(_name).module, []).append(_name)
# One network of every other family is compared in all respects, in the slow tests.
HEADS = [names[0] for names in FAMILIES.values() if not set(names) & set(CLASSIC)]
NETWORKS = [*CLASSIC, *(pytest.param(name, marks=pytest.mark.slow) for name in HEADS)]
# Those with another number or other sizes of the same blocks: their layers and their outputs only.
LARGER = [name for name in flaxapps.list_models() if name not in (*CLASSIC, *HEADS)]
EVERY_NETWORK = [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]
VARIANTS = [
    *((name, "") for name in CLASSIC),
    ("resnet50", "keras2"),
    *(pytest.param(name, "", marks=pytest.mark.slow) for name in HEADS),
]
INFOS = [flaxapps.model_info(name) for name in flaxapps.list_models()]
SEED = 7
# Factors of the recipe's scales of BatchNormalization inside the branches of blocks. After many swish and sigmoid
# functions, which halve a small signal, nothing of the image would be left at the end of these networks.
# The deeper ones need less: with more, rounding grows a thousandfold on its way to the end.
GAINS = {
    **{"efficientnetb4": 2.25, "efficientnetb6": 2.15, "efficientnetb7": 2.15, "efficientnetb": 2.5},
    **{"efficientnetv2m": 1.6, "efficientnetv2l": 1.6, "efficientnetv2": 2.0},
    **{"mobilenetv3": 2.5, "mobilenet": 1.5},
}
LARGE = 262_139  # values; a prime, so that no two rows of a large kernel are equal


@cache
def golden_layers(version: str) -> dict[str, Any]:
    """The tables of names, classes, shapes and weights of an old Keras version."""
    return json.loads((GOLDEN / version / "layers.json").read_text())


def keras_layers(name: str, include_top: bool) -> list[list[Any]]:
    """Names, classes, output shapes and weights (path, shape) of the layers of a network in the installed Keras."""
    return keras_model(name, include_top)[1]


@cache
def keras_model(name: str, include_top: bool) -> tuple[str, list[list[Any]]]:
    """The name of a network in the installed Keras, for images of the default size, and its `keras_layers`."""
    import keras

    keras.backend.clear_session()
    info = flaxapps.model_info(name)
    with zero_initial_weights():
        network = getattr(keras.applications, info.function)(
            weights=None, include_top=include_top, input_shape=(info.default_size, info.default_size, 3)
        )
    return network.name, [
        [
            layer.name,
            type(layer).__name__,
            list(layer.output.shape),
            [[weight.path, list(weight.shape)] for weight in layer.weights],
        ]
        for layer in network.layers
    ]


def weight(layer: int, number: int, name: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """An array by the recipe. Drawing takes most of the time of a large network, so large kernels repeat one draw."""
    if math.prod(shape) <= LARGE:
        return recipe_weight(seed, layer, number, name, shape)
    drawn = np.random.default_rng((seed, layer, number)).normal(0, math.sqrt(2 / math.prod(shape[:-1])), LARGE)
    return np.resize(drawn.astype("f4"), shape)


def recipe_name(kind: str, path: str) -> str:
    """The name of a variable for the recipe, of the layer's class and the variable's path in Keras 3.

    Keras 3 does not say that kernels are depthwise, and gives the factors of LayerScale no name.
    """
    name = path.rpartition("/")[2]
    if kind == "DepthwiseConv2D" and name == "kernel":
        return "depthwise_kernel"
    return "gamma" if kind == "LayerScale" else name


def gain(network: str | None, layer: str, variable: str) -> np.float32:
    """The factor of a variable ("gamma") of a layer in a network of these names."""
    spelling = re.sub("[-_]", "", network or "").lower()  # Keras's names of MobileNets are not ours
    factor = next((value for start, value in GAINS.items() if spelling.startswith(start)), 1.0)
    return np.float32(factor if variable.endswith("gamma") and not layer.endswith("project_bn") else 1.0)


def layer_arrays(
    layer: LayerInGraph, index: int, seed: int = SEED, network: str | None = None
) -> list[tuple[Any, np.ndarray]]:
    """The arrays of one layer by the recipe, in Keras's order, each with where it goes."""
    return [
        (
            target,
            weight(index, number, recipe_name(target.class_name, target.variable), target.shape, seed)
            * gain(network, layer.name, target.variable),
        )
        for number, target in enumerate(layer_targets(layer))
    ]


def all_layers(layers: Iterable[LayerInGraph]) -> Iterator[Any]:
    """The layers of a model and of those inside it."""
    for each in layers:
        yield each.layer
        if isinstance(each.layer, Functional):
            yield from all_layers(each.layer.graph.layers)


def recipe_variables(model: flaxapps.Model, seed: int = SEED) -> dict[str, Any]:
    """Variables of a model by the recipe: kernels of Keras's scale, BatchNormalization statistics away from 0 and 1."""
    tree: dict[str, Any] = {}
    for index, layer in enumerate(model.layers):
        for target, array in layer_arrays(layer, index, seed, model.name):
            branch = tree
            for key in target.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[target.path[-1]] = array
    return tree


def images_for(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Images as a network takes them: preprocessed, or with values 0 to 255 if it scales them itself."""
    images = recipe_image(seed, shape)
    return np.clip(images * 50 + 128, 0, 255) if flaxapps.model_info(name).preprocessing == "none" else images


@contextmanager
def keras_without_layers(name: str) -> Iterator[tuple[Any, mock.Mock]]:
    """The function of a network in Keras, with layers that cost nothing, and what stands in for its `get_file`."""
    import keras

    build = getattr(keras.applications, flaxapps.model_info(name).function)
    module = importlib.import_module(build.__module__)
    modules = {module, importlib.import_module("keras.src.applications.resnet")}
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # on sizes that weights are not published for
        get_file = stack.enter_context(mock.patch.object(keras.src.utils.file_utils, "get_file"))
        stack.enter_context(mock.patch.object(keras.src.applications.imagenet_utils, "correct_pad"))
        for each in modules:
            for part in ("layers", "Functional", "Sequential", "StochasticDepth", "LayerScale", "CustomScaleLayer"):
                if hasattr(each, part):
                    stack.enter_context(mock.patch.object(each, part, mock.MagicMock()))
        for rounding in ("_depth", "_make_divisible"):  # numbers of channels are mocks too
            if hasattr(module, rounding):
                stack.enter_context(mock.patch.object(module, rounding))
        yield build, get_file


def fresh_keras() -> Any:
    """Keras, where the automatic names of layers begin anew.

    Without Keras's own collection of garbage, which takes 0.6 s in a process that has compiled thousands of programs.
    """
    import keras

    keras.backend.clear_session(free_memory=False)
    return keras


@contextmanager
def zero_initial_weights() -> Iterator[None]:
    """Keras compiles a random generator for every shape of weights, for nothing where they are overwritten."""
    from keras.src.initializers.random_initializers import RandomInitializer

    with ExitStack() as stack:
        for kind in RandomInitializer.__subclasses__():
            stack.enter_context(
                mock.patch.object(kind, "__call__", lambda self, shape, dtype=None: np.zeros(shape, "f4"))
            )
        yield


def keras_network(name: str, **arguments: Any) -> Any:
    """The network of real Keras with the weights of the recipe."""
    import keras

    keras.backend.clear_session()
    info = flaxapps.model_info(name)
    with zero_initial_weights():
        network = getattr(keras.applications, info.function)(weights=None, **arguments)
    for index, layer in enumerate(network.layers):
        layer.set_weights(
            [
                weight(index, number, recipe_name(type(layer).__name__, each.path), each.shape)
                * gain(name, layer.name, each.path)
                for number, each in enumerate(layer.weights)
            ]
        )
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # its statistics are read from the weights now, as after loading a file
    return network


def keras_layer_outputs(network: Any, images: np.ndarray) -> list[np.ndarray]:
    """The output of every layer of a Keras network."""
    import keras

    everything = keras.Model(network.input, [layer.output for layer in network.layers])
    trained = [variable.value for variable in everything.trainable_variables]
    others = [variable.value for variable in everything.non_trainable_variables]
    with jax.numpy_dtype_promotion("standard"):
        outputs = jax.jit(lambda *a: everything.stateless_call(*a, training=False)[0])(trained, others, images)
    return jax.device_get(outputs)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs once, so that compiling it well does not pay."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.device_get(jax.jit(function).lower(*arguments).compile(options)(*arguments))


def relative_difference(ours: Any, theirs: Any) -> float:
    """max |difference| / max |theirs|."""
    assert np.shape(ours) == np.shape(theirs)
    return float(np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs)))
