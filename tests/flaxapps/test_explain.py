"""Explanations against what can be computed by hand: linear models, known feature maps, sums, finite differences."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, explain, layers

CLASSES = 3


def images(count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6, 5, 3)).astype(np.float32)


@cache
def linear_classifier(activation="softmax"):
    image = Input((6, 5, 3))
    model = Model(image, layers.Dense(CLASSES, activation=activation, name="scores")(layers.Flatten()(image)))
    return model, model.init_variables()


@cache
def curved_classifier(data_format="channels_last"):
    image = Input((6, 5, 3) if data_format == "channels_last" else (3, 6, 5), data_format=data_format)
    x = layers.Conv2D(4, 3, activation="gelu", name="features")(image)
    x = layers.GlobalAveragePooling2D()(x)
    model = Model(image, layers.Dense(CLASSES, activation="softmax", name="scores")(x))
    return model, model.init_variables()


def test_grad_cam_of_a_linear_head_is_the_map_weighted_by_the_head():
    """The mean of the map through a Dense: every place has the gradient kernel / places."""
    model, variables = curved_classifier()
    x, classes = images(), np.array([2, 0])
    features = np.asarray(Model(model.input, model.get_layer("features").output).apply(variables, x))
    kernel = np.asarray(variables["params"]["scores"]["kernel"])
    wanted = np.maximum((features * (kernel[:, classes].T / 12)[:, None, None, :]).sum(-1), 0)
    maps = explain.grad_cam(model, variables, x, "features", classes=classes)
    assert maps.shape == (2, 4, 3)
    assert wanted.max() > 0
    np.testing.assert_allclose(maps, wanted, rtol=1e-4, atol=1e-6)


def test_grad_cam_where_a_branch_bypasses_the_layer():
    image = Input((6, 5, 3))
    x = layers.Add()([layers.Conv2D(3, 1, name="features")(image), image])
    model = Model(image, layers.Dense(CLASSES, name="scores")(layers.GlobalAveragePooling2D()(x)))
    variables = model.init_variables()
    features = np.asarray(Model(image, model.get_layer("features").output).apply(variables, images()))
    kernel = np.asarray(variables["params"]["scores"]["kernel"])[:, 1]
    maps = explain.grad_cam(model, variables, images(), "features", classes=1)
    np.testing.assert_allclose(maps, np.maximum((features * kernel / 30).sum(-1), 0), rtol=1e-4, atol=1e-6)


def test_grad_cam_at_another_size():
    model, variables = curved_classifier()
    small = explain.grad_cam(model, variables, images(), "features")
    large = explain.grad_cam(model, variables, images(), "features", size=(8, 6))
    np.testing.assert_allclose(large, jax.image.resize(small, (2, 8, 6), "linear"))


def test_integrated_gradients_of_a_linear_model_are_its_weights_times_the_change():
    model, variables = linear_classifier()
    x = images()
    kernel = np.asarray(variables["params"]["scores"]["kernel"])[:, 1].reshape(6, 5, 3)
    parts = explain.integrated_gradients(model, variables, x, classes=1, baseline=0.5, steps=3)
    np.testing.assert_allclose(parts, (x - 0.5) * kernel, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_change_of_the_score():
    model, variables = curved_classifier()
    x, baseline = images(), images(1, seed=5)
    classes = np.array([0, 2])
    parts = explain.integrated_gradients(model, variables, x, baseline=baseline, classes=classes, steps=200)
    head = Model(model.input, layers.Dense(CLASSES, name="scores")(model.layers[-2].output))
    change = np.asarray(head.apply(variables, x) - head.apply(variables, baseline))[np.arange(2), classes]
    np.testing.assert_allclose(np.asarray(parts).sum((1, 2, 3)), change, atol=1e-5)


def test_one_step_close_to_the_baseline_is_a_finite_difference():
    model, variables = curved_classifier()
    head = Model(model.input, layers.Dense(CLASSES, name="scores")(model.layers[-2].output))
    x = images(1)
    change = np.zeros_like(x)
    change[0, 2, 3, 1] = 1e-2
    parts = explain.integrated_gradients(model, variables, x + change, baseline=x, classes=0, steps=1)
    difference = np.asarray(head.apply(variables, x + change) - head.apply(variables, x))[0, 0]
    np.testing.assert_allclose(parts[0, 2, 3, 1], difference, rtol=1e-2)
    assert np.count_nonzero(parts) == 1


def test_occlusion_of_a_sum_is_what_the_window_took_away():
    model, variables = linear_classifier()
    x = images()
    kernel = np.asarray(variables["params"]["scores"]["kernel"])[:, 2].reshape(6, 5, 3)
    pixels = ((x - 0.25) * kernel).sum(-1)
    by_pixel = explain.occlusion(model, variables, x, window=1, stride=1, fill=0.25, classes=2)
    np.testing.assert_allclose(by_pixel, pixels, rtol=1e-3, atol=1e-5)
    tiles = explain.occlusion(model, variables, x, window=3, stride=3, fill=0.25, classes=2)
    np.testing.assert_allclose(tiles[:, 0, 0], pixels[:, :3, :3].sum((1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(tiles[:, 5, 4], pixels[:, 3:, 3:].sum((1, 2)), rtol=1e-3, atol=1e-5)


def test_windows_that_overlap_are_averaged():
    model, variables = linear_classifier()
    x = images()
    kernel = np.asarray(variables["params"]["scores"]["kernel"])[:, 0].reshape(6, 5, 3)
    pixels = (x * kernel).sum(-1)[0]
    wanted = np.zeros((6, 5))
    counts = np.zeros((6, 5))
    for top in range(0, 6, 2):
        for left in range(0, 5, 2):
            wanted[top : top + 3, left : left + 3] += pixels[top : top + 3, left : left + 3].sum()
            counts[top : top + 3, left : left + 3] += 1
    found = explain.occlusion(model, variables, x, window=3, stride=2, classes=0)
    np.testing.assert_allclose(found[0], wanted / counts, rtol=1e-3, atol=1e-5)


EXPLANATIONS = [
    lambda *arguments, **options: explain.grad_cam(*arguments, "features", **options),
    lambda *arguments, **options: explain.integrated_gradients(*arguments, steps=2, **options),
    lambda *arguments, **options: explain.occlusion(*arguments, window=3, stride=3, **options),
]


@pytest.mark.parametrize("explanation", EXPLANATIONS)
def test_the_highest_score_is_explained_and_images_do_not_mix(explanation):
    model, variables = curved_classifier()
    x = images()
    found = np.asarray(explanation(model, variables, x))
    best = np.asarray(model.apply(variables, x)).argmax(-1)
    other = np.stack([x[0], images(1, seed=9)[0]])
    np.testing.assert_allclose(found, explanation(model, variables, x, classes=best), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0], explanation(model, variables, other, classes=best)[0], rtol=1e-4, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("explanation", EXPLANATIONS)
def test_channels_first(explanation):
    first, last = curved_classifier("channels_first"), curved_classifier()
    found = np.asarray(explanation(*first, np.moveaxis(images(), -1, 1), classes=1))
    wanted = np.asarray(explanation(*last, images(), classes=1))
    np.testing.assert_allclose(np.moveaxis(found, 1, -1) if found.ndim == 4 else found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("explanation", EXPLANATIONS)
@pytest.mark.parametrize("classes", [3, -1, 1.5, [0, 1, 2], [[0], [1]]])
def test_classes_that_are_not_there(explanation, classes):
    with pytest.raises(ValueError, match="from 0 to 2"):
        explanation(*curved_classifier(), images(), classes=classes)


@pytest.mark.parametrize("explanation", EXPLANATIONS)
def test_models_that_do_not_classify(explanation):
    image = Input((6, 5, 3))
    model = Model(image, layers.Conv2D(2, 3, name="features")(image))
    with pytest.raises(ValueError, match=r"\(None, 6, 5, 3\) and output \(None, 4, 3, 2\)"):
        explanation(model, model.init_variables(), images())


def test_arguments_that_make_no_sense():
    model, variables = curved_classifier()
    with pytest.raises(ValueError, match="'scores'"):
        explain.grad_cam(model, variables, images(), "scores")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        explain.integrated_gradients(model, variables, images(), steps=0)
    with pytest.raises(ValueError, match="from 1 to window=2"):
        explain.occlusion(model, variables, images(), window=2, stride=3)
    with pytest.raises(ValueError, match="takes arrays of shape"):
        explain.occlusion(model, variables, images()[0], window=2, stride=2)


def test_it_is_exported_and_can_be_traced():
    model, variables = curved_classifier()
    found = jax.jit(lambda classes: flaxapps.explain.grad_cam(model, variables, images(), "features", classes=classes))
    wanted = explain.grad_cam(model, variables, images(), "features", classes=1)
    np.testing.assert_allclose(found(jnp.int32(1)), wanted, atol=1e-6)
