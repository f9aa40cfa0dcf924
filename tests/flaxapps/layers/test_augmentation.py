"""Augmentation layers in training: with the keys of a Keras layer they give its images, pixel by pixel."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import layers
from flaxapps.graph.batch import Batch
from tests.networks import fresh_keras

SHAPE = (6, 9, 8, 3)
SEED = 3
CASES = [
    ("RandomFlip", {}),
    ("RandomFlip", {"mode": "horizontal"}),
    ("RandomFlip", {"mode": "vertical"}),
    ("RandomRotation", {"factor": 0.2}),
    ("RandomRotation", {"factor": (-0.1, 0.4), "fill_mode": "constant", "fill_value": 7.0}),
    ("RandomRotation", {"factor": 0.2, "fill_mode": "nearest", "interpolation": "nearest"}),
    ("RandomRotation", {"factor": 0.3, "fill_mode": "wrap"}),
    ("RandomZoom", {"height_factor": 0.3}),
    ("RandomZoom", {"height_factor": (0.2, 0.3), "width_factor": (-0.5, 0.1), "fill_mode": "constant"}),
    ("RandomTranslation", {"height_factor": 0.3, "width_factor": 0.2}),
    ("RandomTranslation", {"height_factor": (0.1, 0.3), "width_factor": 0.2, "fill_mode": "wrap"}),
    ("RandomShear", {"x_factor": (0.1, 0.3), "y_factor": (0.0, 0.2)}),
    ("RandomCrop", {"height": 4, "width": 5}),
    ("RandomCrop", {"height": 9, "width": 5}),
    ("RandomCrop", {"height": 12, "width": 4}),
    ("RandomCrop", {"height": 8, "width": 12}),
    ("RandomPerspective", {"scale": 0.4}),
    ("RandomElasticTransform", {"scale": (0.5, 1.0)}),
    ("RandomBrightness", {"factor": 0.3}),
    ("RandomBrightness", {"factor": (-0.5, 0.1), "value_range": (0, 1)}),
    ("RandomContrast", {"factor": 0.3}),
    ("RandomContrast", {"factor": (0.2, 0.5), "value_range": (0, 1)}),
    ("RandomColorDegeneration", {"factor": 0.5}),
    ("RandomColorJitter", {"brightness_factor": 0.2, "contrast_factor": 0.3, "hue_factor": 0.1}),
    ("RandomHue", {"factor": (0.1, 0.4), "value_range": (0, 1)}),
    ("RandomSaturation", {"factor": (0.3, 0.8)}),
    ("RandomErasing", {}),
    ("RandomGaussianBlur", {"kernel_size": (3, 5), "sigma": (0.3, 0.9)}),
    ("RandomGrayscale", {}),
    ("RandomInvert", {"factor": (0.2, 0.9)}),
    ("RandomPosterization", {"factor": 6}),
    ("RandomSharpness", {"factor": 0.7}),
    ("Solarization", {"addition_factor": 0.3, "threshold_factor": 0.6}),
    ("Solarization", {"threshold_factor": (0.3, 0.6), "value_range": (0, 1)}),
    ("Equalization", {"bins": 64}),
    ("MixUp", {}),
    ("CutMix", {}),
    ("RandAugment", {"num_ops": 4, "factor": (0.2, 0.6)}),
    ("Dropout", {"rate": 0.3}),
    ("GaussianDropout", {"rate": 0.3}),
    ("GaussianNoise", {"stddev": 0.3}),
    ("SpatialDropout2D", {"rate": 0.3}),
]


RARE = (
    "CutMix", "MixUp", "RandAugment", "RandomColorJitter", "RandomElasticTransform", "RandomErasing",
    "RandomPerspective",
)  # fmt: skip # on few lines on purpose


def label(value):
    return value if isinstance(value, str) else "-".join(f"{key}={each}" for key, each in value.items())


def images(options):
    return np.random.default_rng(0).uniform(0, options.get("value_range", (0, 255))[1], SHAPE).astype("float32")


def augmented(layer, x, mask=None):
    """The layer's output in training, with the keys that a Keras layer of this seed draws."""

    def compute(x):
        keys = (jnp.asarray([SEED, number], jnp.uint32) for number in itertools.count())
        return layer.call_training({}, x, make_key=lambda: next(keys), batch=Batch(mask))[0]

    with jax.numpy_rank_promotion("raise"):
        return jax.jit(compute)(x)


@pytest.mark.filterwarnings("ignore:.*requested dtype int64:UserWarning")  # Keras, in MixUp
@pytest.mark.parametrize(
    ("kind", "options"),
    [pytest.param(*case, marks=pytest.mark.slow) if case[0] in RARE else case for case in CASES],
    ids=label,
)
def test_with_the_keys_of_a_keras_layer_training_gives_its_images(kind, options):
    keras = fresh_keras()
    x = images(options)
    seed = {} if kind == "Equalization" else {"seed": SEED}
    with jax.numpy_dtype_promotion("standard"):
        theirs = np.asarray(getattr(keras.layers, kind)(**options, **seed)(x, training=True))
    mine = augmented(getattr(layers, kind)(**options), x)
    np.testing.assert_allclose(mine, theirs, atol=2e-6 * x.max())
    assert theirs.shape != x.shape or (theirs != x).any()


@pytest.mark.slow  # compiles all operations
def test_the_chains_of_augmix_are_those_of_keras(monkeypatch):
    """Without strength all its operations are fixed; Keras chooses them in Python."""
    from keras.src.layers.preprocessing.image_preprocessing import aug_mix

    layer, x = layers.AugMix(factor=0.0), images({})
    with jax.numpy_dtype_promotion("standard"):
        theirs_layer = fresh_keras().layers.AugMix(factor=0.0, seed=SEED)
        key = jnp.asarray([SEED, 2], jnp.uint32)  # the third key that `draw` takes
        numbers = iter(np.asarray(jax.random.randint(key, (3, 3), 0, 12, "int32")).ravel().tolist())
        monkeypatch.setattr(aug_mix.py_random, "choice", lambda names: names[next(numbers)])
        theirs = np.asarray(theirs_layer(x, training=True))
    np.testing.assert_allclose(augmented(layer, x), theirs, atol=1e-3)


@pytest.mark.parametrize(
    "kind",
    ["MixUp", "Equalization", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("CutMix", "RandAugment"))],
)
def test_padding_has_no_effect_on_images(kind):
    x = images({})[:4]
    layer = getattr(layers, kind)()
    mask = jnp.asarray([True, False, True, True])
    one, other = (augmented(layer, np.where(mask[:, None, None, None], x, fill), mask) for fill in (0.0, 200.0))
    np.testing.assert_array_equal(one[np.asarray(mask)], other[np.asarray(mask)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
@pytest.mark.parametrize(
    ("kind", "options"), [("RandomFlip", {}), ("RandomRotation", {"factor": 0.2}), ("RandomContrast", {"factor": 0.5})]
)
def test_other_dtypes(kind, options, dtype):
    x = images({}).astype(dtype)
    mine = augmented(getattr(layers, kind)(**options), x)
    assert mine.dtype == ("float32" if dtype == "uint8" else dtype)
    assert np.isfinite(mine.astype("float32")).all()


def test_a_model_augments_in_training_from_its_key_alone():
    node = flaxapps.Input(SHAPE[1:])
    model = flaxapps.Model(node, layers.RandomFlip()(layers.RandomTranslation(0.2, 0.2)(node)))
    x = images({})
    run = jax.jit(model.apply, static_argnames="train")
    np.testing.assert_array_equal(run({}, x), x)
    one, again, other = (run({}, x, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_call_that_is_fixed_to_training_is_the_identity_without_a_key():
    node = flaxapps.Input(SHAPE[1:])
    x = images({})
    model = flaxapps.Model(node, layers.RandomBrightness(0.5)(node, training=True))
    np.testing.assert_array_equal(model.apply({}, x), x)


def test_channels_first_images_move_as_channels_last_ones():
    def model(shape, data_format):
        node = flaxapps.Input(shape, data_format=data_format)
        return flaxapps.Model(node, layers.RandomRotation(0.2)(node))

    x, key = images({}), {"dropout": jax.random.key(0)}
    last = model((9, 8, 3), "channels_last").apply({}, x, train=True, rngs=key)
    first = model((3, 9, 8), "channels_first").apply({}, np.moveaxis(x, -1, 1), train=True, rngs=key)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RandomFlip("diagonal"), "mode should be one of horizontal"),
        (lambda: layers.RandomRotation(0.1, fill_mode="mirror"), "fill_mode should be one of constant"),
        (lambda: layers.RandomZoom(0.1, interpolation="bicubic"), "interpolation should be one of nearest"),
        (lambda: layers.RandomTranslation((0.1, 0.2, 0.3), 0.1), "height_factor should be a number or a pair"),
        (lambda: layers.RandomContrast(0.1, (0, 1, 2)), "value_range should be a pair"),
    ],
)
def test_wrong_options_are_refused_when_the_layer_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
