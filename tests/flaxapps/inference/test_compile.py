"""compile: shapes, dtypes, several ends, devices, costs."""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.inference.compile import estimate_costs
from tests.recipe import recipe_variables, relative_difference

SHAPE = (6, 5, 3)


def small(shape=SHAPE, data_format="channels_last"):
    image = Input(shape, data_format=data_format)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    return Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)), name="small")


MODEL = small()
VARIABLES = MODEL.init_variables()


def photos(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
def test_outputs_are_those_of_apply(dtype):
    compiled = flaxapps.compile(MODEL, VARIABLES, 4, dtype=dtype)
    x = photos(4, *SHAPE).astype(dtype)
    output = compiled(x)
    assert isinstance(output, jax.Array)
    assert output.dtype == np.float32
    assert_close(output, MODEL.apply(VARIABLES, x.astype("float32")))
    assert_close(compiled(jax.numpy.asarray(x)), output)


def test_nothing_is_compiled_or_sent_again():
    """The weights are on the device, and the images alone go there."""
    compiled = flaxapps.compile(MODEL, VARIABLES, 2)
    x = jax.device_put(photos(2, *SHAPE).astype("float32"), jax.local_devices()[0])
    before = compiled(x)
    with jax.transfer_guard("disallow"), jax.no_tracing():
        after = compiled(x)
    np.testing.assert_array_equal(after, before)


def test_preprocessing_is_compiled_in():
    compiled = flaxapps.compile(MODEL, VARIABLES, 2, dtype="uint8", preprocess="tf")
    x = photos(2, *SHAPE)
    assert_close(compiled(x), MODEL.apply(VARIABLES, x.astype("float32") / 127.5 - 1))


@pytest.mark.parametrize("mode", ["default", "fast"])
def test_the_optimized_network_is_compiled(mode):
    image = Input((40, 40, 3))
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, name="conv")(image))
    model = Model(image, layers.Conv2D(32, 3)(layers.Activation("relu")(x)))
    variables = recipe_variables(model)
    compiled = flaxapps.compile(model, variables, 2, dtype="uint8", preprocess="tf", optimize=mode)
    kinds = {layer.class_name for layer in compiled.model.layers}
    assert "BatchNormalization" not in kinds
    assert kinds == {layer.class_name for layer in flaxapps.optimize(model, variables, mode).model.layers}
    x = photos(2, 40, 40, 3)
    expected = model.apply(variables, x.astype("float32") / 127.5 - 1)
    assert relative_difference(compiled(x), expected) < (1e-5 if mode == "default" else 1e-4)
    with pytest.raises(ValueError, match="optimize"):
        flaxapps.compile(model, variables, 2, optimize="quick")


def test_free_sizes_and_channels_first():
    model = small((3, None, None), "channels_first")
    x = photos(2, 3, 7, 9)
    compiled = flaxapps.compile(model, VARIABLES, 2, (3, 7, 9), "uint8")
    assert_close(compiled(x), model.apply(VARIABLES, x.astype("float32")))


def test_several_inputs_and_outputs():
    first, second = Input((4,)), Input((3,))
    model = Model([first, second], [layers.Concatenate()([second, first]), first])
    arrays = [photos(2, 4).astype("float32"), photos(2, 3).astype("float32")]
    together, alone = flaxapps.compile(model, {}, 2)(arrays)
    np.testing.assert_array_equal(together, np.concatenate(arrays[::-1], axis=1))
    np.testing.assert_array_equal(alone, arrays[0])


def test_another_device():
    device = jax.local_devices()[3]
    compiled = flaxapps.compile(MODEL, VARIABLES, 2, device=device)
    output = compiled(photos(2, *SHAPE).astype("float32"))
    arrays = [output, *jax.tree.leaves(compiled.variables)]
    assert {each for array in arrays for each in array.devices()} == {device}


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (photos(2, *SHAPE), r"compiled for float32\(2, 6, 5, 3\), got uint8\(2, 6, 5, 3\)"),
        (np.zeros((3, *SHAPE), np.float32), r"got float32\(3, 6, 5, 3\).*flaxapps.predict"),
        (np.zeros(SHAPE, np.float32), r"got float32\(6, 5, 3\)"),
    ],
)
def test_other_arrays_than_compiled_for(x, words):
    with pytest.raises(ValueError, match=words):
        flaxapps.compile(MODEL, VARIABLES, 2)(x)


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="small cannot be compiled") as caught:
        flaxapps.compile(MODEL, VARIABLES, 0, (6, 5, 4), "string")
    for words in (
        "batch_size should be at least 1, got 0",
        "fit (6, 5, 3), got (6, 5, 4)",
        "'float32' or 'uint8', got",
    ):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match=r"images of any size, \(None, None, 3\): give input_shape"):
        flaxapps.compile(small((None, None, 3)), VARIABLES, 1)
    with pytest.raises(ValueError, match="preprocess=True"):
        flaxapps.compile(MODEL, VARIABLES, 1, preprocess=True)


def test_costs():
    """The convolution's products are counted by hand; weights and images by their bytes."""
    costs = flaxapps.compile(MODEL, VARIABLES, 8, dtype="uint8").costs
    products = 8 * (4 * 3) * (3 * 3 * 3) * 4
    assert 2 * products <= costs.flops <= 2 * products * 1.3
    assert costs.weight_bytes == 4 * MODEL.count_params()
    assert costs.input_bytes == 8 * 6 * 5 * 3
    assert costs.output_bytes >= 8 * 2 * 4
    assert costs.device_bytes >= costs.weight_bytes + costs.input_bytes + costs.temporary_bytes
    assert estimate_costs(MODEL, 8, dtype="uint8") == costs
    assert costs.temporary_bytes > estimate_costs(MODEL, 2, dtype="uint8").temporary_bytes
