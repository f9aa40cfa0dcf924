"""The gradients of products on CPU: those of lax's own forms, also mapped, in forward mode and over several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from flaxapps.ops import primitives as ops
from flaxapps.ops.cpu_gradients import LEAST_ROWS, depthwise_convolution

# Images, kernel, groups; each matrix has enough rows, and a narrow and a wide side, or one of two blocks.
CASES = {
    "narrow result": ((2, 12, 12, 20), (1, 1, 20, 6), 1),
    "narrow images": ((2, 12, 12, 6), (1, 1, 6, 20), 1),
    "two blocks": ((2, 12, 12, 130), (1, 1, 130, 140), 1),
    "few rows": ((2, 4, 4, 8), (1, 1, 8, 5), 1),
    "windows": ((1, 16, 16, 96), (3, 3, 96, 8), 1),
    "depthwise": ((2, 7, 6, 5), (3, 3, 1, 5), 5),
    "depthwise, 49 places": ((2, 9, 9, 3), (7, 7, 1, 3), 3),
}


def factors(image, kernel, dtype):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape, np.float32), dtype) for shape in (image, kernel)]


def lax_convolution(x, kernel, groups):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, numbers, groups)


def largest_difference(mine, other):
    mine, other = (np.asarray(each.astype(jnp.float32)) for each in (mine, other))
    return np.abs(mine - other).max() / np.abs(other).max()


@pytest.mark.parametrize(("image", "kernel", "groups"), CASES.values(), ids=CASES)
def test_gradients(image, kernel, groups):
    """bfloat16 differs from float32, with the same numbers, by its own rounding, that of windows nine times."""
    x, w = factors(image, kernel, jnp.bfloat16)
    wide = [each.astype(jnp.float32) for each in (x, w)]
    ours, theirs = (
        jax.jit(jax.vjp(functools.partial(form, **options), *inputs)[1])
        for form, options, inputs in (
            (ops.convolution, {"strides": (1, 1), "padding": "same", "groups": groups}, (x, w)),
            (lax_convolution, {"groups": groups}, wide),
        )
    )
    seed = jnp.asarray(np.random.default_rng(1).standard_normal((*image[:3], kernel[-1]), np.float32), jnp.bfloat16)
    for mine, other in zip(ours(seed), theirs(seed.astype(jnp.float32)), strict=True):
        assert mine.dtype == jnp.bfloat16
        assert largest_difference(mine, other) < (2**-6 if image[-1] == 96 else 2**-8)


def loss(x, w):
    product = ops.convolution(x, w, (1, 1), "same", groups=x.shape[-1] if w.shape[2] == 1 else 1)
    return jnp.sum(jnp.square(product.astype(jnp.float32)))


@pytest.mark.parametrize("name", ["narrow result", "depthwise"])
def test_every_transformation(name):
    """Forward mode, `vmap` of gradients, gradients of `vmap`, and second derivatives."""
    image, kernel, _ = CASES[name]
    x, w = factors(image, kernel, jnp.bfloat16)
    gradient = jax.jit(jax.grad(loss, 1))(x, w)
    assert largest_difference(jax.jit(lambda: jax.jvp(loss, (x, w), (x, w))[1])(), 4 * loss(x, w)) < 1e-2
    for_each = jax.jit(jax.vmap(jax.grad(loss, 1), (0, None)))(x[:, None], w)
    assert largest_difference(for_each.astype(jnp.float32).sum(0), gradient) < 2**-6
    of_all = jax.jit(jax.grad(lambda w: jax.vmap(loss, (0, None))(x[:, None], w).sum()))(w)
    assert largest_difference(of_all, gradient) < 2**-6
    again = jax.jit(jax.grad(lambda w: jnp.vdot(jax.grad(loss, 1)(x, w).astype(jnp.float32), w.astype(jnp.float32))))(w)
    assert largest_difference(again, 2 * gradient) < 2**-6  # the loss is quadratic


@pytest.mark.parametrize("name", ["narrow result", "depthwise"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_over_several_devices(name, dtype):
    """Under `shard_map` JAX knows over which devices arrays vary, and sums gradients over them."""
    image, kernel, _ = CASES[name]
    x, w = factors(image, kernel, dtype)
    mesh = Mesh(np.array(jax.local_devices()[:2]), ("batch",))
    split = PartitionSpec("batch")
    part = jax.shard_map(
        lambda x, w: jax.lax.psum(loss(x, w), "batch"),
        mesh=mesh,
        in_specs=(split, PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    tolerance = 2**-6 if dtype == "bfloat16" else 1e-6
    assert largest_difference(jax.jit(jax.grad(part, 1))(x, w), jax.jit(jax.grad(loss, 1))(x, w)) < tolerance


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
def test_gradient_of_pooling(pool):
    """Rounded once, not at each of nine places."""
    x = jnp.arange(128, dtype=jnp.bfloat16).reshape(2, 8, 8, 1) + 1  # all different
    seed = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 1), np.float32), jnp.bfloat16)

    def pull(x):
        return jax.jit(jax.vjp(lambda x: pool(x, (3, 3), (1, 1), "same"), x)[1])(seed.astype(x.dtype))[0]

    assert largest_difference(pull(x), pull(x.astype(jnp.float32))) < 2**-8


def test_form_of_the_gradients():
    """Of a matrix: no product whose first factor is transposed. Of a depthwise kernel: one reduction."""
    image, kernel, _ = CASES["narrow result"]
    x, w = factors(image, kernel, jnp.bfloat16)
    assert image[0] * image[1] * image[2] >= LEAST_ROWS
    text = jax.jit(jax.grad(loss, 1)).lower(x, w).as_text()
    assert "contracting_dims = [0] x [0]" not in text
    image, kernel, _ = CASES["depthwise"]
    x, w = factors(image, (3, 3, image[-1], 1), jnp.float32)
    options = {"strides": (1, 1), "padding": "same", "dilation": (1, 1)}
    text = jax.jit(jax.vjp(lambda w: depthwise_convolution(x, w, **options), w)[1]).lower(x).as_text()
    assert text.count("stablehlo.reduce(") == 1 + 9  # over pixels, then the nine sums over images
