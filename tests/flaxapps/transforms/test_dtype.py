"""with_dtype: shared layers, nested models, mixed dtypes, and the real model on real photos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers, load_model
from flaxapps.demo import photos as demo
from flaxapps.transforms.dtype import with_dtype
from tests.places import DEMO
from tests.recipe import relative_difference


def nested(dtype: str | None, inner: str | None) -> Model:
    """A model in a model, with a layer that is called twice and a normalization."""
    image = Input((6, 6, 4), dtype=dtype)
    conv = layers.Conv2D(4, 3, padding="same", name="conv", dtype=inner)
    x = layers.BatchNormalization(name="norm", dtype=inner)(conv(conv(image)))
    part = Model(image, x, name="part")
    outside = Input((6, 6, 4), dtype=dtype)
    pooled = layers.GlobalAveragePooling2D(name="pool", dtype=inner)(part(outside))
    return Model(outside, layers.Dense(3, name="head", dtype=inner)(pooled), name="whole")


@pytest.mark.parametrize(("dtype", "inner"), [("float32", None), ("float32", "float32"), ("float16", "float32")])
def test_it_is_the_model_built_in_that_dtype(dtype: str, inner: str | None):
    model, wanted = nested(dtype, inner), nested("bfloat16", None)
    halved = with_dtype(model, "bfloat16")
    assert halved == wanted
    assert model == nested(dtype, inner)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    variables = model.init_variables()
    assert halved.apply(variables, x).dtype == jnp.bfloat16
    assert relative_difference(halved.apply(variables, x).astype(jnp.float32), model.apply(variables, x)) < 0.02
    assert with_dtype(halved, "float32") == nested("float32", None)


@pytest.mark.parametrize("dtype", ["int8", "half past two"])
def test_other_dtypes(dtype: str):
    with pytest.raises(ValueError, match=f"a floating-point dtype, such as 'bfloat16', got '{dtype}'"):
        with_dtype(nested(None, None), dtype)


@pytest.mark.real
@pytest.mark.slow
def test_top_1_on_real_photos(monkeypatch: pytest.MonkeyPatch):
    """README says 18 of 18: no photo changes its class in bfloat16."""
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    data = demo.fetch_demo()
    model, variables = load_model(data.model)
    logits = demo.compute_logits(model, variables, data.photos)
    halved = demo.compute_logits(with_dtype(model, "bfloat16"), variables, data.photos)
    assert len(logits) == 18
    assert (halved.argmax(1) == logits.argmax(1)).sum() == 18
    assert 0 < np.abs(jax.nn.softmax(halved) - jax.nn.softmax(logits)).max() < 0.1
