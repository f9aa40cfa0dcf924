"""What the batteries over the networks share: the networks, deterministic weights, and Keras's side."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

import flaxapps
from flaxapps.graph import LayerInGraph
from tests.golden.recipe import weight as recipe_weight
from weight_port.layout import layer_targets

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = flaxapps.list_models()
VARIANTS = [(name, "") for name in NETWORKS] + [("resnet50", "keras2")]
SEED = 7


@cache
def golden_layers(version: str) -> dict[str, Any]:
    """The tables of names, classes, shapes and weights of a Keras version."""
    return json.loads((GOLDEN / version / "layers.json").read_text())


def layer_arrays(layer: LayerInGraph, index: int, seed: int = SEED) -> list[tuple[Any, np.ndarray]]:
    """The arrays of one layer by the recipe, in Keras's order, each with where it goes."""
    return [
        (target, recipe_weight(seed, index, number, target.variable, target.shape))
        for number, target in enumerate(layer_targets(layer))
    ]


def recipe_variables(model: flaxapps.Model, seed: int = SEED) -> dict[str, Any]:
    """Variables of a model by the recipe: kernels of Keras's scale, BatchNormalization statistics away from 0 and 1."""
    tree: dict[str, Any] = {}
    for index, layer in enumerate(model.layers):
        for target, array in layer_arrays(layer, index, seed):
            branch = tree
            for key in target.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[target.path[-1]] = array
    return tree


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
            [recipe_weight(SEED, index, number, each.path, each.shape) for number, each in enumerate(layer.weights)]
        )
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


def relative_difference(ours: Any, theirs: Any) -> float:
    """max |difference| / max |theirs|."""
    assert np.shape(ours) == np.shape(theirs)
    return float(np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs)))
