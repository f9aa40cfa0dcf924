"""Names of networks, in any spelling, and what is found by them."""

import importlib

import numpy as np
import pytest

import flaxapps
from flaxapps.inference.preprocessing import known_preprocessing
from flaxapps.registry import build_model, find_info, find_name, suggestion
from tests.networks import INFOS
from tests.recipe import relative_difference


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_every_spelling_is_understood(info):
    function = getattr(flaxapps, info.function)
    assert function.info is info
    for name in (info.name, info.function, info.function.lower(), info.name.replace("_", "-"), info.name.upper()):
        assert flaxapps.model_info(name) is info
    assert find_info((info.keras_name or info.name).format(alpha=0.5, rows=96)) is info


def test_paths_are_no_names():
    assert not any(map(find_name, ("./vgg16", "vgg16.h5", "folder/vgg16", "", "-")))


def test_suggestions():
    assert suggestion("mobilnet-v2") == " Did you mean 'mobilenet_v2'?"
    assert suggestion("ResNet51V2") == " Did you mean 'resnet50v2'?"
    assert suggestion("swin") == ""
    with pytest.raises(ValueError, match=r"No network is called 'DenseNet120'\. Did you mean 'densenet"):
        flaxapps.get_model("DenseNet120")


def test_patterns():
    assert flaxapps.list_models() == flaxapps.list_models("*") == [info.name for info in INFOS]
    assert flaxapps.list_models("MobileNetV*") == flaxapps.list_models("mobilenet_v*")
    assert flaxapps.list_models("resnet[15]*v2") == ["resnet50v2", "resnet101v2", "resnet152v2"]
    assert flaxapps.list_models("swin*") == []


@pytest.mark.parametrize(
    ("model_name", "network"),
    [
        ("mobilenet_1.00_224", "mobilenet"),
        ("mobilenet_0.25_None", "mobilenet"),
        ("mobilenetv2_1.40_96", "mobilenet_v2"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
        ("mobilenet_v3", None),
        ("resnet50v", None),
        ("model", None),
        (None, None),
    ],
)
def test_networks_of_models(model_name, network):
    found = find_info(model_name)
    assert (found and found.name) == network


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_each_module_preprocesses_and_decodes_as_keras(info):
    import keras

    ours = importlib.import_module(info.module)
    theirs = importlib.import_module(getattr(keras.applications, info.function).__module__)
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("f4")
    np.testing.assert_array_equal(ours.preprocess_input(images), theirs.preprocess_input(images.copy()))
    assert ours.decode_predictions is flaxapps.applications.imagenet_utils.decode_predictions


def test_preprocessing_of_networks_that_scale_their_images():
    """With the layer for it nothing is done before the network; without it, what the layer would do."""
    arguments = {"input_shape": (32, 32, 3), "include_top": False, "pooling": "avg"}
    whole = build_model("mobilenet_v3_small", **arguments)
    part = build_model("mobilenet_v3_small", include_preprocessing=False, **arguments)
    assert (known_preprocessing(whole), known_preprocessing(part)) == ({"none"}, {"tf"})
    variables = part.init_variables()
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("f4")
    scaled = flaxapps.predict(whole, variables, images)
    np.testing.assert_array_equal(flaxapps.predict(whole, variables, images, preprocess=True), scaled)
    given = flaxapps.predict(part, variables, images, preprocess=True)
    assert relative_difference(given, scaled) <= 1e-5
    inside = flaxapps.Model(node := flaxapps.Input((32, 32, 3)), flaxapps.layers.Dense(2)(part(node)))
    assert known_preprocessing(inside) == {"tf"}
