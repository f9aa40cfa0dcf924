"""The published files of every network are those that the installed Keras would fetch."""

import contextlib
import inspect
from unittest import mock

import pytest

import flaxapps
import weight_port
from flaxapps.registry import build_model, get_application
from tests.networks import keras_without_layers
from weight_port.published import PUBLISHED_FILES, PublishedFile, published_file


def arguments(file: PublishedFile) -> dict[str, object]:
    """The arguments of the network's function that this file is for."""
    given: dict[str, object] = {"include_top": file.include_top}
    for part in filter(None, file.variant.split("_")):  # such as "0.75_160" and "minimalistic_1.0"
        if part == "minimalistic":
            given["minimalistic"] = True
        elif "." in part:
            given["alpha"] = float(part)
        else:
            given["input_shape"] = (int(part), int(part), 3)
    return given


@pytest.mark.parametrize("file", PUBLISHED_FILES, ids=lambda file: file.filename)
def test_files_are_those_of_keras(file: PublishedFile) -> None:
    if file.superseded:
        pytest.skip("of an older Keras")
    with keras_without_layers(file.network) as (build, get_file):
        build(weights="imagenet", **arguments(file))
    (call,) = get_file.call_args_list
    name, url = call.args
    assert (file.filename, file.url) == (name, url)
    assert next(iter(file.hashes.values()), None) == call.kwargs.get("file_hash")


def test_networks_have_files() -> None:
    assert {file.network for file in PUBLISHED_FILES} == set(flaxapps.list_models())


WITH_WIDTH = [name for name in flaxapps.list_models() if "alpha" in inspect.signature(get_application(name)).parameters]
SIZES = [None, (160, 160), (100, 160), (100, 100), (None, None)]


@pytest.mark.filterwarnings("ignore:The weights of")
@pytest.mark.parametrize("include_top", [True, False], ids=["top", "notop"])
@pytest.mark.parametrize("tensor", [True, False], ids=["tensor", "shape"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WITH_WIDTH)
def test_the_file_for_a_size_is_that_of_keras(name, size, tensor, include_top, monkeypatch):
    """Given as `input_shape`, or as the shape of `input_tensor`; what one refuses, the other refuses too."""
    import keras

    fetch = mock.Mock(side_effect=LookupError)
    monkeypatch.setattr(weight_port, "fetch", fetch)
    shape = size and (*size, 3)
    if tensor and shape is None:
        return
    common = {"weights": "imagenet", "include_top": include_top}
    with keras_without_layers(name) as (build, get_file), contextlib.suppress(ValueError):
        build(**common, **({"input_tensor": keras.Input(shape)} if tensor else {"input_shape": shape}))
    given = {"input_tensor": flaxapps.Input(shape)} if tensor else {"input_shape": shape}
    if not get_file.called:
        with pytest.raises(ValueError, match="input_shape"):
            get_application(name)(**common, **given)
        return
    with pytest.raises(LookupError):
        get_application(name)(**common, **given)
    ours = published_file(*fetch.call_args.args, include_top, fetch.call_args.kwargs["variant"])
    assert ours.filename == get_file.call_args.args[0]


@pytest.mark.parametrize("name", WITH_WIDTH)
def test_other_widths_are_not_published(name):
    """Keras's errors, in our words."""
    wrong = [{"alpha": 0.6}, {"alpha": 2}]
    parameters = inspect.signature(get_application(name)).parameters
    wrong += [{"depth_multiplier": 2}] if "depth_multiplier" in parameters else []
    wrong += [{"minimalistic": True, "alpha": 0.75}] if "minimalistic" in parameters else []
    for arguments in wrong:
        with keras_without_layers(name) as (build, get_file):
            for function in (build, get_application(name)):
                words = f"If imagenet weights are being loaded, {list(arguments)[-1].replace('_', ' ')} "
                with pytest.raises(ValueError, match=words):
                    function(weights="imagenet", **arguments)
        assert not get_file.called


def test_other_sizes_are_said():
    with pytest.warns(
        UserWarning, match="square images of 128, 160, 192, 224 pixels, not for 100 x 160. Those for 224"
    ):
        build_model("mobilenet", weights="imagenet", include_top=False, input_shape=(100, 160, 3))
    with pytest.raises(ValueError, match=r"size of `input_tensor`, 64 x 64\.  Received: 64 x 96"):
        build_model("mobilenet_v2", input_tensor=flaxapps.Input((64, 64, 3)), input_shape=(64, 96, 3))
