"""What the tests of `fit` share: a tiny network, data and a record of the losses."""

from typing import Any

import jax
import numpy as np
import optax

from flaxapps import Input, Model, layers, train

CLASSES = 4
SGD = optax.sgd(0.05, momentum=0.9)


def small_model(dropout: float = 0.0, dtype: str | None = None) -> Model:
    x = y = Input((8, 8, 3), name="image")
    for block in (1, 2):
        y = layers.Conv2D(4, 3, activation="relu", name=f"conv{block}", dtype=dtype)(y)
        y = layers.BatchNormalization(name=f"norm{block}", dtype=dtype)(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    y = layers.Dropout(dropout, name="drop")(y) if dropout else y
    return Model(x, layers.Dense(CLASSES, activation="softmax", name="head")(y))


def small_data(count: int, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype("int32")
    return random.normal(0, 1, (count, 8, 8, 3)).astype("float32") + labels[:, None, None, None] / 2, labels


def fit(data: Any, model: Model | None = None, **options: Any) -> tuple[Any, list[float]]:
    """The result and the loss of every step."""
    model = model or small_model()
    losses: list[float] = []

    def note(event: Any) -> None:
        if isinstance(event, train.StepEnd):
            losses.append(event.values["loss"])

    options = {"optimizer": SGD, "batch_size": 16, "verbose": False, **options}
    options["callbacks"] = [note, *options.get("callbacks", ())]
    variables = options.pop("variables", None) or model.init_variables()
    return train.fit(model, variables, data, **options), losses


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), one, other)
