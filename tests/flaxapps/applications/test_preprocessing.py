"""Scaling: Keras's numbers, without Keras's side effects."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from flaxapps.applications.imagenet_utils import preprocess_input

MODES = ("caffe", "tf", "torch")  # Keras's
DATA_FORMATS = ("channels_last", "channels_first")
SHAPES = {"channels_last": [(5, 7, 3), (2, 5, 7, 3)], "channels_first": [(3, 5, 7), (2, 3, 5, 7)]}
CASES = [(mode, data_format, shape) for mode in MODES for data_format in DATA_FORMATS for shape in SHAPES[data_format]]

# XLA multiplies by the reciprocal where NumPy divides. That costs up to two units in the last place of the quotient,
# which the subtraction leaves as they are and torch's second division enlarges fourfold.
TOLERANCE = {"caffe": 0.0, "tf": 2.4e-7, "torch": 1e-6}


@pytest.fixture
def keras_preprocess() -> Callable[..., Any]:
    from keras.applications.imagenet_utils import preprocess_input as keras_function

    def on_a_copy(x: Any, **arguments: str) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return keras_function(x.copy(), **arguments)  # Keras overwrites its argument

    return on_a_copy


def pixels(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(0).uniform(0, 255, shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def assert_identical(ours: Any, expected: Any) -> None:
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16", "float32", "float64"])
@pytest.mark.parametrize(("mode", "data_format", "shape"), CASES)
def test_numpy_is_bit_identical_to_keras(keras_preprocess, mode, data_format, shape, dtype):
    x = pixels(shape, dtype)
    ours = preprocess_input(x, data_format=data_format, mode=mode)
    assert type(ours) is np.ndarray
    assert_identical(ours, keras_preprocess(x, data_format=data_format, mode=mode))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("mode", "data_format", "shape"), CASES)
def test_jax_is_bit_identical_to_keras(keras_preprocess, mode, data_format, shape, dtype):
    x = jnp.asarray(pixels(shape, dtype))
    ours = preprocess_input(x, data_format=data_format, mode=mode)
    assert isinstance(ours, jax.Array)
    assert_identical(ours, keras_preprocess(x, data_format=data_format, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_all_256_values(keras_preprocess, mode):
    x = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert_identical(preprocess_input(x, mode=mode), keras_preprocess(x, mode=mode))


def test_caffe_is_the_default_and_means_blue_green_red():
    np.testing.assert_allclose(
        preprocess_input(np.array([[[10.0, 20.0, 30.0]]])), [[[30 - 103.939, 20 - 116.779, 10 - 123.68]]]
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("mode", "data_format", "shape"), CASES)
def test_jit_agrees_with_numpy(mode, data_format, shape, dtype):
    x = pixels(shape, dtype)
    function = partial(preprocess_input, data_format=data_format, mode=mode)
    expected = function(x)
    for result in (function(jnp.asarray(x)), jax.jit(function)(x)):
        assert result.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE[mode])


@pytest.mark.parametrize("mode", MODES)
def test_vmap_is_the_batch(mode):
    x = jnp.asarray(pixels((3, 4, 5, 3)))
    function = partial(preprocess_input, mode=mode)
    assert_identical(jax.vmap(function)(x), function(x))


@pytest.mark.parametrize(("mode", "slope"), [("caffe", 1.0), ("tf", 1 / 127.5)])
def test_gradient(mode, slope):
    gradient = jax.grad(lambda x: preprocess_input(x, mode=mode).sum())(jnp.ones((2, 2, 3)))
    np.testing.assert_allclose(gradient, slope, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    x=numpy_strategies.arrays(
        dtype=st.sampled_from([np.uint8, np.int16, np.float16, np.float32, np.float64]),
        shape=st.tuples(st.integers(0, 2), st.just(3), st.integers(1, 3), st.just(3)),
        elements=st.integers(0, 255),
    ),
    mode=st.sampled_from(MODES),
    data_format=st.sampled_from(DATA_FORMATS),
)
def test_never_changes_nor_shares_its_argument(x, mode, data_format):
    before = x.copy()
    x.flags.writeable = False
    ours = preprocess_input(x, data_format=data_format, mode=mode)
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(ours, x)
    assert ours.flags.writeable
    assert ours.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_small_floats_stay_small(mode, dtype):
    x = pixels((4, 4, 3), dtype)
    assert preprocess_input(x, mode=mode).dtype == preprocess_input(jnp.asarray(x), mode=mode).dtype == x.dtype


def test_settings_of_keras_json(keras_home: Path):
    (keras_home / "keras.json").write_text('{"floatx": "float16", "image_data_format": "channels_first"}')
    x = pixels((3, 4, 5), "uint8")
    ours = preprocess_input(x)
    assert ours.dtype == np.float16
    assert preprocess_input(jnp.asarray(x)).dtype == np.float16
    np.testing.assert_array_equal(ours, preprocess_input(x.astype(np.float16), data_format="channels_first"))


def test_tf_takes_any_number_of_channels():
    assert preprocess_input(np.full((2, 2, 5), 255.0), mode="tf").max() == 1.0


@pytest.mark.parametrize("mode", ["caffe", "torch"])
@pytest.mark.parametrize(("data_format", "shape"), [("channels_last", (3, 4, 1)), ("channels_first", (1, 4, 4, 3))])
def test_wrong_number_of_channels(mode, data_format, shape):
    with pytest.raises(ValueError, match="expects 3 channels") as caught:
        preprocess_input(np.zeros(shape), data_format=data_format, mode=mode)
    assert str(shape) in str(caught.value)
    assert data_format in str(caught.value)


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (1, 1, 4, 4, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_wrong_rank(mode, shape):
    with pytest.raises(ValueError, match=r"3D.*4D"):
        preprocess_input(np.zeros(shape), mode=mode)


@pytest.mark.parametrize("arguments", [{"mode": "foo"}, {"data_format": "foo"}])
def test_unknown_choice_in_keras_words(keras_preprocess, arguments):
    with pytest.raises(ValueError, match="Received") as ours:
        preprocess_input(pixels((2, 2, 3)), **arguments)
    with pytest.raises(ValueError, match="Received") as keras_own:
        keras_preprocess(pixels((2, 2, 3)), **arguments)
    assert str(ours.value) == str(keras_own.value)


def test_not_an_array():
    with pytest.raises(TypeError, match="list"):
        preprocess_input([[[1, 2, 3]]])


@pytest.mark.parametrize("dtype", ["complex64", "U3", "O"])
def test_not_real_numbers(dtype):
    with pytest.raises(TypeError, match="dtype"):
        preprocess_input(np.zeros((2, 2, 3), dtype))


@pytest.mark.parametrize("shape", [(5, 7, 1), (2, 5, 7, 3)])
def test_rescale_is_division_by_255(shape):
    x = pixels(shape, "uint8")
    np.testing.assert_array_equal(preprocess_input(x, mode="rescale"), x.astype("float32") / np.float32(255))
    np.testing.assert_allclose(jax.jit(partial(preprocess_input, mode="rescale"))(x), x / np.float32(255), rtol=3e-7)
