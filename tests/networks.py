"""What the batteries over the networks share: which networks, and Keras's side."""

import importlib
import json
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
from tests.places import GOLDEN
from tests.quick_programs import OPTIONS
from tests.recipe import CLASSIC, HEADS, gain, recipe_name, weight

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


def all_layers(layers: Iterable[LayerInGraph]) -> Iterator[Any]:
    """The layers of a model and of those inside it."""
    for each in layers:
        yield each.layer
        if isinstance(each.layer, Functional):
            yield from all_layers(each.layer.graph.layers)


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
    """Keras compiles a random generator for every shape of weights, for nothing where they are overwritten.

    Arrays of NumPy as they are would be compiled too, a program for every shape.
    """
    from keras.src.initializers.random_initializers import RandomInitializer

    with ExitStack() as stack:
        for kind in RandomInitializer.__subclasses__():
            stack.enter_context(
                mock.patch.object(
                    kind, "__call__", lambda self, shape, dtype=None: jax.device_put(np.zeros(shape, "f4"))
                )
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


def keras_layer_outputs(network: Any, images: np.ndarray) -> Any:
    """The output of every layer of a Keras network."""
    import keras

    everything = keras.Model(network.input, [layer.output for layer in network.layers])
    trained = [variable.value for variable in everything.trainable_variables]
    others = [variable.value for variable in everything.non_trainable_variables]
    with jax.numpy_dtype_promotion("standard"):
        return compiled(lambda *a: everything.stateless_call(*a, training=False)[0], trained, others, images)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs once, so that compiling it well does not pay."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True, **OPTIONS}
    return jax.device_get(jax.jit(function).lower(*arguments).compile(options)(*arguments))
