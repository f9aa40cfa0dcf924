"""Frozen layers that compute in a faster form in every step: the same training, and their own arrays in the result."""

import jax
import numpy as np
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.train.freezing.optimized import optimize_frozen
from tests.train.freezing.test_split import seen_before
from tests.train.small import CLASSES, assert_close, assert_same, fit, small_data

FROZEN = frozenset({"wide", "norm1", "winograd", "norm2"})


def wide_model():
    """Enough channels for Winograd's products, and statistics on both sides of the cut."""
    x = y = Input((8, 8, 3), name="image")
    for name, norm in (("wide", "norm1"), ("winograd", "norm2"), ("trained", "norm3")):
        y = layers.Conv2D(48, 3, padding="same", use_bias=False, name=name)(y)
        y = layers.Activation("relu", name=f"{name}_relu")(layers.BatchNormalization(name=norm)(y))
    y = layers.Dropout(0.2, name="drop")(layers.GlobalAveragePooling2D(name="pool")(y))
    return Model(x, layers.Dense(CLASSES, activation="softmax", name="head")(y))


def darken(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype)


@pytest.mark.parametrize(
    ("mode", "parallel"),
    [
        pytest.param("default", "jit", marks=[pytest.mark.slow, pytest.mark.every_jax]),
        ("fast", "jit"),
        pytest.param("fast", "pmap", marks=pytest.mark.slow),
    ],
)
def test_fit_is_the_same(mode, parallel, tmp_path):
    model = wide_model()
    options = {"frozen": FROZEN, "epochs": 2, "loss": "sparse_categorical_crossentropy", "augmentation": darken}
    options |= {"validation_data": small_data(6, 1), "variables": seen_before(model), "parallel": parallel}
    wanted, wanted_losses = fit(small_data(40), model, **options)
    options["computation"] = train.Computation(optimize_frozen=mode)
    result, losses = fit(small_data(40), model, checkpoint_dir=tmp_path, **options)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
    assert_close(result.variables, wanted.variables)
    assert_close(result.history, wanted.history)
    for collection, before in options["variables"].items():
        for name in FROZEN & set(before):
            assert_same(result.variables[collection][name], before[name])
    options["epochs"] = 3
    resumed, _ = fit(small_data(40), model, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options)
    whole, _ = fit(small_data(40), model, **options)
    assert_same(resumed.variables, whole.variables)


@pytest.mark.parametrize(
    ("mode", "kinds"), [("default", ["Conv2D"] * 3), ("fast", ["Conv2D", "WinogradConv2D", "Conv2D"])]
)
def test_what_is_rewritten(mode, kinds):
    model = wide_model()
    rewritten, arrays = optimize_frozen(model, model.init_variables(), FROZEN, mode)
    names = {"wide", "winograd", "trained"}
    assert [layer.class_name for layer in rewritten.layers if layer.name in names] == kinds
    assert not {"norm1", "norm2"} & {layer.name for layer in rewritten.layers}
    assert set(arrays["params"]) == {"wide", "winograd"}


def test_what_does_not_fit_is_refused():
    model, data = wide_model(), small_data(4)
    with pytest.raises(ValueError, match=r"'default' or 'fast', got 'quick'"):
        train.Computation(optimize_frozen="quick")
    optimized = train.Computation(optimize_frozen="default")
    with pytest.raises(ValueError, match=r"no effect with cache_features"):
        fit(data, model, frozen=FROZEN, computation=optimized, cache_features=True)
    with pytest.raises(ValueError, match="should be an unbroken beginning"):
        fit(data, model, frozen=frozenset({"winograd"}), computation=optimized)
    image = Input((8, 8, 3))
    nested = Model(image, Model(model.input, model.output, name="base")(image))
    frozen = train.frozen_layers(nested, names=[f"base/{name}" for name in sorted(FROZEN)])
    with pytest.raises(ValueError, match="end within the nested model"):
        fit(data, nested, frozen=frozen, computation=optimized)
