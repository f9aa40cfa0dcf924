"""Optimized models against plain ones, and which layers they are made of."""

import jax
import numpy as np
import pytest

from flaxapps import Input, Model, fold_batch_norm, layers, load_model, optimize, predict, rewrite, save_model
from flaxapps.applications.imagenet_utils import preprocess_input
from flaxapps.demo import photos as demo
from flaxapps.photos.reading import photo_format, read_photos
from flaxapps.registry import build_model
from flaxapps.transforms.image_by_image import split_image_by_image
from flaxapps.transforms.optimize import multiply_in_bfloat16, use_winograd
from tests.networks import NETWORKS, compiled
from tests.places import DEMO
from tests.recipe import CLASSIC, images_for, recipe_variables, relative_difference
from weight_port import WeightError

TOLERANCE = {"default": 1e-5, "fast": 1e-4}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def kinds(model):
    return [layer.class_name for layer in model.layers]


def residual(size, data_format="channels_last", dtype=None, channels=48):
    """A stem, a residual block with a shared convolution, and a nested model of the same; all kinds of pass apply."""
    shape = (*size, 3) if data_format == "channels_last" else (3, *size)
    x = Input(shape, data_format=data_format, dtype=dtype)
    y = layers.MaxPooling2D(3, 2, padding="same")(layers.Conv2D(channels, 3, padding="same", name="stem")(x))
    shared = layers.Conv2D(channels, 3, padding="same", activation="relu", name="shared")
    y = layers.Add()([y, shared(shared(y))])
    inside = Input((None, None, channels), data_format="channels_last")
    z = layers.BatchNormalization(name="norm")(layers.Conv2D(channels, 3, use_bias=False, name="conv")(inside))
    inner = Model(inside, layers.Activation("relu")(z), name="inner")
    return Model(x, layers.SeparableConv2D(5, 3, padding="same", name="separable")(inner(y)), name="residual")


def optimized(model, variables, limit):
    """What optimize(..., "fast") does, with another limit than that for large images."""
    return split_image_by_image(*rewrite(*fold_batch_norm(model, variables), use_winograd), limit)


@pytest.mark.parametrize(
    ("size", "batch", "data_format", "dtype"),
    [
        ((9, 8), 1, "channels_last", None),
        ((6, 9), 3, "channels_first", None),
        ((6, 6), 2, "channels_last", "bfloat16"),
    ],
)
def test_every_pass_on_one_network(size, batch, data_format, dtype):
    model = residual(size, data_format, dtype)
    variables = jax.tree.map(lambda array: array + 0.01, model.init_variables())
    x = images(batch, *model.input_shape[1:])
    faster, arrays = optimized(model, variables, limit=4 * 48 * size[0] * size[1])
    assert kinds(faster) == ["InputLayer", "ImageByImage", "WinogradConv2D", "Add", "Functional", "SeparableConv2D"]
    assert kinds(faster.get_layer("inner")) == ["InputLayer", "WinogradConv2D", "Activation"]
    assert jax.tree.structure(arrays) == jax.tree.structure(faster.init_variables())
    ours, plain = (jax.jit(each.apply)(tree, x) for each, tree in ((faster, arrays), (model, variables)))
    assert ours.dtype == plain.dtype
    assert ours.shape == plain.shape
    tolerance = 5e-6 if dtype is None else 0.03
    assert relative_difference(ours.astype("float32"), np.asarray(plain, "f4")) <= tolerance
    # on Nodes, and where intermediate values are wanted, it is a model like others
    captured = jax.eval_shape(lambda: faster.apply(arrays, x, capture_intermediates=True, mutable=["intermediates"]))
    assert captured[0].shape == plain.shape
    assert Model(model.input, faster(model.input)).count_params() == faster.count_params()


def test_the_block_ends_where_one_smaller_tensor_goes_on():
    x = Input((8, 8, 4))
    y = layers.Conv2D(16, 3, padding="same", name="large")(x)
    z = layers.Add(name="join")([layers.ReLU(name="left")(y), layers.Conv2D(16, 1, name="right")(y)])
    model = Model(x, layers.Dense(2, name="dense")(layers.MaxPooling2D(name="pool")(z)))
    variables = model.init_variables()

    def block(model, limit):
        first = split_image_by_image(model, model.init_variables(), limit).model.layers[1]
        return [layer.name for layer in first.layers][1:] if first.class_name == "ImageByImage" else None

    whole = ["large", "left", "right", "join", "pool"]
    assert block(model, 4096) == whole
    assert block(model, 4097) is None
    inner = model.get_layer("left").output
    assert block(Model(x, [inner, model.output]), 4096) is None  # two tensors go on
    assert block(Model(x, inner), 4096) == ["large", "left"]  # to the end
    free = Input((None, None, 4))
    assert block(Model(free, layers.ReLU()(free)), 1) is None
    mixing = layers.Concatenate(axis=1)([y, y])
    assert block(Model(x, mixing), 1) is None
    assert block(Model(x, layers.GroupNormalization(2)(y)), 1) is None  # not a kind that is known to go image by image
    moved = split_image_by_image(model, variables, 4096).variables["params"]
    assert moved["image_by_image"]["large"]["kernel"] is variables["params"]["large"]["kernel"]
    assert set(moved) == {"image_by_image", "dense"}


def test_winograd_takes_plain_convolutions_of_enough_channels():
    x = Input((9, 9, 32))
    plain = [layers.Conv2D(32, size) for size in (3, 5, (1, 3), (3, 1), (1, 7), (7, 1))]
    others = [
        layers.Conv2D(31, 3), layers.Conv2D(32, 3, strides=2), layers.Conv2D(32, 3, groups=2), layers.Conv2D(32, 1),
        layers.Conv2D(32, 3, dilation_rate=2), layers.Conv2D(32, 7), layers.Conv2D(32, 2),
    ]  # fmt: skip # kept on few lines on purpose
    model = Model(x, [layer(x) for layer in [*plain, *others]])
    assert kinds(rewrite(model, model.init_variables(), use_winograd).model).count("WinogradConv2D") == len(plain)


@pytest.mark.parametrize(("size", "count"), [((36, 36), 1), ((35, 36), 0), ((None, 36), 0)])
def test_exact_takes_winograd_where_its_matrices_are_no_larger_than_an_image(size, count):
    model = Model(x := Input((*size, 32)), layers.Conv2D(32, 3)(x))  # 36 x 32 x 32 numbers
    large = optimize(model, model.init_variables(), "default", platform="cpu").model
    assert kinds(large).count("WinogradConv2D") == count


def test_bfloat16_products():
    x = Input((9, 9, 16))
    y = layers.Conv2D(8, 1, strides=2, activation="relu", name="point")(x)
    y = layers.SeparableConv2D(4, 3, padding="same", use_bias=False, name="separable")(y)
    model = Model(x, layers.Conv2D(4, 3, name="other")(y))
    variables = jax.tree.map(lambda array: array + 0.1, model.init_variables())
    rounded, arrays = rewrite(model, variables, multiply_in_bfloat16)
    assert kinds(rounded)[1:] == ["Bfloat16Conv2D", "DepthwiseConv2D", "Bfloat16Conv2D", "Conv2D"]
    x = images(2, 9, 9, 16)
    ours, plain = jax.jit(rounded.apply)(arrays, x), jax.jit(model.apply)(variables, x)
    assert ours.dtype == np.float32
    assert 1e-6 < relative_difference(ours, np.asarray(plain)) <= 1e-2
    asked = optimize(model, variables, precision="bfloat16", platform="cpu")
    assert asked.model == rounded
    with pytest.warns(DeprecationWarning, match='bfloat16_pointwise is now precision="bfloat16"'):
        old = optimize(model, variables, bfloat16_pointwise=True, platform="cpu")
    assert old.model == rounded


def test_other_platforms_get_what_is_good_everywhere():
    model = residual((8, 8))
    faster = optimize(model, model.init_variables(), "fast", platform="tpu").model
    assert faster == fold_batch_norm(model, model.init_variables()).model


def test_the_older_name_of_a_mode():
    model = residual((8, 8))
    variables = model.init_variables()
    with pytest.warns(DeprecationWarning, match='mode="exact" is now called "default"'):
        old = optimize(model, variables, "exact")
    assert old.model == optimize(model, variables, "default").model
    with pytest.warns(DeprecationWarning, match="optimize="):
        predict(model, variables, images(1, 8, 8, 3), optimize="exact")


def test_what_is_refused(tmp_path):
    model = residual((8, 8))
    with pytest.raises(ValueError, match="'default' or 'fast', got 'quick'"):
        optimize(model, model.init_variables(), "quick")
    with pytest.raises(ValueError, match="'default' or 'fast', got 'quick'"):
        predict(model, model.init_variables(), images(1, 8, 8, 3), optimize="quick")
    with pytest.raises(WeightError, match="'shared' of kind WinogradConv2D is not a layer of Keras"):
        save_model(*optimize(model, model.init_variables(), "fast"), tmp_path / "model.keras")
    exact = split_image_by_image(model, model.init_variables(), 4 * 48 * 64)
    with pytest.raises(WeightError, match="'image_by_image' of kind ImageByImage is not a layer of Keras"):
        save_model(*exact, tmp_path / "model.keras")


@pytest.mark.parametrize("mode", ["default", "fast"])
def test_predict_optimizes(mode, monkeypatch):
    model = residual((8, 8))
    variables = model.init_variables()
    x = images(21, 8, 8, 3)
    plain = predict(model, variables, x, batch_size=16, optimize=None)
    asked = []

    def spy(*arguments):
        asked.append(arguments[2])
        return split_image_by_image(model, variables, 4 * 48 * 64)

    monkeypatch.setattr("flaxapps.inference.predict.optimize_for_batches", spy)
    assert relative_difference(predict(model, variables, x, batch_size=16, optimize=mode), plain) <= TOLERANCE[mode]
    assert relative_difference(predict(model, variables, x[:2], optimize=mode), plain[:2]) <= TOLERANCE[mode]
    assert relative_difference(predict(model, variables, [x[:2]], optimize=mode), plain[:2]) <= TOLERANCE[mode]
    assert asked == [mode] * (2 if mode == "default" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, monkeypatch):
    """All outputs within the tolerance, before and after the classifier, with random weights and statistics."""
    monkeypatch.setattr("flaxapps.transforms.optimize.LARGE_TENSOR", 2**18)  # these images are small
    size = 107 if name != "inception_v3" else 139
    model = build_model(name, input_shape=(size, size, 3), min_size=size, classifier_activation=None)
    model = Model(model.input, [model.layers[-3].output, model.output])
    variables = recipe_variables(model)
    x = images_for(name, 1, (2, size, size, 3))
    plain = compiled(model.apply, variables, x)
    for mode, tolerance in TOLERANCE.items():
        faster, arrays = optimize(model, variables, mode)
        # The others begin with a layer that is not computed image by image, or with small tensors.
        assert name not in CLASSIC or "ImageByImage" in kinds(faster)
        for mine, other in zip(compiled(faster.apply, arrays, x), plain, strict=True):
            assert relative_difference(mine, other) <= tolerance, mode


@pytest.mark.real
@pytest.mark.slow
def test_the_real_network_on_real_photos(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    data = demo.fetch_demo()
    model, variables = load_model(data.model)
    ((_, photos),) = read_photos(data.photos, photo_format(model))
    x = preprocess_input(photos, mode="tf")
    plain = predict(model, variables, x, optimize=None)
    for mode, tolerance in TOLERANCE.items():
        logits = predict(model, variables, x, optimize=mode)
        assert relative_difference(logits, plain) <= tolerance
        np.testing.assert_array_equal(logits.argmax(1), plain.argmax(1))
