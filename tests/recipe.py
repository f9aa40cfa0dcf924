"""Networks with deterministic arrays by the recipe of the golden files; needs no more than flaxapps itself."""

import math
import re
from typing import Any

import numpy as np

import flaxapps
from flaxapps.graph.graph import LayerInGraph
from tests.golden.recipe import image as recipe_image
from tests.golden.recipe import weight as recipe_weight
from weight_port.layout import layer_targets

CLASSIC = ("xception", "vgg16", "vgg19", "resnet50", "inception_v3")  # those of Keras 2.0
FAMILIES: dict[str, list[str]] = {}  # names of the networks of each module, the smallest first
for _name in sorted(flaxapps.list_models(), key=lambda name: flaxapps.model_info(name).parameters):
    FAMILIES.setdefault(flaxapps.model_info(_name).module, []).append(_name)
# One network of every other family is compared in all respects, in the slow tests.
HEADS = [names[0] for names in FAMILIES.values() if not set(names) & set(CLASSIC)]
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


def relative_difference(ours: Any, theirs: Any) -> float:
    """max |difference| / max |theirs|."""
    assert np.shape(ours) == np.shape(theirs)
    return float(np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs)))
