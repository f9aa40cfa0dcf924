"""Predictions decoded in Keras's order."""

import hashlib
import importlib.resources
import json
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flaxapps.applications.imagenet_utils import class_names, decode_predictions

CLASS_INDEX_FILE = importlib.resources.files("flaxapps.applications") / "imagenet_class_index.json"


@pytest.fixture
def keras_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Keras's module, given the packaged class index so that it does not download its own."""
    from keras.src.applications import imagenet_utils

    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", json.loads(CLASS_INDEX_FILE.read_text()))
    return imagenet_utils


def test_packaged_class_index_is_the_published_one():
    digest = hashlib.md5(CLASS_INDEX_FILE.read_bytes(), usedforsecurity=False).hexdigest()
    assert digest == "c2c37ea517e94d9795004a39431a14cb"


def test_class_names():
    names = class_names()
    assert len(names) == len({wordnet_id for wordnet_id, _ in names}) == 1000
    assert names[0] == ("n01440764", "tench")
    assert names[999] == ("n15075141", "toilet_tissue")
    assert class_names() is names


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(0, 3),
    distinct=st.sampled_from([1, 3, 50, 10**6]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    top=st.sampled_from([0, 1, 2, 5, 999, 1000]),
)
def test_agrees_with_keras_also_on_ties(
    keras_module: ModuleType, seed: int, samples: int, distinct: int, dtype: str, top: int
):
    preds = (np.random.default_rng(seed).integers(0, distinct, (samples, 1000)) / distinct).astype(dtype)
    ours = decode_predictions(preds, top=top)
    assert ours == keras_module.decode_predictions(preds, top=top)
    assert all(len(best) == (top or 1000) for best in ours)
    assert all(type(score) is preds.dtype.type for best in ours for _, _, score in best)


def test_agrees_with_keras_on_nan(keras_module: ModuleType):
    preds = np.random.default_rng(0).random((2, 1000), np.float32)
    preds[0, [3, 500, 900]] = np.nan
    preds[1, 7] = -np.inf
    # repr: NaN is not equal to itself
    assert repr(decode_predictions(preds)) == repr(keras_module.decode_predictions(preds))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_arrays(keras_module: ModuleType, dtype: str):
    preds = jnp.asarray(np.random.default_rng(0).random((2, 1000)), dtype)
    ours = decode_predictions(preds)
    assert ours == decode_predictions(np.asarray(preds)) == keras_module.decode_predictions(preds)


def test_leaves_its_argument_alone():
    preds = np.random.default_rng(0).random((2, 1000))
    before = preds.copy()
    decode_predictions(preds)
    np.testing.assert_array_equal(preds, before)


@pytest.mark.parametrize("shape", [(1000,), (1, 10), (1, 1, 1000), ()])
def test_wrong_shapes_in_keras_words(keras_module: ModuleType, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="expects a batch of predictions") as ours:
        decode_predictions(np.zeros(shape))
    with pytest.raises(ValueError, match="expects a batch of predictions") as keras_own:
        keras_module.decode_predictions(np.zeros(shape))
    assert str(ours.value) == str(keras_own.value)


@pytest.mark.parametrize("top", [-1, -1000, 1001])
def test_top_out_of_range(top: int):
    with pytest.raises(ValueError, match=f"Received: top={top}"):
        decode_predictions(np.zeros((1, 1000)), top=top)
