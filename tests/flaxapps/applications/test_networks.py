"""Names, order, shapes and counts of every network, against what Keras 2.0.4 and 3.15.1 say."""

import re
import sys

import pytest

import flaxapps
from flaxapps.registry import build_model
from tests.networks import LARGER, VARIANTS, golden_layers, keras_layers, keras_model, keras_without_layers
from tests.recipe import CLASSIC, HEADS
from weight_port.layout import layer_targets


def build(name, include_top, variant=""):
    size = flaxapps.model_info(name).default_size
    return build_model(name, variant=variant, include_top=include_top, input_shape=(size, size, 3))


def table(model):
    return [
        [layer.name, layer.class_name, list(layer.output_shape), [list(each.shape) for each in layer_targets(layer)]]
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


@pytest.mark.parametrize(
    ("name", "include_top"),
    [
        *((name, True) for name in (*CLASSIC, *HEADS)),
        *((name, False) for name in CLASSIC),
        *(pytest.param(name, top, marks=pytest.mark.slow) for name in LARGER for top in (True, False)),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in HEADS),
    ],
)
def test_layers_are_those_of_keras_3(name, include_top):
    model = build(name, include_top)
    assert table(model) == shapes_only(keras_layers(name, include_top))
    assert model.name == keras_model(name, include_top)[0]
    assert not include_top or model.count_params() == flaxapps.model_info(name).parameters


@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize(("name", "variant"), [(name, "keras2" if name == "resnet50" else "") for name in CLASSIC])
def test_layers_are_those_of_keras_2(name, variant, include_top):
    rows = golden_layers("keras_2_0_4")[f"{name}_{'top' if include_top else 'notop'}"]
    expected = [[fresh_session_name(row[0], row[1]), *row[1:]] for row in shapes_only(rows)]
    assert table(build(name, include_top, variant)) == expected


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("name", [*CLASSIC, *HEADS])
def test_pooling_layer_has_kerass_name(name, pooling):
    kind = {"avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}[pooling]
    with keras_without_layers(name) as (build_in_keras, _):
        build_in_keras(weights=None, include_top=False, pooling=pooling)
        modules = {sys.modules[module] for module in (build_in_keras.__module__, "keras.src.applications.resnet")}
        used = [getattr(module.layers, kind).call_args_list for module in modules if hasattr(module, "layers")]
        (*_, call), *_ = filter(None, used)
    model = build_model(name, include_top=False, pooling=pooling)
    *_, layer = [layer for layer in model.layers if layer.class_name == kind]
    assert layer.name == call.kwargs.get("name", f"global_{'average' if pooling == 'avg' else pooling}_pooling2d")
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
