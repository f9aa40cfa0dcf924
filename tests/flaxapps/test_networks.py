"""Names, order, shapes and counts of every network, against what Keras 2.0.4 and 3.15.1 say."""

import re

import pytest

import flaxapps
from flaxapps.registry import build_model
from tests.networks import NETWORKS, VARIANTS, golden_layers

COUNTS = {  # layers and parameters, with and without classifier
    "xception": (134, 22_910_480, 132, 20_861_480),
    "vgg16": (23, 138_357_544, 19, 14_714_688),
    "vgg19": (26, 143_667_240, 22, 20_024_384),
    "resnet50": (177, 25_636_712, 175, 23_587_712),
    "inception_v3": (313, 23_851_784, 311, 21_802_784),
}


def build(name, include_top, variant=""):
    size = flaxapps.model_info(name).default_size
    return build_model(name, variant=variant, include_top=include_top, input_shape=(size, size, 3))


def table(model):
    return [
        [layer.name, layer.class_name, list(layer.output_shape), [list(each.shape) for each in layer.weights.values()]]
        for layer in model.layers
    ]


def shapes_only(rows):
    return [[name, kind, shape, [shape for _, shape in weights]] for name, kind, shape, weights in rows]


def fresh_session_name(name, kind):
    """Keras 2 counts from 1 (conv2d_1), Keras 3 starts bare (conv2d)."""
    automatic = "input|conv2d|batch_normalization|activation|add|concatenate|\\w*pooling2d|zero_padding2d|flatten"
    found = re.fullmatch(rf"({automatic})_(\d+)", name)
    if not found:
        return name
    base = "input_layer" if kind == "InputLayer" else found[1]
    return base if found[2] == "1" else f"{base}_{int(found[2]) - 1}"


@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_those_of_keras_3(name, include_top):
    model = build(name, include_top)
    assert table(model) == shapes_only(golden_layers("keras_3_15_1")[f"{name}_{'top' if include_top else 'notop'}"])
    layers, parameters = COUNTS[name][:2] if include_top else COUNTS[name][2:]
    assert (len(model.layers), model.count_params()) == (layers, parameters)


@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize(("name", "variant"), [entry for entry in VARIANTS if entry != ("resnet50", "")])
def test_layers_are_those_of_keras_2(name, variant, include_top):
    rows = golden_layers("keras_2_0_4")[f"{name}_{'top' if include_top else 'notop'}"]
    expected = [[fresh_session_name(row[0], row[1]), *row[1:]] for row in shapes_only(rows)]
    assert table(build(name, include_top, variant)) == expected


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("name", NETWORKS)
def test_pooling_layer_has_kerass_name(name, pooling):
    model = build_model(name, include_top=False, pooling=pooling)
    expected = {"avg": "global_average_pooling2d", "max": "global_max_pooling2d"}[pooling]
    if name == "resnet50":
        expected = f"{pooling}_pool"
    assert model.layers[-1].name == expected
    assert len(model.output_shape) == 2


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_two_builds_are_one_static_description(name, variant):
    first, second = build(name, True, variant), build(name, True, variant)
    assert first == second
    assert hash(first) == hash(second)
    assert first != build(name, False, variant)


def test_freeze_indices_of_inception_v3():
    layers = build("inception_v3", True).layers
    concatenations = {layer.name: index for index, layer in enumerate(layers) if layer.class_name == "Concatenate"}
    mixed = [concatenations[f"mixed{number}"] for number in range(11)]
    assert mixed == [40, 63, 86, 100, 132, 164, 196, 228, 248, 279, 310]
    assert concatenations["mixed9_0"] == 276
    assert sum(layer.class_name == "Conv2D" for layer in layers[:172]) == 53
    assert sum(layer.class_name == "Conv2D" for layer in layers[:249]) == 76
