"""The fine-tuning that Keras documents for InceptionV3, both phases, on real scans in folders."""

from functools import cache

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from flaxapps import Input, Model, layers, train
from flaxapps.inception_v3 import features
from tests.recipe import recipe_variables
from tests.train.small import assert_same

SIZE, BATCH = 75, 2
LOSS = "sparse_categorical_crossentropy"
RMSPROP, SGD = optax.rmsprop(1e-3), optax.sgd(1e-4, momentum=0.9)


@cache
def recipe_model():
    image = Input((SIZE, SIZE, 3))
    base = Model(image, features(image))
    x = layers.GlobalAveragePooling2D()(base.output)
    x = layers.Dense(1024, activation="relu")(x)
    model = Model(image, layers.Dense(2, activation="softmax")(x))
    return model, train.frozen_layers(model, names=[layer.name for layer in base.layers])


def lowered_step(model, frozen, optimizer):
    """The text of a step, from shapes alone."""
    state = jax.eval_shape(lambda: train.create_state(model, model.init_variables(), optimizer, frozen))
    images, labels = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), "float32"), jax.ShapeDtypeStruct((BATCH,), "int32")
    options = {"objective": train.make_objective(model, LOSS), "optimizer": optimizer, "frozen": frozen}
    return state, train.train_step.lower(state, images, labels, **options).as_text()


def count_products(text):
    """Convolutions, and matrix products, which some convolutions are on CPUs."""
    return text.count("stablehlo.convolution") + text.count("stablehlo.dot_general")


def owners(tree):
    return {key.key for path, _ in jax.tree_util.tree_leaves_with_path(tree) for key in path if hasattr(key, "key")}


@pytest.mark.slow
def test_phase_one_has_no_backward_pass_and_no_optimizer_state_of_the_base():
    model, base = recipe_model()
    layer_count = sum(layer.class_name == "Conv2D" for layer in model.layers)
    state, text = lowered_step(model, base, RMSPROP)
    dense = 2 + 3  # forward; gradients of both kernels, and of what is between
    without_first = layer_count - 1  # on three channels and not differentiated: a sum of terms, see ops/cpu_matmul.py
    assert count_products(text) == without_first + dense
    assert owners(state.optimizer_state) == {"dense", "dense_1", "kernel", "bias"}
    _, everything = lowered_step(model, frozenset(), RMSPROP)
    # the image has no gradient, but the features have
    assert count_products(everything) == 3 * layer_count - 1 + dense + 1


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    digits = pytest.importorskip("sklearn.datasets", reason="the digit scans are in scikit-learn").load_digits()
    folder = tmp_path_factory.mktemp("scans")
    for digit in (0, 1):
        (folder / str(digit)).mkdir()
        for number, scan in enumerate(digits.images[digits.target == digit][:2]):
            picture = Image.fromarray((scan * 15.9).astype("uint8")).resize((SIZE, SIZE))
            picture.save(folder / str(digit) / f"{number}.png")
    return train.image_folder(folder, image_size=(SIZE, SIZE))


def fit_phase(variables, data, optimizer, frozen):
    model, _ = recipe_model()
    result = train.fit(
        model,
        variables,
        data,
        optimizer=optimizer,
        batch_size=BATCH,
        loss=LOSS,
        frozen=frozen,
        preprocess="tf",
        devices=jax.devices()[:1],
        verbose=False,
    )
    assert result.steps == 2
    assert np.isfinite(result.history["loss"]).all()
    for collection, before in variables.items():
        for name, leaves in before.items():
            after = result.variables[collection][name]
            if name in frozen:
                assert_same(after, leaves)
            else:
                assert any(np.any(np.asarray(after[leaf]) != leaves[leaf]) for leaf in leaves), name
    return jax.device_get(result.variables)


@pytest.fixture(scope="module")
def after_phase_one(scans):
    model, base = recipe_model()
    return fit_phase(recipe_variables(model), scans, RMSPROP, base)


@pytest.mark.slow
@pytest.mark.parametrize(("until", "count"), [(172, 53), ("mixed8", 76)])
def test_phase_two_moves_the_top_and_nothing_else(until, count, scans, after_phase_one):
    model, _ = recipe_model()
    frozen = train.frozen_layers(model, until=until)
    assert sum(layer.class_name == "Conv2D" and layer.name in frozen for layer in model.layers) == count
    fit_phase(after_phase_one, scans, SGD, frozen)
