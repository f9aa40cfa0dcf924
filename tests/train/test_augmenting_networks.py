"""Networks with random layers inside, as in Keras's guide to transfer learning: trained, resumed, and beside Keras."""

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import flaxapps
from flaxapps import train
from flaxapps.cli.commands import main
from tests.imported import randomise
from tests.networks import fresh_keras
from tests.train.small import assert_close, assert_same, fit

IMAGES = np.random.default_rng(0).uniform(0, 255, (48, 8, 8, 3)).astype("float32")
LABELS = (IMAGES[:, :4].mean((1, 2, 3)) > 128).astype("int32")


def guide(strength, dropout):
    """A Keras model: augmentation, rescaling, a base, dropout and a classifier."""
    keras = fresh_keras()
    layers = keras.layers
    augmentation = keras.Sequential(
        [
            layers.RandomRotation(strength),
            layers.RandomZoom(strength),
            layers.RandomTranslation(strength, strength),
            layers.RandomContrast(strength),
            layers.RandomBrightness(strength),
            *([layers.RandomFlip("horizontal")] if strength else []),
        ],
        name="augmentation",
    )
    base = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()], name="base")
    x = keras.Input((8, 8, 3))
    y = base(layers.Rescaling(1 / 255)(augmentation(x)))
    y = layers.Dropout(dropout)(layers.GaussianNoise(strength)(layers.GlobalAveragePooling2D()(y)))
    model = keras.Model(x, layers.Dense(2, "softmax", name="head")(y))
    randomise(model)
    return model


@pytest.fixture
def imported(tmp_path):
    path = tmp_path / "guide.keras"
    guide(0.2, 0.2).save(path)
    model, variables = flaxapps.load_model(path)
    return model, jax.tree.map(np.asarray, variables)


OPTIONS = {"loss": "sparse_categorical_crossentropy", "batch_size": 16, "optimizer": optax.sgd(0.05, momentum=0.9)}


def test_training_augments_from_the_seed_and_resumes_to_the_same_bits(imported, tmp_path):
    model, variables = imported
    options = {**OPTIONS, "variables": variables, "frozen": train.frozen_layers(model, names=["base"])}
    result, losses = fit((IMAGES, LABELS), model, epochs=2, **options)
    _, again = fit((IMAGES, LABELS), model, epochs=2, **options)
    _, other = fit((IMAGES, LABELS), model, epochs=2, seed=1, **options)
    assert losses == again
    assert losses != other
    fit((IMAGES, LABELS), model, epochs=1, checkpoint_dir=tmp_path / "run", **options)
    folder = train.CheckpointFolder(tmp_path / "run", resume=True)
    resumed, rest = fit((IMAGES, LABELS), model, epochs=2, checkpoint_dir=folder, **options)
    assert losses[3:] == rest
    assert_same(resumed.variables, result.variables)


@pytest.mark.slow
def test_eight_devices_augment_as_one(imported):
    model, variables = imported
    options = {**OPTIONS, "variables": variables, "metrics": ()}
    (one, losses), (eight, others) = (
        fit((IMAGES, LABELS), model, parallel="jit", devices=train.Devices(jax.devices()[:count]), **options)
        for count in (1, 8)
    )
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    assert_close(one.variables, eight.variables)


def test_validation_and_evaluation_do_not_augment(imported):
    model, variables = imported
    frozen = train.frozen_layers(model, names=["base"])
    options = {**OPTIONS, "variables": variables, "frozen": frozen, "optimizer": optax.sgd(0.0)}
    result, _ = fit((IMAGES, LABELS), model, validation_data=(IMAGES, LABELS), **options)
    outputs = np.asarray(jax.jit(model.apply)(variables, IMAGES))
    expected = -np.log(outputs[np.arange(48), LABELS]).mean()
    np.testing.assert_allclose(result.history["val_loss"], [expected], rtol=1e-5)
    assert abs(result.history["loss"][0] - expected) > 1e-3  # augmented, and with dropout


@pytest.mark.slow
@pytest.mark.every_jax
def test_ten_steps_without_strength_are_those_of_keras(tmp_path):
    import keras

    reference = guide(0.0, 0.0)
    reference.save(tmp_path / "before.keras")
    model, variables = flaxapps.load_model(tmp_path / "before.keras")
    with jax.numpy_dtype_promotion("standard"):
        reference.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        rows = [slice(start % 48, start % 48 + 16) for start in range(0, 160, 16)]
        wanted = [reference.train_on_batch(IMAGES[each], LABELS[each]) for each in rows]
    reference.save(tmp_path / "after.keras")
    batches = [(IMAGES[each], LABELS[each]) for each in rows]
    result, losses = fit(batches, model, variables=variables, **OPTIONS)
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    assert_close(result.variables, flaxapps.load_model(tmp_path / "after.keras").variables, 1e-4)


def test_caching_says_which_layer_is_random(imported):
    model, variables = imported
    frozen = train.frozen_layers(model, names=["base"])
    message = "'base' comes after 'augmentation/random_rotation', which is random in training.*leave out cache_features"
    with pytest.raises(ValueError, match=message):
        fit((IMAGES, LABELS), model, variables=variables, frozen=frozen, cache_features=True, **OPTIONS)


@pytest.mark.slow  # a whole run of the command
def test_the_command_fine_tunes_such_a_file(imported, tmp_path):
    """Its augmentation and base are frozen; nothing can be cached, which "auto" finds out."""
    model, variables = imported
    flaxapps.save_model(model, variables, tmp_path / "guide.keras")
    for number, (image, label) in enumerate(zip(IMAGES[:12], LABELS[:12], strict=True)):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype("uint8")).save(tmp_path / "photos" / f"class{label}" / f"{number}.png")
    options = [
        "--freeze-until",
        "base",
        "--epochs",
        1,
        "--batch-size",
        4,
        "--preprocess",
        "none",
        "--validation-split",
        0.3,
    ]
    places = ["--model", tmp_path / "guide.keras", "--output", tmp_path / "out"]
    assert main(list(map(str, ["finetune", tmp_path / "photos", *places, *options]))) == 0
    assert "random_rotation" in [layer.name for layer in load_augmentation(tmp_path / "out" / "best.keras")]


def load_augmentation(path):
    (found,) = (layer for layer in flaxapps.load_model(path).model.layers if layer.name == "augmentation")
    return found.layer.layers
