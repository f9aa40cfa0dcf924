"""The CPU forms of the primitives against lax's own, values and gradients, and what other platforms get."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxapps.ops import primitives as ops

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
COMMON = {
    "size": st.tuples(st.integers(5, 9), st.integers(5, 9)),
    "strides": PAIRS,
    "padding": st.sampled_from(["same", "valid"]),
    "dtype": st.sampled_from(["float32", "bfloat16", "float64"]),
}
TOLERANCES = {"float32": 1e-6, "bfloat16": 2**-7, "float64": 1e-14}
SETTINGS = settings(max_examples=15, deadline=None, derandomize=True)


def lax_convolution(x, kernel, strides, padding, dilation=(1, 1), groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding.upper(), None, dilation, numbers, groups)


def lax_pool(x, start, combine, window, strides, padding):
    return jax.lax.reduce_window(x, start, combine, (1, *window, 1), (1, *strides, 1), padding.upper())


def lax_average(x, *window):
    total, count = (lax_pool(each, 0.0, jax.lax.add, *window) for each in (x, jnp.ones_like(x)))
    return total / count


def compare(ours, theirs, dtype, *shapes, gradients=True):
    """Values and gradients, on inputs without equal pixels; theirs are of float32 at least."""
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        arrays = [jnp.asarray(generator.permutation(np.prod(s)).reshape(s) / np.prod(s) - 0.4, dtype) for s in shapes]
        wide = [ops.at_least_float32(array) for array in arrays]
        output, pull = jax.vjp(jax.jit(ours), *arrays)
        expected, pull_expected = jax.vjp(jax.jit(theirs), *wide)
        assert output.dtype == jnp.dtype(dtype)
        pairs = [(output, expected)]
        if gradients and dtype != "bfloat16":  # rounded to 8 bits, pixels are equal
            seed = jnp.asarray(generator.normal(size=output.shape), dtype)
            pairs += zip(pull(seed), pull_expected(seed), strict=True)
        for mine, other in pairs:
            assert mine.shape == other.shape
            difference = np.max(np.abs(np.asarray(mine, "f8") - np.asarray(other, "f8")))
            assert difference <= TOLERANCES[dtype] * max(1, np.max(np.abs(other)))


def compare_convolutions(arguments, dtype, *shapes, **options):
    ours, theirs = (
        lambda x, kernel, function=function: function(x, kernel, *arguments)
        for function in (ops.convolution, lax_convolution)
    )
    compare(ours, theirs, dtype, *shapes, **options)


@pytest.mark.slow
@SETTINGS
@given(**COMMON, window=st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1)]), dilation=PAIRS, multiplier=st.integers(1, 3))
def test_depthwise_convolution(size, strides, padding, dtype, window, dilation, multiplier):
    if padding == "valid":
        dilation = (1, 1)

    def theirs(x, kernel):
        return lax_convolution(x, kernel.reshape(*window, 1, -1), strides, padding, dilation, groups=4)

    ours = functools.partial(ops.depthwise_convolution, strides=strides, padding=padding, dilation=dilation)
    compare(ours, theirs, dtype, (2, *size, 4), (*window, 4, multiplier))


@pytest.mark.parametrize("window", [(3, 3), (7, 7)])
def test_a_group_for_every_channel(window):
    """Conv2D(groups=channels), as in ConvNeXt, is a depthwise convolution, for which lax takes twenty times as long."""
    ours, theirs = (
        functools.partial(function, strides=(1, 1), padding="same", groups=4)
        for function in (ops.convolution, lax_convolution)
    )
    shapes = (2, 9, 8, 4), (*window, 1, 8)
    compare(ours, theirs, "float32", *shapes)
    lowered = jax.jit(ours).lower(*map(jnp.zeros, shapes)).as_text()
    assert "stablehlo.convolution" not in lowered


@pytest.mark.slow
@SETTINGS
@given(**COMMON)
def test_pointwise_convolution(size, strides, padding, dtype):
    options = {"strides": strides, "padding": padding}
    ours, theirs = (functools.partial(function, **options) for function in (ops.convolution, lax_convolution))
    compare(ours, theirs, dtype, (2, *size, 6), (1, 1, 6, 5))


@pytest.mark.slow
@SETTINGS
@given(**COMMON, window=st.sampled_from([(3, 3), (2, 3), (1, 5)]), dilation=PAIRS)
def test_convolution_of_few_pixels(size, strides, padding, dtype, window, dilation):
    """More filters than pixels, on CPU one product of matrices."""
    channels = 3
    span = max(rate * (length - 1) + 1 for rate, length in zip(dilation, window, strict=True))
    size = tuple(max(length, span) for length in size)
    compare_convolutions(
        (strides, padding, dilation),
        dtype,
        (1, *size, channels),
        (*window, channels, math.prod(size)),
    )


@pytest.mark.slow
@SETTINGS
@given(**(COMMON | {"strides": st.just((1, 1))}), window=st.sampled_from([(3, 3), (2, 3), (1, 7), (7, 1), (4, 4)]))
def test_convolution_of_many_channels(size, strides, padding, dtype, window):
    """With "same", one row too many on CPU."""
    channels = 96
    compare_convolutions(
        (strides, padding),
        dtype,
        (2, *(max(length, *window) for length in size), channels),
        (*window, channels, 2),
    )


@pytest.mark.slow
@SETTINGS
@given(**COMMON, channels=st.sampled_from([3, 4, 20]), filters=st.sampled_from([3, 9, 21]))
@example(size=(5, 7), strides=(1, 1), padding="same", dtype="float32", channels=3, filters=3)
def test_pointwise_convolution_of_many_pixels(size, strides, padding, dtype, channels, filters):
    """At least a thousand pixels, with more filters than channels or fewer."""
    pixels = tuple(6 * length * stride for length, stride in zip(size, strides, strict=True))
    compare_convolutions(
        (strides, padding),
        dtype,
        (2, *pixels, channels),
        (1, 1, channels, filters),
    )


@pytest.mark.slow
@SETTINGS
@given(**COMMON, channels=st.sampled_from([1, 3]), window=st.sampled_from([(3, 3), (2, 3), (5, 5)]), dilation=PAIRS)
def test_convolution_of_few_channels(size, strides, padding, dtype, channels, window, dilation):
    """The first layer of a network, on CPU a sum of shifted images."""
    pixels = tuple(8 * length * stride for length, stride in zip(size, strides, strict=True))
    compare_convolutions(
        (strides, padding, dilation),
        dtype,
        (1, *pixels, channels),
        (*window, channels, 5),
        gradients=dtype == "float64",  # both sum 1,600 pixels in lax's way, and round them differently in float32
    )


FORMS = {
    "few channels": ("stablehlo.slice", (1, 40, 40, 3), (3, 3, 3, 16)),
    "few channels, one pixel": ("stablehlo.slice", (1, 40, 40, 16), (1, 1, 16, 20)),
    "many pixels": ("[b, 0, f]x[0, i, o]->[b, 0, f]", (2, 30, 30, 20), (1, 1, 20, 32)),
    "few pixels": ("dot_general", (1, 3, 3, 8), (3, 3, 8, 16)),
    "many channels": ("pad = [[1, 2], [1, 1]]", (1, 9, 9, 96), (3, 3, 96, 8)),
}


@pytest.mark.parametrize(("form", "image", "kernel"), FORMS.values(), ids=FORMS)
def test_form_of_a_convolution(form, image, kernel):
    """What XLA is given on CPU, and that the gradient of a frozen kernel, or of an image, costs nothing."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (image, kernel)]
    convolution = functools.partial(ops.convolution, strides=(1, 1), padding="same")
    assert form in jax.jit(convolution).lower(*shapes).as_text()

    def flops(argument):
        def total(*factors):
            return jnp.sum(convolution(*factors) ** 2)

        return jax.jit(jax.grad(total, argument)).lower(*shapes).compile().cost_analysis()["flops"]

    assert flops(0) < 0.8 * flops((0, 1)) > flops(1)


@pytest.mark.slow
@SETTINGS
@given(**COMMON, window=PAIRS)
def test_pooling(size, strides, padding, dtype, window):
    place = (window, strides, padding)
    shape = (2, *size, 3)
    compare(lambda x: ops.max_pool(x, *place), lambda x: lax_pool(x, -jnp.inf, jax.lax.max, *place), dtype, shape)
    compare(lambda x: ops.average_pool(x, *place), lambda x: lax_average(x, *place), dtype, shape)


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
@pytest.mark.parametrize(
    ("function", "shapes", "name"),
    [
        (lambda x, k: ops.depthwise_convolution(x, k, (1, 1), "same"), [(3, 3, 4, 1)], "stablehlo.convolution"),
        (lambda x, k: ops.convolution(x, k, (1, 1), "same"), [(1, 1, 4, 5)], "stablehlo.convolution"),
        (lambda x: ops.max_pool(x, (3, 3), (2, 2), "same"), [], "stablehlo.reduce_window"),
        (lambda x: ops.average_pool(x, (3, 3), (2, 2), "valid"), [], "stablehlo.reduce_window"),
    ],
    ids=["depthwise", "pointwise", "max", "average"],
)
def test_other_platforms_keep_the_forms_of_lax(function, shapes, name, platform):
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in [(2, 8, 8, 4), *shapes]]
    text = jax.export.export(jax.jit(function), platforms=[platform])(*arrays).mlir_module()
    own = "optimization_barrier" in text or "dot_general" in text
    assert (name in text, own) == (platform != "cpu", platform == "cpu")
