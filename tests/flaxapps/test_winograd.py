"""Winograd's convolution against lax's, and its matrices against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import ops, winograd
from tests.networks import relative_difference

RANDOM = np.random.default_rng(0)


def test_the_matrices_convolve_in_one_dimension():
    tile, kernel = RANDOM.normal(size=winograd.TILE), RANDOM.normal(size=3)
    output = winograd.A @ ((winograd.G @ kernel) * (winograd.B @ tile))
    np.testing.assert_allclose(output, np.correlate(tile, kernel, "valid"), rtol=0, atol=1e-13)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 2), (2, 9, 6, 3)], ids=str)
def test_all_sizes(shape, padding):
    x, kernel = RANDOM.normal(size=shape).astype("f4"), RANDOM.normal(size=(3, 3, shape[3], 5)).astype("f4")
    expected = ops.convolution(jnp.asarray(x), jnp.asarray(kernel), (1, 1), padding)
    ours = winograd.winograd_convolution(x, winograd.transform_kernel(kernel), padding)
    assert ours.shape == expected.shape
    assert relative_difference(ours, expected) <= 5e-6


def test_the_gradient():
    x, kernel = RANDOM.normal(size=(1, 6, 5, 2)).astype("f4"), RANDOM.normal(size=(3, 3, 2, 2)).astype("f4")

    def total(convolve, kernel):
        return jax.jit(jax.grad(lambda x: (convolve(x, kernel) ** 2).sum()))(x)

    ours = total(lambda x, m: winograd.winograd_convolution(x, m, "same"), winograd.transform_kernel(kernel))
    expected = total(lambda x, kernel: ops.convolution(x, jnp.asarray(kernel), (1, 1), "same"), kernel)
    assert relative_difference(ours, np.asarray(expected)) <= 1e-5


@pytest.mark.parametrize("channels", [64, 512])
def test_rounding(channels):
    """The error against float64 that the choice of points is for; with 0, 1, -1, 2, -2 it is above 8e-6."""
    x = np.maximum(RANDOM.normal(size=(1, 12, 12, channels)), 0)
    kernel = RANDOM.normal(size=(3, 3, channels, 64)) / np.sqrt(9 * channels)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    exact = np.einsum("bhwcij,ijco->bhwo", windows, kernel, optimize=True)
    matrices = winograd.transform_kernel(kernel.astype("f4"))
    ours = winograd.winograd_convolution(jnp.asarray(x, "f4"), matrices, "valid")
    assert relative_difference(ours, exact) <= 5e-6
