"""`optimize(precision="bfloat16")`: outputs beside those in float32, and what stays in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.ops import primitives as ops
from tests.recipe import recipe_variables, relative_difference


def network() -> Model:
    """A convolution of every form: few channels, many, one pixel, depthwise; then a classifier."""
    x = inputs = Input((37, 34, 3))
    for number, (filters, size, strides) in enumerate(((32, 3, 2), (96, 1, 1), (128, 3, 1), (128, 3, 2), (64, 5, 1))):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.Activation("relu")(layers.BatchNormalization(name=f"norm_{number}")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(64, 3, name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(10, activation="softmax", name="classifier")(x))


@pytest.mark.parametrize("mode", ["default", "fast"])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_outputs(mode, platform):
    model = network()
    variables = recipe_variables(model)
    x = np.random.default_rng(0).random((2, 37, 34, 3), np.float32)
    exact = model.apply(variables, x)
    half, arrays = flaxapps.optimize(model, variables, mode, precision="bfloat16", platform=platform)
    result = half.apply(arrays, x)
    assert result.dtype == jnp.float32
    assert 1e-5 < relative_difference(result, exact) < 3e-2
    kernels = {name: leaves["kernel"].dtype for name, leaves in arrays["params"].items() if "kernel" in leaves}
    assert kernels["classifier"] == jnp.float32
    assert kernels["conv_0"] == kernels["conv_1"] == kernels["conv_3"] == jnp.bfloat16
    assert arrays["params"]["separable"]["pointwise_kernel"].dtype == jnp.bfloat16


def test_many_channels_on_large_images_stay_winograd():
    x = Input((28, 28, 256))
    model = Model(x, layers.Conv2D(256, 3, padding="same", name="conv")(x))
    shapes = jax.eval_shape(model.init_variables)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    faster, arrays = flaxapps.optimize(model, variables, "fast", precision="bfloat16", platform="cpu")
    assert faster.layers[-1].class_name == "WinogradConv2D"
    assert {leaf.dtype for leaf in arrays["params"]["conv"].values()} == {jnp.dtype("float32")}


def test_compile():
    model = network()
    variables = recipe_variables(model)
    x = np.random.default_rng(0).random((4, 37, 34, 3), np.float32)
    compiled = flaxapps.compile(model, variables, 4, optimize="default", precision="bfloat16")
    assert relative_difference(compiled(x), model.apply(variables, x)) < 3e-2
    with pytest.raises(ValueError, match="precision='bfloat16' needs optimize="):
        flaxapps.compile(model, variables, 4, precision="bfloat16")


def test_unknown_precision():
    model = network()
    with pytest.raises(ValueError, match="precision should be 'float32' or 'bfloat16', got 'float16'"):
        flaxapps.optimize(model, model.init_variables(), precision="float16")


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding", "dilation"),
    [
        ((2, 9, 8, 96), (3, 3, 96, 8), (1, 1), "same", (1, 1)),
        ((1, 10, 7, 128), (1, 7, 128, 16), (2, 1), "valid", (1, 1)),
        ((2, 12, 11, 96), (3, 2, 96, 8), (2, 2), "same", (1, 1)),
        ((1, 9, 9, 100), (3, 3, 100, 4), (1, 1), "valid", (2, 2)),
    ],
)
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
