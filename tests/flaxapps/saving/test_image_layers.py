"""Convolutions, pooling and image layers with every option that changes numbers, imported from Keras.

A row is one layer, shared by two inputs of 9x8 and 8x9 pixels (or the sizes given): both directions see an odd and an
even size, and an option that mixes up height and width shows.
"""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import layers as ours
from flaxapps.layers.image_preprocessing import INTERPOLATIONS
from tests.imported import check_import, keras_outputs, quick, random_inputs, relative_difference
from tests.networks import fresh_keras

CONVOLUTIONS = [
    ("Conv2D", {"filters": 4, "kernel_size": 2, "padding": "same"}),
    ("Conv2D", {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "same", "use_bias": False}),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "strides": (2, 3), "activation": "relu"}),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "strides": 3, "padding": "same"}),
    ("Conv2D", {"filters": 4, "kernel_size": 1, "strides": 2, "padding": "same"}),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2}),
    ("Conv2D", {"filters": 4, "kernel_size": (2, 3), "dilation_rate": (2, 3), "padding": "same"}),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 3}),
    ("Conv2D", {"filters": 6, "kernel_size": 2, "groups": 3, "strides": 2, "padding": "same", "activation": "tanh"}),
    ("Conv2D", {"filters": 3, "kernel_size": 3, "groups": 3, "dilation_rate": 2, "padding": "same"}),
    ("DepthwiseConv2D", {"kernel_size": 3}),
    ("DepthwiseConv2D", {"kernel_size": 3, "padding": "same", "use_bias": False}),
    ("DepthwiseConv2D", {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}),
    ("DepthwiseConv2D", {"kernel_size": 5, "strides": 2, "depth_multiplier": 2}),
    ("DepthwiseConv2D", {"kernel_size": (2, 3), "depth_multiplier": 3, "padding": "same", "activation": "sigmoid"}),
    ("DepthwiseConv2D", {"kernel_size": 3, "dilation_rate": 2, "padding": "same"}),
    ("DepthwiseConv2D", {"kernel_size": (3, 2), "dilation_rate": (2, 3)}),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3}),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "use_bias": False}),
    ("SeparableConv2D", {"filters": 4, "kernel_size": (2, 3), "strides": 2, "depth_multiplier": 2}),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same", "activation": "relu"}),
    ("SeparableConv2D", {"filters": 4, "kernel_size": (3, 2), "dilation_rate": (2, 3), "depth_multiplier": 3}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 2, "strides": 2}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 4, "strides": 2, "padding": "same"}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (2, 5), "strides": (3, 2), "padding": "same"}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (1, 2), "strides": 3}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (2, 1), "strides": 3, "padding": "same"}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (3, 2), "strides": 2, "output_padding": 1}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 4, "strides": 3, "padding": "same", "output_padding": (0, 2)}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (3, 2), "dilation_rate": 2}),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (3, 2), "dilation_rate": (2, 3), "padding": "same"}),
]
POOLINGS = [
    (kind, options)
    for kind in ("MaxPooling2D", "AveragePooling2D")
    for options in (
        {"pool_size": 2},
        {"pool_size": 2, "padding": "same"},
        {"pool_size": 3, "strides": 2, "padding": "same"},
        {"pool_size": (2, 3), "strides": (3, 1)},
        {"pool_size": (3, 2), "strides": 1, "padding": "same"},
        {"pool_size": 2, "strides": 3, "padding": "same"},
    )
] + [(f"Global{kind}Pooling2D", {"keepdims": keep}) for kind in ("Max", "Average") for keep in (False, True)]
SHAPES = [
    ("ZeroPadding2D", {"padding": ((1, 0), (2, 3))}),
    ("ZeroPadding2D", {"padding": (1, 2)}),
    ("Cropping2D", {"cropping": 1}),
    ("Cropping2D", {"cropping": (1, 2)}),
    ("Cropping2D", {"cropping": ((1, 0), (0, 3))}),
    ("UpSampling2D", {}),
    ("UpSampling2D", {"size": (1, 3), "interpolation": "nearest"}),
    *(("UpSampling2D", {"size": (2, 3), "interpolation": name}) for name in INTERPOLATIONS if name != "nearest"),
    *(("Resizing", {"height": 12, "width": 5, "interpolation": name}) for name in INTERPOLATIONS),
    ("Resizing", {"height": 4, "width": 3}),
    ("Resizing", {"height": 4, "width": 3, "antialias": True}),
    ("Resizing", {"height": 3, "width": 4, "antialias": True, "interpolation": "bicubic"}),
    ("Resizing", {"height": 9, "width": 8}),
    ("Resizing", {"height": 6, "width": 11, "crop_to_aspect_ratio": True}),
    ("Resizing", {"height": 11, "width": 6, "crop_to_aspect_ratio": True, "interpolation": "nearest"}),
    ("Resizing", {"height": 6, "width": 6, "crop_to_aspect_ratio": True}),
    ("Resizing", {"height": 6, "width": 11, "pad_to_aspect_ratio": True}),
    ("Resizing", {"height": 11, "width": 6, "pad_to_aspect_ratio": True, "fill_value": 0.5}),
    ("Resizing", {"height": 7, "width": 7, "pad_to_aspect_ratio": True, "fill_value": -1, "interpolation": "bicubic"}),
    ("CenterCrop", {"height": 4, "width": 5}),
    ("CenterCrop", {"height": 5, "width": 4}),
    ("CenterCrop", {"height": 8, "width": 8}),
    ("CenterCrop", {"height": 12, "width": 4}),
    ("CenterCrop", {"height": 7, "width": 13}),
]
SCALES = [
    ("Rescaling", {"scale": 1 / 255}),
    ("Rescaling", {"scale": 1 / 127.5, "offset": -1}),
    ("Rescaling", {"scale": [0.5, 2, 3], "offset": [1.0, 0, -1]}),
    ("Rescaling", {"scale": np.array([0.5, 2, 3], "float32"), "offset": np.float32(0.25)}),
    ("Normalization", {"mean": 0.3, "variance": 2.0}),
    ("Normalization", {"mean": [0.3, 0.4, -1], "variance": [2.0, 0.5, 0]}),
    ("Normalization", {"mean": [0.3, 0.4, -1], "variance": [2.0, 0.5, 1], "invert": True}),
    ("Normalization", {"mean": 0.3, "variance": 2.0, "axis": None}),
    ("Normalization", {"mean": [0.3, 0.4, -1], "variance": [2.0, 0.5, 1], "axis": (-3, -1)}),
]
AUGMENTATIONS = [
    ("AugMix", {}),
    ("CutMix", {}),
    ("MixUp", {}),
    ("RandAugment", {}),
    ("RandomBrightness", {"factor": 0.2}),
    ("RandomColorDegeneration", {"factor": 0.3}),
    ("RandomColorJitter", {"hue_factor": 0.2}),
    ("RandomContrast", {"factor": 0.2, "seed": 3}),
    ("RandomCrop", {"height": 9, "width": 8}),
    ("RandomElasticTransform", {}),
    ("RandomErasing", {}),
    ("RandomFlip", {"mode": "horizontal"}),
    ("RandomGaussianBlur", {}),
    ("RandomGrayscale", {}),
    ("RandomHue", {"factor": 0.2}),
    ("RandomInvert", {}),
    ("RandomPerspective", {}),
    ("RandomPosterization", {"factor": 4}),
    ("RandomRotation", {"factor": (-0.2, 0.3), "fill_mode": "nearest"}),
    ("RandomSaturation", {"factor": 0.3}),
    ("RandomSharpness", {"factor": 0.3}),
    ("RandomShear", {"x_factor": 0.2}),
    ("RandomTranslation", {"height_factor": 0.2, "width_factor": (0.1, 0.2), "fill_mode": "constant"}),
    ("RandomZoom", {"height_factor": (0.2, 0.3)}),
    ("Solarization", {}),
]
SIZES = ((9, 8), (8, 9))


def build(kind, options, sizes=SIZES):
    keras = fresh_keras()
    layer = getattr(keras.layers, kind)(**options)
    inputs = [keras.Input((*size, 3)) for size in sizes]
    return keras.Model(inputs, [layer(each) for each in inputs])


def label(value):
    return (
        value if isinstance(value, str) else "-".join(f"{key}={each}" for key, each in value.items()).replace(" ", "")
    )


@pytest.mark.parametrize(("kind", "options"), quick([*CONVOLUTIONS, *POOLINGS, *SHAPES]), ids=label)
def test_layer(kind, options, tmp_path):
    model = build(kind, options)
    network = check_import(model, tmp_path / "model.keras")
    assert network.model.output_shape == [output.shape for output in model.outputs]


@pytest.mark.parametrize(("kind", "options"), SCALES, ids=label)
def test_scales(kind, options, tmp_path):
    check_import(build(kind, options, [(9, 8)]), tmp_path / "model.keras")


@pytest.mark.filterwarnings("ignore:.*requested dtype int64:UserWarning")  # Keras, in MixUp
def test_augmentations_are_the_identity_at_inference(tmp_path):
    keras = fresh_keras()
    kinds = [getattr(keras.layers, kind)(**options) for kind, options in AUGMENTATIONS]
    network = check_import(keras.Sequential([keras.Input((9, 8, 3)), *kinds]), tmp_path / "model.keras")
    assert [layer.class_name for layer in network.model.layers[1:]] == [kind for kind, _ in AUGMENTATIONS]


def test_functional_model_with_augmentation(tmp_path):
    check_import(build("RandomFlip", {}), tmp_path / "model.keras")


def test_random_crop_of_another_size_keeps_it_at_inference(tmp_path):
    keras = fresh_keras()
    model = keras.Sequential([keras.Input((9, 8, 3)), keras.layers.RandomCrop(5, 4)])
    network = check_import(model, tmp_path / "model.keras")
    assert network.model.output_shape == model.output_shape == (None, 5, 4, 3)


@pytest.mark.parametrize("axis", [-1, (1, 3), None])
def test_adapted_normalization(axis, tmp_path):
    keras = fresh_keras()
    images = np.random.default_rng(0).normal(3, 2, (5, 9, 8, 3)).astype("float32")
    layer = keras.layers.Normalization(axis=axis)
    layer.adapt(images)
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    assert set(network.variables["batch_stats"]["normalization"]) == {"mean", "variance", "count"}
    (theirs,) = keras_outputs(model, [images])
    assert relative_difference(network.model.apply(network.variables, images), theirs) <= 1e-5


@pytest.mark.parametrize("options", [{}, {"crop_to_aspect_ratio": True}, {"pad_to_aspect_ratio": True}], ids=label)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_of_integers_rounds_and_stays_within_them(options, interpolation):
    import keras

    images = np.random.default_rng(0).choice([0, 255, 100], (2, 9, 8, 3)).astype("uint8")
    options = {"height": 13, "width": 7, "interpolation": interpolation, **options}
    with jax.numpy_dtype_promotion("standard"):
        theirs = np.asarray(keras.layers.Resizing(**options)(images))
    result = ours.Resizing(**options).call({}, jax.numpy.asarray(images))
    assert result.dtype == theirs.dtype == np.uint8
    np.testing.assert_array_equal(result, theirs)


def test_integer_images_enter_a_model_as_integers(tmp_path):
    keras = fresh_keras()
    inputs = keras.Input((9, 8, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Resizing(13, 7)(inputs))
    images = np.random.default_rng(0).choice([0, 255, 100], (2, 9, 8, 3)).astype("uint8")
    check_import(model, tmp_path / "model.keras", inputs=[images])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: ours.Conv2D(4, 3, groups=2)(x), "groups must divide"),
        (lambda x: ours.Conv2DTranspose(4, 3, strides=2, dilation_rate=2)(x), "dilation_rate"),
        (lambda x: ours.Conv2DTranspose(4, 3, strides=2, output_padding=2)(x), "output_padding must be below"),
        (lambda x: ours.Cropping2D(((5, 4), (0, 0)))(x), "too large for an image of 9x8"),
        (lambda x: ours.UpSampling2D(interpolation="cubic")(x), "interpolation is one of bicubic"),
        (lambda x: ours.Resizing(4, 4, interpolation="cubic")(x), "interpolation is one of bicubic"),
        (lambda x: ours.Resizing(4, 4, fill_mode="reflect")(x), "fill_mode"),
        (lambda x: ours.Resizing(4, 4, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True)(x), "Only one of"),
        (lambda x: ours.Normalization(mean=1.0)(x), "mean and variance"),
        (lambda x: ours.Normalization(axis=0)(x), "size must be known"),
        (lambda x: ours.DepthwiseConv2D(3)(flaxapps.Input((9, 8, None))), "must be known"),
    ],
)
def test_what_does_not_go(make, message):
    with pytest.raises(ValueError, match=message):
        make(flaxapps.Input((9, 8, 3)))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_whole_h5(data_format, tmp_path):
    keras = fresh_keras()
    layers = keras.layers
    keras.config.set_image_data_format(data_format)
    try:
        x = keras.Input((9, 8, 3) if data_format == "channels_last" else (3, 9, 8))
        y = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(layers.Rescaling([1.0, 2, 3])(x))
        y = layers.UpSampling2D((1, 2), interpolation="bilinear")(layers.Conv2DTranspose(4, (2, 3), strides=2)(y))
        y = layers.AveragePooling2D((3, 2), padding="same")(layers.Cropping2D(((0, 1), (2, 0)))(y))
        model = keras.Model(x, [y, layers.GlobalMaxPooling2D(keepdims=True)(y)])
        check_import(model, tmp_path / "model.h5")
    finally:
        keras.config.set_image_data_format("channels_last")


def test_free_sizes(tmp_path):
    keras = fresh_keras()
    layers = keras.layers
    x = keras.Input((None, None, 3))
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(layers.DepthwiseConv2D(3, strides=2)(x))
    y = layers.UpSampling2D(interpolation="bilinear")(layers.Cropping2D(1)(y))
    model = keras.Model(x, [y, layers.CenterCrop(4, 5)(y), layers.Resizing(7, 6, crop_to_aspect_ratio=True)(y)])
    inputs = random_inputs(model)
    network = check_import(model, tmp_path / "model.keras", inputs=inputs)
    assert network.model.output_shape == [output.shape for output in model.outputs]
