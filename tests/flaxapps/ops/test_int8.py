"""int8 arithmetic against the same in NumPy and in float64, in the form for CPUs and in that for other platforms."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flaxapps.ops import int8, primitives

RANDOM = np.random.default_rng(0)


def whole(*shape):
    return RANDOM.integers(-128, 128, shape, dtype=np.int8)


@pytest.fixture(params=["cpu", "default"])
def form(request, monkeypatch):
    """Takes the form of the CPU or that of other platforms."""
    chosen = mock.Mock(side_effect=lambda *arrays, **forms: forms[request.param](*arrays))
    monkeypatch.setattr(lax, "platform_dependent", chosen)
    return chosen


@pytest.mark.parametrize("zero_point", [-128, 0, 5])
def test_rounding_is_half_to_even_and_cut(zero_point):
    values = np.array([0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.4, 1e9, -1e9, 3e38, -3e38, 1e-30], np.float32)
    expected = np.clip(np.rint(values + np.float32(zero_point)), -128, 127).astype(np.int8)
    np.testing.assert_array_equal(jax.jit(int8.quantize, static_argnums=2)(values, 1.0, zero_point), expected)


def test_quantized_numbers_return_within_half_a_step():
    values = RANDOM.uniform(-3, 5, 1000).astype(np.float32)
    scale = np.float32(8 / 255)
    back = int8.dequantize(int8.quantize(jnp.asarray(values), scale, -32), scale, -32)
    np.testing.assert_allclose(back, values, rtol=0, atol=scale / 2 * 1.001)


@pytest.mark.parametrize("window", [(1, 1), (3, 2)])
@pytest.mark.parametrize(
    ("strides", "padding", "dilation"), [((1, 1), "same", (1, 1)), ((2, 2), "same", (1, 1)), ((1, 1), "valid", (2, 1))]
)
@pytest.mark.parametrize("zero_point", [-128, 0])
def test_convolutions_are_exact(form, window, strides, padding, dilation, zero_point):
    x, kernel = whole(2, 9, 8, 16), whole(*window, 16, 20)
    got = int8.convolution(jnp.asarray(x), jnp.asarray(kernel), strides, padding, dilation, zero_point)
    # Padding of images that are shifted by the zero point is with 0.
    shifted = lax.conv_general_dilated(
        jnp.asarray(x, np.float32) - zero_point,
        jnp.asarray(kernel, np.float32),
        strides,
        padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    correction = zero_point * kernel.astype(np.int64).sum((0, 1, 2))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, shifted + correction.astype(np.float32))
    assert form.called


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution(form, multiplier):
    x, kernel = whole(2, 7, 6, 5), RANDOM.normal(size=(3, 3, 5, multiplier)).astype(np.float32)
    got = int8.depthwise_convolution(jnp.asarray(x), jnp.asarray(kernel), (2, 2), "same", (1, 1), -3)
    expected = lax.conv_general_dilated(
        jnp.asarray(x, np.float32) + 3,
        kernel.reshape(3, 3, 1, -1),
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=5,
    )
    np.testing.assert_allclose(got, expected - 3 * kernel.sum((0, 1)).reshape(-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 3, 40), (1, 1, 40), (40,)], ids=["rows", "row of an image", "vector"])
def test_product_of_more_than_two_dimensions(form, shape):
    x, matrix = whole(*shape), whole(40, 24)
    got = int8.multiply(jnp.asarray(x), jnp.asarray(matrix))
    np.testing.assert_array_equal(got, x.astype(np.float32) @ matrix.astype(np.float32))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_average_does_not_count_padding(padding):
    x = whole(1, 6, 5, 3)
    got = int8.average_pool(jnp.asarray(x), (3, 3), (1, 1), padding, -128)
    ones = jnp.ones((1, 6, 5, 1))
    sums = [
        lax.reduce_window(each, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), padding.upper())
        for each in (jnp.asarray(x, np.float32) + 128, ones)
    ]
    assert got.dtype == np.int8
    np.testing.assert_allclose(np.asarray(got, np.float32), sums[0] / sums[1] - 128, rtol=0, atol=0.501)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_maximum_of_whole_numbers(form, dtype):
    x = whole(1, 5, 4, 2).view(dtype)
    got = primitives.max_pool(jnp.asarray(x), (2, 2), (1, 1), "same")
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=np.iinfo(dtype).min)
    expected = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), (1, 2)).max((-1, -2))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


def test_the_largest_sum_fits_into_int32():
    assert int8.MOST_TERMS * 128 * 128 < 2**31
