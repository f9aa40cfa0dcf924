"""Training in bfloat16: close to float32, with parameters that stay float32."""

import jax
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from flaxapps import Input, Model, layers, train
from flaxapps.transforms.dtype import with_dtype


def network() -> Model:
    """Every kind of product: a first convolution, depthwise, 1x1, windows of many channels, Dense; and pooling."""
    image = Input((8, 8, 1))
    x = layers.Conv2D(96, 3, padding="same", activation="relu")(image)
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    x = layers.MaxPooling2D(2)(layers.SeparableConv2D(32, 3, padding="same", activation="relu")(x))
    return Model(image, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))


@pytest.mark.slow
def test_digits_are_learned_as_well_as_in_float32():
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    some, others = slice(0, 1280), slice(1280, None)
    model = network()
    start = model.init_variables(0)
    results = [
        train.fit(
            each, start, (images[some], labels[some]), optimizer=optax.adam(3e-3), batch_size=64, epochs=3,
            loss="sparse_categorical_crossentropy", validation_data=(images[others], labels[others]), verbose=False,
        )
        for each in (model, with_dtype(model, "bfloat16"))
    ]  # fmt: skip # kept on few lines on purpose
    assert {leaf.dtype.name for leaf in jax.tree.leaves(results[1].variables)} == {"float32"}
    exact, rounded = (result.history for result in results)
    assert exact["val_accuracy"][-1] > 0.88
    assert abs(exact["val_accuracy"][-1] - rounded["val_accuracy"][-1]) < 0.02  # 10 of 517 digits
    np.testing.assert_allclose(rounded["loss"], exact["loss"], rtol=0.02, atol=0.01)
