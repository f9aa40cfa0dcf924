"""Networks, preprocessing and training under jax_numpy_rank_promotion="raise", the slow ones too."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, explain, layers, model_info, predict, train
from flaxapps.applications.imagenet_utils import MODES, preprocess_input
from flaxapps.registry import build_model
from flaxapps.train.step.mixing import mixing_for
from tests.places import ROOT
from tests.train.small import fit, small_data, small_model

IMAGES, LABELS = small_data(20)
BYTES = np.clip(40 * np.abs(IMAGES), 0, 255).astype("uint8")
# Networks that together have all kinds of layers; the first is quick.
OTHERS = ("vgg16", "resnet50", "densenet121", "xception", "mobilenet_v3_small", "efficientnetb0", "convnext_tiny")
NETWORKS = ["mobilenet", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.fixture(autouse=True)
def raises() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


def test_our_packages_alone_may_not_promote():
    """The rule that many tests run under."""
    for folder in ("flaxapps", "train", "weight_port", "tests", "keras"):
        code = compile("jnp.ones((2, 3)) + jnp.ones(3)", str(ROOT / folder / "any.py"), "exec")
        if folder in ("tests", "keras"):
            exec(code, {"jnp": jnp})
        else:
            with pytest.raises(ValueError, match="rank_promotion"):
                exec(code, {"jnp": jnp})


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("mode", MODES)
def test_preprocessing(mode, data_format):
    images = IMAGES if data_format == "channels_last" else np.moveaxis(IMAGES, -1, 1)
    for given in (images, images[0]):
        wanted = preprocess_input(given, data_format=data_format, mode=mode)
        found = preprocess_input(jnp.asarray(given), data_format=data_format, mode=mode)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def trace_gradient(model, shape):
    """Traces the gradient in both modes, without compiling it."""
    images = jax.ShapeDtypeStruct((2, *shape), "float32")

    def loss(variables, images):
        options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(0)}}
        return model.apply(variables, images, **options)[0].sum() + model.apply(variables, images).sum()

    jax.eval_shape(jax.grad(loss), jax.eval_shape(model.init_variables), images)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    size = max(32, model_info(name).min_size)
    model = build_model(name, weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    trace_gradient(model, (size, size, 3))


def test_layers_of_many_kinds():
    x = y = Input((8, 8, 3))
    for layer in (
        layers.Conv2D(4, 3, padding="same"),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(4, 3, padding="same"),
        layers.Conv2DTranspose(4, 3),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
        layers.PReLU(),
        layers.Rescaling(0.5, 1.0),
        layers.SpatialDropout2D(0.2),
        layers.Dense(4),
    ):
        y = layer(y)
    model = Model(x, layers.Dense(4, activation="softmax")(layers.Flatten()(y)))
    trace_gradient(model, (8, 8, 3))


@pytest.mark.parametrize(
    "options", [{"mixup": 0.2}, {"cutmix": 1.0}, {"erasing": 0.5}, {"randaugment": (2, 9), "contrast": 0.2}]
)
def test_augmentation(options):
    """Traced, without compiling it."""
    augmentation = train.Augmentation(rotation=0.1, value_range=(0, 255), **options)
    images, labels = jax.ShapeDtypeStruct((4, 8, 8, 3), "uint8"), jax.ShapeDtypeStruct((4,), "int32")
    jax.eval_shape(augmentation, jax.random.key(0), images)
    if mixing := mixing_for(augmentation, train.make_objective(small_model(), "categorical_crossentropy")):
        jax.eval_shape(mixing, jax.random.key(0), images, labels, None)


@pytest.mark.parametrize("parallel", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_training(parallel):
    augmentation = train.Augmentation(value_range=(0, 255))
    options = {"metrics": ("accuracy", "top_5_accuracy", "confusion_matrix"), "label_smoothing": 0.1}
    options |= {"class_weights": {0: 2.0}, "augmentation": augmentation, "preprocess": "torch"}
    fit((BYTES, LABELS), small_model(dropout=0.3), parallel=parallel, validation_data=(BYTES, LABELS), **options)


def test_prediction_and_explanation():
    model = small_model()
    variables = model.init_variables()
    predict(model, variables, BYTES, preprocess="tf")
    explain.grad_cam(model, variables, IMAGES[:2], "conv2")
    explain.integrated_gradients(model, variables, IMAGES[:2])
    explain.occlusion(model, variables, IMAGES[:2], window=4, stride=4)
