"""Winograd's convolution against lax's, and its matrices against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps.ops import primitives as ops
from flaxapps.ops import winograd
from tests.recipe import relative_difference

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("length", [1, 3, 5, 7])
def test_the_matrices_convolve_in_one_dimension(length):
    a, g, b = winograd.interpolation(length)
    tile, kernel = RANDOM.normal(size=len(b)), RANDOM.normal(size=length)
    expected = np.correlate(tile, kernel, "valid")
    assert len(expected) == (4 if length > 1 else 1)
    np.testing.assert_allclose(a @ ((g @ kernel) * (b @ tile)), expected, rtol=0, atol=1e-12)


SIZES = [(3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (7, 1), (3, 5)]
SMALL, LARGE = (1, 7, 8, 2), (2, 9, 10, 3)
QUICK = [(SMALL, "valid"), (LARGE, "same")]
SLOW = [(SMALL, "same"), (LARGE, "valid")]  # a second of compiling each


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("shape", "padding"), [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)], ids=str
)
def test_all_sizes(shape, size, padding):
    x, kernel = RANDOM.normal(size=shape).astype("f4"), RANDOM.normal(size=(*size, shape[3], 5)).astype("f4")
    expected = ops.convolution(jnp.asarray(x), jnp.asarray(kernel), (1, 1), padding)
    ours = winograd.winograd_convolution(x, winograd.transform_kernel(kernel), size, padding)
    assert ours.shape == expected.shape
    assert relative_difference(ours, expected) <= 1e-5


def test_the_gradient():
    x, kernel = RANDOM.normal(size=(1, 6, 5, 2)).astype("f4"), RANDOM.normal(size=(3, 3, 2, 2)).astype("f4")

    def total(convolve, kernel):
        return jax.jit(jax.grad(lambda x: (convolve(x, kernel) ** 2).sum()))(x)

    ours = total(lambda x, m: winograd.winograd_convolution(x, m, (3, 3), "same"), winograd.transform_kernel(kernel))
    expected = total(lambda x, kernel: ops.convolution(x, jnp.asarray(kernel), (1, 1), "same"), kernel)
    assert relative_difference(ours, np.asarray(expected)) <= 1e-5


@pytest.mark.parametrize(("size", "channels"), [((3, 3), 64), ((3, 3), 512), ((1, 7), 192), ((5, 5), 48)], ids=str)
def test_rounding(size, channels):
    """The error against float64 that the choice of points is for; for 3x3 with 0, 1, -1, 2, -2 it is above 8e-6."""
    x = np.maximum(RANDOM.normal(size=(1, 12, 12, channels)), 0)
    kernel = RANDOM.normal(size=(*size, channels, 64)) / np.sqrt(np.prod(size) * channels)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
    exact = np.einsum("bhwcij,ijco->bhwo", windows, kernel, optimize=True)
    matrices = winograd.transform_kernel(kernel.astype("f4"))
    ours = winograd.winograd_convolution(jnp.asarray(x, "f4"), matrices, size, "valid")
    assert relative_difference(ours, exact) <= (5e-6 if max(size) == 3 else 1.5e-5)
