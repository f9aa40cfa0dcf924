"""Which layers become int8, what is stored in int8 between them, and that the arithmetic is that of the network."""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.quantization.calibrate import layer_outputs
from flaxapps.quantization.rebuild import is_relu
from tests.flaxapps.quantization.networks import every_kind, images, variables_of

MODEL = every_kind()
VARIABLES = variables_of(MODEL)


@pytest.fixture(scope="module")
def quantized():
    return flaxapps.quantize(MODEL, VARIABLES, images())


def test_kinds(quantized):
    kinds = {layer.name: layer.class_name for layer in quantized.model.layers}
    same = {"first": "Conv2D", "sum": "Add", "shared": "Conv2D", "mean": "GlobalAveragePooling2D", "head": "Dense"}
    moved = {"pool": "MaxPooling2D", "both": "Concatenate", "branch_b": "QuantizedAveragePooling2D"}
    changed = dict.fromkeys(("conv", "linear", "branch_a", "separable"), "QuantizedConv2D")
    others = {"separable_depthwise": "QuantizedDepthwiseConv2D", "padded": "QuantizedZeroPadding2D"}
    expected = {**same, **moved, **changed, **others, "inner": "Functional"}
    assert {name: kinds[name] for name in expected} == expected
    assert [layer.class_name for layer in quantized.model.get_layer("inner").layers] == [
        "InputLayer",
        "Quantize",
        "QuantizedConv2D",
    ]
    # Rounding cuts negative numbers off, so no relu is left; swish is not a relu.
    assert not {"relu", "sum_relu"} & set(kinds)
    assert quantized.model.get_layer("conv").activation is None
    assert quantized.model.get_layer("separable").activation == "swish"


def test_tensors_between_int8_layers_are_int8(quantized):
    outputs = layer_outputs(quantized.model, None, quantized.variables, images(2))
    dtypes = {name: str(values["__call__"][0].dtype) for name, values in outputs.items() if "__call__" in values}
    for name in ("relu_quantize", "padded", "pool", "conv_quantize", "sum_relu_quantize", "branch_b", "both"):
        assert dtypes[name] == "int8", name
    for name in ("conv", "linear", "separable"):
        assert dtypes[name] == "float32", name
    # A residual sum reads one of its terms as int8, and the other as it comes from the product.
    assert {step.layer.name for step in quantized.model.graph.steps} >= {"pool_dequantize"}


def test_the_arrays_are_int8_with_one_scale_per_channel(quantized):
    arrays = quantized.variables["params"]["conv"]
    assert {leaf: (str(array.dtype), array.shape) for leaf, array in arrays.items()} == {
        "kernel": ("int8", (3, 3, 16, 16)),
        "scale": ("float32", (16,)),
        "bias": ("float32", (16,)),
    }
    assert (abs(np.asarray(arrays["kernel"], int)).max((0, 1, 2)) == 127).all()
    made = quantized.model.init_variables(base={"params": {"first": quantized.variables["params"]["first"]}})
    assert jax.tree.map(lambda array: (array.shape, str(array.dtype)), made) == jax.tree.map(
        lambda array: (array.shape, str(array.dtype)), dict(quantized.variables)
    )


def test_outputs_are_close(quantized):
    x = images(20)
    exact, rounded = flaxapps.predict(MODEL, VARIABLES, x), flaxapps.predict(*quantized, x)
    assert 1e-6 < abs(exact - rounded).max() < 0.02
    # Integer sums are exact, so the size of the batch, and the loop over images of `optimize`, change next to nothing.
    np.testing.assert_allclose(flaxapps.predict(*quantized, x, batch_size=3), rounded, rtol=0, atol=1e-3)
    plain = flaxapps.predict(*quantized, x, optimize=None)
    np.testing.assert_allclose(plain, rounded, rtol=0, atol=1e-3)


@pytest.mark.parametrize("lowest", [0, -100])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_whole_numbers_are_exact(lowest, padding):
    """With images and a kernel of whole numbers over the full range of int8 nothing is rounded."""
    random = np.random.default_rng(1)
    x = random.integers(lowest, lowest + 256, (8, 6, 6, 16)).astype("f4")
    x[0, 0, 0, :2] = lowest, lowest + 255
    kernel = random.integers(-127, 128, (3, 3, 16, 16)).astype("f4")
    kernel[0, 0, 0] = 127
    image = Input((6, 6, 16))
    model = Model(image, layers.Conv2D(16, 3, 2, padding=padding, name="conv")(image))
    variables = {"params": {"conv": {"kernel": kernel, "bias": np.arange(16, dtype="f4")}}}
    quantized = flaxapps.quantize(model, variables, x, calibration="minmax")
    assert quantized.variables["params"]["input_layer_quantize"]["scale"] == 1
    exact = flaxapps.predict(model, variables, x)
    assert abs(exact).max() > 1e5
    np.testing.assert_allclose(flaxapps.predict(*quantized, x), exact, rtol=0, atol=0.5)


def test_channels_first_and_grouped_layers():
    x = Input((16, 8, 6), data_format="channels_first")
    y = layers.Conv2D(32, 1, name="conv")(x)
    model = Model(x, layers.Conv2D(32, 3, groups=2, name="grouped")(y))
    variables = variables_of(model)
    photos = np.random.default_rng(0).normal(size=(8, 16, 8, 6)).astype("f4")
    quantized = flaxapps.quantize(model, variables, photos)
    assert quantized.model.get_layer("grouped").class_name == "Conv2D"
    exact, rounded = flaxapps.predict(model, variables, photos), flaxapps.predict(*quantized, photos)
    assert exact.shape == rounded.shape
    assert 0 < abs(exact - rounded).max() < 0.02 * abs(exact).max()


def test_dense_layers_on_sequences_are_int8():
    x = Input((7, 32))
    model = Model(x, layers.Dense(16, activation="gelu", name="dense")(x))
    photos = np.random.default_rng(0).normal(size=(8, 7, 32)).astype("f4")
    quantized = flaxapps.quantize(model, model.init_variables(), photos)
    assert quantized.model.get_layer("dense").class_name == "QuantizedDense"
    exact = flaxapps.predict(model, model.init_variables(), photos)
    noise = flaxapps.predict(*quantized, photos) - exact
    assert 30 < 10 * np.log10((exact**2).sum() / (noise**2).sum()) < 60


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", True), (layers.ReLU(), True), (layers.ReLU(max_value=6), False), ("relu6", False), (None, False)],
)
def test_is_relu(activation, expected):
    assert is_relu(activation) is expected
