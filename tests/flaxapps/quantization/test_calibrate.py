"""Ranges, and what is said of images that do not suit calibration."""

import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.quantization.calibrate import measure_ranges, scale_and_zero_point
from tests.flaxapps.quantization.networks import images

X = Input((12, 12, 3))
MODEL = Model(X, layers.Conv2D(16, 3, name="second")(layers.Conv2D(16, 3, activation="relu", name="first")(X)))
VARIABLES = MODEL.init_variables()


def nested(*before):
    """A model of other layers and then the model, under the name of a published network."""
    node = x = Input((12, 12, 3))
    for layer in before:
        node = layer(node)
    return Model(x, named("xception")(node), name="mine")


def named(name):
    """The model, with the name of a published network and so its preprocessing."""
    return Model(MODEL.inputs, MODEL.outputs, name=name)


def test_ranges_are_of_all_images():
    x = images()
    ranges = measure_ranges(MODEL, VARIABLES, [x[:3], x[3:]], None)
    assert ranges.keys() == {((), 1)}  # the output of the first layer; the others stay in float32
    assert (ranges[(), 1][0], ranges[(), 1][1] > 1) == (0, True)
    mse = measure_ranges(MODEL, VARIABLES, [x[:3], x[3:]], None, "mse")
    assert all(mse[key][1] <= ranges[key][1] for key in ranges)


def test_mse_cuts_a_lonely_value_off():
    x = np.random.default_rng(0).normal(size=(8, 12, 12, 16)).astype("f4")
    x[0, 0, 0, 0] = 12
    image = Input((12, 12, 16))
    model = Model(image, layers.Conv2D(16, 1)(image))

    def error(calibration):
        low, high = measure_ranges(model, model.init_variables(), [x[:5], x[5:]], None, calibration)[(), 0]
        scale, zero_point = scale_and_zero_point(low, high)
        return high, (((np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point) * scale - x) ** 2).sum()

    (full, error_of_full), (cut, error_of_cut) = error("minmax"), error("mse")
    assert (full, cut < full) == (12, True)
    assert error_of_cut < error_of_full


@pytest.mark.parametrize("ends", [(0, 0), (0, 3), (-1, 2), (1, 2), (-3, -1)])
def test_zero_is_exact_and_the_range_is_covered(ends):
    scale, zero_point = scale_and_zero_point(*ends)
    assert -128 <= zero_point <= 127
    assert scale > 0
    assert (-128 - zero_point) * scale <= min(*ends, 0) + scale / 2
    assert (127 - zero_point) * scale >= max(*ends, 0) - scale / 2


@pytest.mark.parametrize(
    ("photos", "problem"),
    [
        (np.full((8, 12, 12, 3), 0.5, "f4"), "all of them are constant"),
        (np.repeat(images(1), 8, axis=0), "all 8 are equal"),
        (np.zeros((0, 12, 12, 3), "f4"), "there are none"),
        ([], "there are none"),
        (np.concatenate([images(3), np.full((1, 12, 12, 3), np.nan, "f4")]), "image 3 contains NaN"),
        ([images(8), np.full((1, 12, 12, 3), np.inf, "f4")], "image 8 contains NaN or infinity"),
        (images(8, 11), r"takes arrays of shape \(batch, 12, 12, 3\)"),
    ],
    ids=["constant", "equal", "none", "empty", "nan", "infinity", "size"],
)
def test_wrong_images_are_errors(photos, problem):
    with pytest.raises(ValueError, match=problem):
        flaxapps.quantize(MODEL, VARIABLES, photos)


def test_one_image_is_a_warning():
    with pytest.warns(UserWarning, match="Calibrated on 1 image only"):
        flaxapps.quantize(MODEL, VARIABLES, images(1))


@pytest.mark.parametrize(
    ("name", "photos", "preprocess", "problem"),
    [
        ("resnet50", 255 * abs(images()) / 5, False, 'preprocessing "caffe"'),
        ("xception", 255 * abs(images()) / 5, False, 'preprocessing "tf"'),
        ("resnet50", images() / 10, False, 'preprocessing "caffe"'),
        ("resnet50", abs(images()) / 5, True, "takes pixels from 0 to 255"),
        ("resnet50", images(), True, "takes pixels from 0 to 255"),
        ("mine", images() * 1000, "tf", "takes pixels from 0 to 255"),
    ],
)
def test_a_wrong_range_is_a_warning(name, photos, preprocess, problem):
    with pytest.warns(UserWarning, match=problem):
        flaxapps.quantize(named(name), VARIABLES, photos, preprocess=preprocess)


@pytest.mark.parametrize(
    ("name", "photos", "preprocess"),
    [
        ("resnet50", np.clip(60 * images() + 120, 0, 255).astype("u1"), True),
        ("resnet50", np.clip(60 * images(), -100, 130), False),
        ("xception", np.clip(images(), -1, 1), False),
        ("mine", 1000 * images(), False),
    ],
)
def test_a_right_range_is_silent(name, photos, preprocess):
    flaxapps.quantize(named(name), VARIABLES, photos, preprocess=preprocess)


def test_the_range_of_a_nested_network():
    variables = {"params": {"xception": VARIABLES["params"]}}
    photos = 255 * abs(images()) / 5
    flaxapps.quantize(nested(layers.Rescaling(1 / 127.5, -1.0)), variables, photos)
    flaxapps.quantize(nested(), variables, photos, preprocess=lambda x: x / 127.5 - 1)
    with pytest.warns(UserWarning, match='preprocessing "tf"'):
        flaxapps.quantize(nested(), variables, photos)


def test_unknown_calibration():
    with pytest.raises(ValueError, match="calibration should be 'minmax' or 'mse', got 'median'"):
        flaxapps.quantize(MODEL, VARIABLES, images(), calibration="median")
