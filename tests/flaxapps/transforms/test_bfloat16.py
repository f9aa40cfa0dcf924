"""`optimize(precision="bfloat16")`: outputs beside those in float32, and what stays in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
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
    assert 1e-5 < relative_difference(result, exact) < (1e-2 if platform == "cpu" else 3e-2)
    kernels = {name: leaves["kernel"].dtype for name, leaves in arrays["params"].items() if "kernel" in leaves}
    assert kernels["classifier"] == jnp.float32
    assert kernels["conv_1"] == kernels["conv_3"] == jnp.bfloat16
    assert kernels["conv_0"] == (jnp.float32 if platform == "cpu" else jnp.bfloat16)  # few channels
    pointwise = arrays["params"]["separable"]["kernel" if platform == "cpu" else "pointwise_kernel"]
    assert pointwise.dtype == jnp.bfloat16


def test_one_pixel_stays_in_float32():
    """Squeeze-and-excite multiplies single rows, for which XLA has no fast product in bfloat16; Dense on images is."""
    x = inputs = Input((8, 8, 32))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(32, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Dense(64, activation="gelu", name="dense")(layers.Multiply()([x, gate]))
    model = Model(inputs, x)
    variables = recipe_variables(model)
    half, arrays = flaxapps.optimize(model, variables, precision="bfloat16", platform="cpu")
    assert arrays["params"]["excite"]["kernel"].dtype == jnp.float32
    assert arrays["params"]["dense"]["kernel"].dtype == jnp.bfloat16
    assert [layer.class_name for layer in half.layers][-1] == "Bfloat16Dense"
    images = np.random.default_rng(0).random((2, 8, 8, 32), np.float32)
    assert 1e-5 < relative_difference(half.apply(arrays, images), model.apply(variables, images)) < 1e-2


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
