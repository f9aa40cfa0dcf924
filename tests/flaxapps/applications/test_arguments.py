"""The rules that arguments of a network keep: Keras 3's, in Keras 3's words, before anything is built or fetched."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
import weight_port
from flaxapps import Input, Model, get_model, layers, model_info
from flaxapps.applications.imagenet_utils import MODES, preprocess_input
from flaxapps.inference.preprocessing import SCALING, known_preprocessing
from flaxapps.registry import build_model, find_info
from tests.networks import keras_without_layers
from tests.recipe import CLASSIC, HEADS

FLEXIBLE = [name for name in CLASSIC if model_info(name).channels_first]
over_networks = pytest.mark.parametrize("name", [*CLASSIC, *HEADS])


@pytest.fixture(autouse=True)
def nothing_is_fetched_or_made(monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("The arguments should have been refused, or no arrays be needed")

    monkeypatch.setattr(weight_port, "fetch", forbidden)
    monkeypatch.setattr(weight_port, "load_weights", forbidden)
    monkeypatch.setattr(Model, "init_variables", forbidden)


def refused(name, message, **arguments):
    """Both the function and the array-free builder refuse, before any layer is recorded."""
    for build in (build_model, get_model):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flaxapps.graph.graph.Call, "__init__", None)
            with pytest.raises(ValueError, match=message) as caught:
                build(name, **arguments)
    return str(caught.value)


def channels_first_in_keras_json(keras_home):
    (keras_home / "keras.json").write_text(json.dumps({"image_data_format": "channels_first"}))


# Against the words of real Keras

SAID_BY_KERAS = {
    "weights": {"weights": "foo"},
    "classes": {"weights": "imagenet", "classes": 10},
    "rank 2": {"weights": None, "include_top": False, "input_shape": (224, 224)},
    "rank 4": {"weights": None, "include_top": False, "input_shape": (1, 224, 224, 3)},
    "pretrained shape": {"weights": "imagenet", "input_shape": (250, 250, 3)},
    "pretrained free shape": {"weights": "imagenet", "input_shape": (None, None, 3)},
    "pretrained channels": {"weights": "imagenet", "include_top": False, "input_shape": (224, 224, 1)},
    "small height": {"weights": None, "include_top": False, "input_shape": (20, 224, 3)},
    "small width": {"weights": None, "include_top": True, "input_shape": (224, 20, 3)},
    "small beside free": {"weights": None, "include_top": False, "input_shape": (None, 20, 3)},
    "free with top": {"weights": None, "include_top": True, "input_shape": (None, None, 3)},
    "half free with top": {"weights": None, "include_top": True, "input_shape": (224, None, 3)},
}


@pytest.mark.parametrize("arguments", SAID_BY_KERAS.values(), ids=SAID_BY_KERAS)
@over_networks
def test_what_keras_refuses_is_refused_in_its_words(name, arguments):
    def words(message):
        # DenseNet says "`weights` as `"imagenet"`" where the others say "`weights='imagenet'`".
        message = message.replace("` as `", "=").replace("` as true", "=True`")
        return re.sub(r"[`'\"\s=]+", " ", message).rstrip("; .").replace(" ,", ",")

    info = model_info(name)
    with keras_without_layers(name) as (build, _):
        try:
            build(**arguments)
        except ValueError as error:
            said, _, received = str(error).replace(" Got: ", " Received: ").partition("Received")
        else:
            assert info.any_size  # Keras checks little here; layers and weights that do not fit fail later
            return
    ours = refused(name, r"\w", min_size=info.possible_size, **arguments)
    rank = len(arguments.get("input_shape", (1, 1, 1)))
    assert words(ours.partition("Received")[0]) == words(said) or (info.any_size and rank != 3)
    shape = re.search(r"input_shape=\(.*\)", received)
    assert shape is None or shape[0] in ours


# Weights, classes and the classifier


@pytest.mark.parametrize("weights", ["foo", "ImageNet", "missing/file.h5", ""])
@over_networks
def test_weights_are_none_imagenet_or_a_file(name, weights):
    message = (
        r"The `weights` argument should be either `None` \(random initialization\), 'imagenet' \(pre-training on "
        rf"ImageNet\), or the path to the weights file to be loaded.  Received: weights={weights}$"
    )
    refused(name, message, weights=weights)


def test_weights_may_be_a_path_object(tmp_path):
    file = tmp_path / "some.weights.h5"
    refused("xception", "or the path to the weights file", weights=file)
    file.touch()
    for path in (file, str(file)):
        assert build_model("xception", weights=path, classes=7).output_shape == (None, 7)


@pytest.mark.parametrize("classes", [1, 999, 1001])
@over_networks
def test_pretrained_classes_are_1000(name, classes):
    message = (
        r"If using `weights='imagenet'` with `include_top=True`, `classes` should be 1000.  "
        rf"Received classes={classes}$"
    )
    refused(name, message, weights="imagenet", classes=classes)
    size = model_info(name).default_size
    arguments = {"weights": "imagenet", "include_top": False, "input_shape": (size, size, 3)}
    assert build_model(name, **arguments, classes=classes) == build_model(name, **arguments)


@pytest.mark.parametrize("classes", [0, -1, 2.5, None, "10"])
@over_networks
def test_classes_are_counted(name, classes):
    refused(
        name, rf"positive number of classes.  Received classes={re.escape(str(classes))}", classes=classes, weights=None
    )


@pytest.mark.parametrize("classes", [1, 17])
@over_networks
def test_classes_of_a_fresh_classifier(name, classes):
    assert build_model(name, classes=classes).output_shape == (None, classes)


ONLY_SOFTMAX = (
    r"Only `None` and `softmax` activations are allowed for the `classifier_activation` argument when using pretrained "
    r"weights, with `include_top=True`; Received: classifier_activation="
)


@pytest.mark.parametrize("weights", ["imagenet", "file"])
@over_networks
def test_pretrained_activation_is_none_or_softmax(name, weights, tmp_path):
    if weights == "file":
        weights = str(tmp_path / "weights.h5")
        (tmp_path / "weights.h5").touch()
    shape = (model_info(name).default_size,) * 2 + (3,)
    for activation in ("relu", "sigmoid", jax.nn.relu):
        refused(name, ONLY_SOFTMAX, weights=weights, classifier_activation=activation)
        assert build_model(
            name, weights=weights, classifier_activation=activation, include_top=False, input_shape=shape
        )
    for activation in (None, "linear", "softmax"):
        model = build_model(name, weights=weights, classifier_activation=activation)
        assert model.layers[-1].activation == activation


@over_networks
def test_activation_of_a_fresh_classifier(name):
    assert build_model(name, classifier_activation="relu").layers[-1].activation == "relu"
    assert build_model(name, classifier_activation=jnp.sin).layers[-1].activation is jnp.sin


@over_networks
def test_unknown_activation(name):
    with pytest.raises(ValueError, match="activation 'swoosh'"):
        build_model(name, classifier_activation="swoosh")


@pytest.mark.parametrize("pooling", ["foo", "average", "AVG", 1, True, ""])
@pytest.mark.parametrize("include_top", [True, False])
@over_networks
def test_unknown_pooling(name, include_top, pooling):
    message = rf"`pooling` should be None, 'avg' or 'max'.  Received: pooling={pooling}$"
    refused(name, message, include_top=include_top, pooling=pooling, weights=None)


@over_networks
def test_pooling_makes_vectors_and_with_the_classifier_does_nothing(name):
    for pooling in ("avg", "max"):
        shape = build_model(name, include_top=False, pooling=pooling).output_shape
        assert shape == (None, build_model(name, include_top=False).output_shape[-1])
        assert build_model(name, pooling=pooling) == build_model(name)


# Image shape


@over_networks
def test_the_smallest_size_is_the_documented_one(name):
    size = model_info(name).min_size
    assert model_info(name).min_size == size
    for shape in [(size, size, 3), (size, None, 3), (None, size + 1, 3)][: 3 if model_info(name).free_size else 1]:
        assert build_model(name, include_top=False, input_shape=shape).input_shape == (None, *shape)
    for shape in [(size - 1, size, 3), (size, size - 1, 3), (None, size - 1, 3), (0, size, 3)]:
        message = refused(
            name,
            f"Input size must be at least {size}x{size}; Received: ",
            input_shape=shape,
            include_top=False,
            weights=None,
        )
        assert f"input_shape={shape}" in message
        assert f"`min_size=` lowers this check, to {model_info(name).possible_size}" in message


@over_networks
def test_min_size_lowers_the_check_to_what_the_layers_allow(name):
    size = model_info(name).possible_size
    shape = (size, size, 3)
    model = build_model(name, include_top=False, input_shape=shape, min_size=size)
    assert None not in model.output_shape[1:]
    assert build_model(name, include_top=False, input_shape=shape, min_size=1) == model
    message = refused(
        name, f"at least {size}x{size}", include_top=False, input_shape=(size - 1, size, 3), min_size=size, weights=None
    )
    assert "lowers this check" not in message


@over_networks
def test_min_size_raises_the_check_too(name):
    refused(name, "at least 300x300", input_shape=(299, 300, 3), min_size=300, weights=None)


def test_below_what_the_layers_allow_the_layer_is_named():
    with pytest.raises(ValueError, match="too small here") as caught:
        build_model("vgg16", include_top=False, input_shape=(31, 31, 3), min_size=1)
    assert any("'block5_pool' of kind MaxPooling2D" in note for note in caught.value.__notes__)


@over_networks
def test_a_list_is_as_good_as_a_tuple(name):
    size = model_info(name).default_size
    arguments = {"weights": "imagenet", "input_shape": [size, size, 3]}
    assert build_model(name, **arguments) == build_model(name, weights="imagenet", input_shape=(size, size, 3))
    free = None if model_info(name).free_size else size
    assert build_model(name, include_top=False, input_shape=[free, size, 3]).input_shape == (None, free, size, 3)


@over_networks
def test_default_shapes(name):
    info = model_info(name)
    size = None if info.any_size else info.default_size
    assert build_model(name).input_shape == (None, size, size, 3)
    assert build_model(name, weights="imagenet").input_shape == (None, size, size, 3)
    free = None if info.free_size else size
    assert build_model(name, include_top=False).input_shape == (None, free, free, 3)


@pytest.mark.parametrize("shape", [(None, 224, 3), (224, None, 3), [None, None, 3]])
def test_nasnet_is_built_for_one_size(shape):
    """Keras builds a model that takes images of no size."""
    refused("nasnet_mobile", "is built for one size of images", input_shape=shape, include_top=False, weights=None)


def test_only_imagenet_weights_of_efficientnet_scale_twice():
    """As in Keras: a path of the same file builds the network without the second scaling."""
    kinds = [[each.class_name for each in build_model("efficientnetb0", weights=given).layers[:5]]
             for given in ("imagenet", None)]  # fmt: skip # kept on few lines on purpose
    scaling = ["InputLayer", "Rescaling", "Normalization"]
    assert kinds == [[*scaling, "Rescaling", "ZeroPadding2D"], [*scaling, "ZeroPadding2D", "Conv2D"]]


def test_the_published_file_of_efficientnet_as_a_path_is_warned_of(tmp_path):
    (tmp_path / "efficientnetb0.h5").touch()
    with pytest.warns(UserWarning, match="as those weights need it with weights='imagenet' only"):
        build_model("efficientnetb0", weights=tmp_path / "efficientnetb0.h5")
    (tmp_path / "mine.h5").touch()
    build_model("efficientnetb0", weights=tmp_path / "mine.h5")  # warnings are errors


@over_networks
def test_preprocessing_is_known(name):
    assert known_preprocessing(build_model(name)) == {model_info(name).preprocessing}


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnetv2-b0", "efficientnetv2-s", "convnext_tiny"])
def test_preprocessing_that_was_left_out_is_known_if_it_is_a_mode(name):
    mode = model_info(name).preprocessing_inside
    model = build_model(name, include_preprocessing=False)
    assert not any(isinstance(layer.layer, SCALING) for layer in model.layers)
    assert known_preprocessing(model) == ({mode} if mode else set())
    model = build_model(name, include_top=False, input_shape=(32, 32, 3))
    *_, scaled = [layer.output for layer in model.layers if isinstance(layer.layer, SCALING)]
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("f4")
    inside = Model(model.input, scaled).apply({}, images)
    assert [np.abs(inside - preprocess_input(images, mode=each)).max() < 1e-5 for each in MODES] == [
        each == mode for each in MODES
    ]


@over_networks
def test_other_sizes_for_a_fresh_classifier(name):
    assert build_model(name, input_shape=(224, 250, 3)).input_shape == (None, 224, 250, 3)


@over_networks
def test_gray_images_are_expected_and_others_warned_about(name):
    assert build_model(name, include_top=False, input_shape=(224, 224, 1)).input_shape == (None, 224, 224, 1)
    with pytest.warns(
        UserWarning, match=r"usually expects 1 or 3 input channels. However, it was passed .* with 4 input"
    ) as caught:
        model = build_model(name, include_top=False, input_shape=(224, 224, 4))
    assert len(caught) == 1
    assert model.input_shape == (None, 224, 224, 4)


@over_networks
def test_the_number_of_channels_is_known(name):
    refused(name, "number of channels must be known", input_shape=(224, 224, None), include_top=False, weights=None)


# Data format


@pytest.mark.parametrize("name", FLEXIBLE)
def test_channels_first_shapes(name):
    size = model_info(name).default_size
    arguments = {"data_format": "channels_first"}
    assert build_model(name, **arguments).input_shape == (None, 3, size, size)
    assert build_model(name, include_top=False, **arguments).input_shape == (None, 3, None, None)
    assert build_model(name, input_shape=(3, 224, 230), **arguments).input_shape == (None, 3, 224, 230)
    smallest = model_info(name).min_size
    message = f"at least {smallest}x{smallest}"
    for shape in [(3, smallest - 1, smallest), (3, smallest, smallest - 1)]:
        refused(name, message, input_shape=shape, weights=None, **arguments)
    with pytest.warns(UserWarning, match="with 224 input channels"):
        build_model(name, include_top=False, input_shape=(224, 224, 224), **arguments)
    size_message = re.escape(f"`input_shape` should be (3, {size}, {size})")
    refused(name, size_message, input_shape=(size, size, 3), weights="imagenet", **arguments)


@pytest.mark.parametrize("name", FLEXIBLE)
def test_keras_json_decides_where_nothing_is_said(name, keras_home):
    first = build_model(name, include_top=False, data_format="channels_first")
    last = build_model(name, include_top=False)
    channels_first_in_keras_json(keras_home)
    assert build_model(name, include_top=False) == first
    assert build_model(name, include_top=False, data_format="channels_last") == last


def test_xception_takes_channels_last_only(keras_home):
    refused(
        "xception",
        "Xception takes channels_last images only.  Received: data_format=channels_first",
        data_format="channels_first",
        weights=None,
    )
    expected = build_model("xception")
    channels_first_in_keras_json(keras_home)
    with pytest.warns(
        UserWarning, match=r"Xception takes channels_last images only: image_data_format of keras.json"
    ) as caught:
        model = build_model("xception")
    assert len(caught) == 1
    assert model == expected
    assert model.input_shape == (None, 299, 299, 3)
    assert build_model("xception", data_format="channels_last") == expected


@over_networks
def test_unknown_data_format(name):
    message = "one of `channels_first` or `channels_last`. Received: data_format=channels_middle"
    refused(name, re.escape(message), data_format="channels_middle", weights=None)


# input_tensor


@over_networks
def test_input_tensor_takes_the_place_of_the_image(name):
    image = Input((230, 240, 3), name="photo")
    model = build_model(name, include_top=False, input_tensor=image)
    assert model.input is image
    assert model.layers[0].name == "photo"
    assert model.input_shape == (None, 230, 240, 3)


def test_predecessors_of_input_tensor_belong_to_the_model():
    first, second = Input((64, 64, 3), name="first"), Input((64, 64, 3), name="second")
    model = build_model("vgg16", include_top=False, input_tensor=layers.Add(name="blend")([second, first]))
    assert model.input == [second, first]
    assert [layer.name for layer in model.layers[:4]] == ["second", "first", "blend", "block1_conv1"]


def test_size_of_input_tensor_is_free_as_in_keras():
    small = Input((40, 40, 3))
    model = build_model("vgg16", include_top=True, input_tensor=small, classes=5)
    assert model.input_shape == (None, 40, 40, 3)
    # input_shape is checked beside it, and not used
    assert build_model("vgg16", input_tensor=Input((40, 40, 3)), input_shape=(224, 224, 3), classes=5) == model
    with pytest.raises(ValueError, match="at least 48x48"):
        build_model("vgg16", input_tensor=small, input_shape=(40, 40, 3))


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 224, 224, 3)), (224, 224, 3), "image", Input((224, 224)), Input((3,))], ids=range(5)
)
@over_networks
def test_input_tensor_is_a_node_of_images(name, wrong):
    for build in (build_model, get_model):
        with pytest.raises(ValueError, match=r"`input_tensor` should be a Node of images.*Received: input_tensor="):
            build(name, include_top=False, weights=None, input_tensor=wrong)


@over_networks
def test_dtype_belongs_to_the_input_tensor(name):
    with pytest.raises(ValueError, match=r"dtype belongs to its Input: Input\(shape, dtype=...\)"):
        build_model(name, include_top=False, input_tensor=Input((224, 224, 3)), dtype="bfloat16")
    image = Input((224, 224, 3), dtype="bfloat16")
    ours = build_model(name, include_top=False, input_tensor=image)
    given = build_model(name, include_top=False, input_shape=(224, 224, 3), dtype="bfloat16")
    assert ours.graph == given.graph


@pytest.mark.parametrize("dtype", ["float3", "int32", "complex64"])
def test_compute_dtypes_are_floats(dtype):
    with pytest.raises(ValueError, match="dtype"):
        build_model("vgg16", include_top=False, dtype=dtype)


@over_networks
def test_keras_json_gives_the_dtype_where_nothing_is_said(name, keras_home):
    half = build_model(name, include_top=False, dtype="float16")
    (keras_home / "keras.json").write_text(json.dumps({"floatx": "float16"}))
    assert build_model(name, include_top=False) == half


# Names


def test_variants():
    assert build_model("resnet50", variant="keras2").get_layer("res2a_branch2a").filters == 64
    assert build_model("resnet50", variant="") == build_model("resnet50")
    keras3 = "`variant` of ResNet50 should be '' or 'keras2'.  Received: variant='keras3'"
    refused("resnet50", keras3, variant="keras3")
    refused("xception", "`variant` of Xception should be ''.  Received: variant='keras2'", variant="keras2")


@pytest.mark.parametrize("call", [model_info, build_model, get_model])
def test_unknown_networks(call):
    words = r"No network is called 'vgg17'. Did you mean 'vgg1\d' or 'vgg1\d'\? There are: .*densenet121, .*vgg16, "
    with pytest.raises(ValueError, match=words):
        call("vgg17")
    with pytest.raises(ValueError, match=r"No network is called 'swin'. There are: "):
        call("swin")


@over_networks
def test_unknown_arguments(name):
    with pytest.raises(TypeError, match="include_topp"):
        get_model(name, include_topp=False)


@over_networks
def test_the_network_of_a_model_is_known_by_its_name(name):
    for include_top in (True, False):
        assert find_info(build_model(name, include_top=include_top).name) is model_info(name)
    assert build_model(name, name="mine").name == "mine"
