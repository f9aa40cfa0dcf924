"""Products of bfloat16 factors beside those of the same numbers in float32."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flaxapps.ops import bfloat16
from flaxapps.ops import primitives as ops
from tests.recipe import relative_difference

# Of images and kernel, strides, padding and dilation.
SHAPES = [
    ((2, 9, 8, 96), (3, 3, 96, 8), (1, 1), "same", (1, 1)),
    ((1, 10, 7, 128), (1, 7, 128, 16), (2, 1), "valid", (1, 1)),
    ((2, 12, 11, 96), (3, 2, 96, 8), (2, 2), "same", (1, 1)),
    ((1, 9, 9, 100), (3, 3, 100, 4), (1, 1), "valid", (2, 2)),
]


@pytest.mark.parametrize("form", ["cpu", "default"])
@pytest.mark.parametrize(("shape", "kernel", "strides", "padding", "dilation"), SHAPES)
def test_float32_sums(monkeypatch, form, shape, kernel, strides, padding, dilation):
    """In the form of CPUs and in that of other platforms."""
    monkeypatch.setattr(lax, "platform_dependent", mock.Mock(side_effect=lambda *arrays, **forms: forms[form](*arrays)))
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=each), jnp.float32) for each in (shape, kernel)]
    rounded = [each.astype(jnp.bfloat16).astype(jnp.float32) for each in arrays]
    steps = {"strides": strides, "padding": padding, "dilation": dilation}
    result = jax.jit(functools.partial(bfloat16.convolution, **steps))(*arrays)
    assert result.dtype == jnp.float32
    assert relative_difference(result, jax.jit(functools.partial(ops.convolution, **steps))(*rounded)) < 1e-5


@pytest.mark.parametrize(("shape", "kernel", "strides", "padding", "dilation"), SHAPES)
def test_convolutions_as_products_of_windows(shape, kernel, strides, padding, dilation):
    """Results and gradients beside float32, from the same rounded numbers."""
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=each), jnp.bfloat16) for each in (shape, kernel)]

    def compute(x, kernel):
        return ops.convolution(x, kernel, strides, padding, dilation)

    def total(x, kernel):
        return jnp.sum(jnp.square(compute(x, kernel).astype(jnp.float32)))

    wide = [each.astype(jnp.float32) for each in arrays]
    result = jax.jit(compute)(*arrays)
    assert result.dtype == jnp.bfloat16
    assert relative_difference(result.astype(jnp.float32), jax.jit(compute)(*wide)) < 5e-3
    for mine, other in zip(jax.grad(total, (0, 1))(*arrays), jax.grad(total, (0, 1))(*wide), strict=True):
        assert relative_difference(mine.astype(jnp.float32), other) < 2e-2
