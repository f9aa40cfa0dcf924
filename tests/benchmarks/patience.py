"""How much early stopping loses: `python -m tests.benchmarks.patience`, on the features of the demo's Xception.

A run of 60 epochs shows what any patience would have kept: the best epoch before it stops.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import optax

from flaxapps import Input, Model, layers, load_model, predict, train
from flaxapps.demo.digits import LAST_LAYER, SIZE, load_digits
from flaxapps.demo.photos import fetch_demo
from flaxapps.registry import build_model

EPOCHS, SEEDS, SIZES, PATIENCES = 60, range(3), (200, 600, 1797), (3, 5, 10)


def kept(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """Returns the epochs trained with a patience, and the index of the best of them."""
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        elif epoch - best >= patience:
            return epoch + 1, best
    return len(losses), best


def heads(features: int) -> dict[str, tuple[Model, optax.GradientTransformation, bool]]:
    """The models, their optimizers, and whether they take features or the scans themselves."""

    def head(units: int) -> Model:
        x = image = Input((features,))
        if units:
            x = layers.Dense(units, activation="relu")(x)
        return Model(image, layers.Dense(10, activation="softmax")(x))

    image = Input((8, 8, 1))
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(
        layers.Conv2D(16, 3, activation="relu", padding="same")(image)
    )
    small = Model(image, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))
    return {
        "hidden layer, RMSprop": (head(1024), optax.rmsprop(1e-3), True),
        "no hidden layer, RMSprop": (head(0), optax.rmsprop(1e-3), True),
        "hidden layer, SGD": (head(1024), optax.sgd(1e-4, momentum=0.9), True),
        "from scratch, Adam": (small, optax.adam(1e-3), False),
    }


def main() -> None:
    """Trains and prints, for every head and patience, the worst loss (a factor) and accuracy (a difference)."""
    images, labels = (np.concatenate(parts) for parts in zip(*load_digits(), strict=True))
    xception = build_model("xception", include_top=False, input_shape=(SIZE, SIZE, 3))
    trunk = Model(xception.input, xception.get_layer(LAST_LAYER).output)
    stored = load_model(fetch_demo().model).variables
    variables = trunk.init_variables(
        base={name: tree["xception"] for name, tree in stored.items() if "xception" in tree}
    )
    maps = predict(trunk, variables, images, batch_size=32, preprocess="tf", optimize="fast")
    features, scans = maps.mean(axis=(1, 2)), np.float32(images[:, ::9, ::9, :1] / 255)
    for name, (model, optimizer, pretrained) in heads(features.shape[-1]).items():
        lost: dict[int, list[tuple[int, float, float]]] = {patience: [] for patience in PATIENCES}
        for seed, size in itertools.product(SEEDS, SIZES):
            order = np.random.default_rng(seed).permutation(len(labels))[:size]
            held_out, own = np.split(order, [size // 5])
            data = features if pretrained else scans
            history = train.fit(
                model,
                model.init_variables(seed=seed),
                (data[own], labels[own]),
                optimizer=optimizer,
                epochs=EPOCHS,
                validation_data=(data[held_out], labels[held_out]),
                seed=seed,
                verbose=False,
            ).history
            losses, accuracies = history["val_loss"], history["val_accuracy"]
            best = int(np.argmin(losses))
            for patience in PATIENCES:
                epochs, index = kept(losses, patience)
                lost[patience].append((epochs, losses[index] / losses[best], accuracies[index] - accuracies[best]))
        for patience, rows in lost.items():
            epochs, factors, points = zip(*rows, strict=True)
            worst = f"loss x {max(factors):.2f}, accuracy {100 * min(points):+.1f}"
            print(f"{name}, patience {patience}: {min(epochs)} to {max(epochs)} epochs, {worst}")


if __name__ == "__main__":
    main()
