"""The arguments of every network: Keras's, in Keras's order, and documented."""

import inspect
import re

import pytest

import flaxapps
from flaxapps.registry import APPLICATIONS, build_model

SHARED = inspect.signature(flaxapps.VGG16).parameters
over_functions = pytest.mark.parametrize("function", APPLICATIONS, ids=lambda each: each.info.name)


@over_functions
def test_positional_arguments_are_those_of_keras(function):
    import keras

    theirs = inspect.signature(getattr(keras.applications, function.info.function)).parameters.values()
    ours = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.KEYWORD_ONLY]
    assert [each.name for each in ours] == [each.name for each in theirs]
    # Keras has the names of models here, we have them in `ModelInfo`.
    defaults = [(each.name, each.default) for each in theirs if each.name != "name"]
    assert [(each.name, each.default) for each in ours if each.name != "name"] == defaults


@over_functions
def test_every_network_has_the_shared_arguments_and_documents_all(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in SHARED} == {name: each.default for name, each in SHARED.items()}
    assert re.findall(r"^    (\w+): ", function.__doc__.partition("Returns:")[0], re.MULTILINE) == list(parameters)


def test_layers_of_a_convnext_have_the_name_of_the_model():
    import keras

    keras.backend.clear_session()
    arguments = {"weights": None, "name": "mine", "input_shape": (32, 32, 3), "classes": 2}
    theirs = keras.applications.ConvNeXtTiny(**arguments)
    ours = build_model("convnext_tiny", **arguments)
    assert ours.name == theirs.name
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    with pytest.raises(ValueError, match='Model name "mine" does not match weights variant "convnext_tiny"'):
        flaxapps.get_model("convnext_tiny", weights="imagenet", name="mine")
