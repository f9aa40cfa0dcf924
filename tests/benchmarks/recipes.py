"""Accuracy with and without EMA, mixup and layer-wise rates on a real task: `python -m tests.benchmarks.recipes`.

Transfer between scikit-learn's scans of handwritten digits: a small network that has learned to read 0 to 4 is
fine-tuned on a few scans of 5 to 9, and reads the others of these. A seed chooses the scans, the initial parameters and
the order. Takes about two minutes on two cores.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flaxapps import Input, Model, layers, train

SEEDS = 5
SCANS = 20  # of each class to fine-tune on
EPOCHS = 40
BATCH = 20
RATE = 3e-3
TASK = (5, 6, 7, 8, 9)

Digits = tuple[NDArray[np.float32], NDArray[np.int32]]


class Variant(NamedTuple):
    """How the network is fine-tuned.

    Attributes:
        title: Title to show.
        optimizer: Its optimizer; one for all seeds, so that its step is compiled once.
        augmentation: Mixup, or None.
    """

    title: str
    optimizer: optax.GradientTransformation
    augmentation: train.Augmentation | None


def reader(trunk: Model, name: str) -> Model:
    return Model(trunk.input, layers.Dense(5, activation="softmax", name=name)(trunk.output))


def small_trunk() -> Model:
    image = y = Input((8, 8, 1), name="image")
    for number, filters in enumerate((16, 32, 64), start=1):
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}")(y)
        y = layers.Activation("relu")(layers.BatchNormalization(name=f"norm{number}")(y))
    return Model(image, layers.GlobalAveragePooling2D()(y), name="trunk")


def variants(model: Model) -> list[Variant]:
    steps = EPOCHS * SCANS * len(TASK) // BATCH
    plain = optax.adamw(optax.cosine_decay_schedule(RATE, steps), mask=train.weight_decay_mask)
    constant = optax.adamw(RATE, mask=train.weight_decay_mask)
    layerwise = optax.chain(plain, train.layerwise_decay(model, 0.75))
    mixup = train.Augmentation(mixup=0.2)
    return [
        Variant("none of them", plain, None),
        Variant("EMA 0.98", train.averaged(plain, 0.98), None),
        Variant("mixup 0.2", plain, mixup),
        Variant("layer-wise rates 0.75", layerwise, None),
        Variant("all three", train.averaged(layerwise, 0.98), mixup),
        Variant("a constant rate in place of the cosine", constant, None),
        Variant("a constant rate and EMA 0.98", train.averaged(constant, 0.98), None),
    ]


def digits(classes: tuple[int, ...]) -> Digits:
    scans, labels = load_digits(return_X_y=True)
    kept = np.isin(labels, classes)
    images = scans[kept].reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return images, np.searchsorted(classes, labels[kept]).astype(np.int32)


def split(seed: int) -> tuple[Digits, Digits]:
    """A few scans of each class to train on, and the others."""
    images, labels = digits(TASK)
    order = np.random.default_rng(seed).permutation(len(labels))
    few = np.concatenate([order[labels[order] == label][:SCANS] for label in range(len(TASK))])
    rest = np.setdiff1d(order, few)
    return (images[few], labels[few]), (images[rest], labels[rest])


def pretrain(trunk: Model, seed: int, optimizer: optax.GradientTransformation) -> dict[str, Any]:
    model = reader(trunk, "0_to_4")
    options: Any = {"optimizer": optimizer, "epochs": 15, "seed": seed, "verbose": False}
    return train.fit(model, model.init_variables(seed), digits((0, 1, 2, 3, 4)), **options).variables


def accuracy(model: Model, start: Mapping[str, Any], variant: Variant, seed: int) -> float:
    training, held_out = split(seed)
    result = train.fit(
        model, model.init_variables(seed, base=start), training, optimizer=variant.optimizer, batch_size=BATCH,
        epochs=EPOCHS, seed=seed, augmentation=variant.augmentation, verbose=False,
    )  # fmt: skip # kept on few lines on purpose
    value: float = train.evaluate(model, result.variables, held_out, batch_size=256)["accuracy"]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    trunk = small_trunk()
    first = optax.adam(3e-3)
    starts = [pretrain(trunk, seed, first) for seed in seeds]
    model = reader(trunk, "5_to_9")  # another name, so that the new head is initialized
    print(
        f"{SCANS} scans of each of {len(TASK)} digits, {EPOCHS} epochs; accuracy on the other scans, {len(seeds)} seeds"
    )
    print("| | mean | of each seed | mean difference | seeds better, equal, worse |\n|---|---|---|---|---|")
    plain = np.zeros(len(seeds))
    for number, variant in enumerate(variants(model)):
        found = np.array([accuracy(model, start, variant, seed) for seed, start in zip(seeds, starts, strict=True)])
        plain = found if number == 0 else plain
        change = found - plain
        counts = ", ".join(str(int(count)) for count in ((change > 0).sum(), (change == 0).sum(), (change < 0).sum()))
        each = " ".join(f"{100 * value:.1f}" for value in found)
        print(f"| {variant.title} | {found.mean():.1%} | {each} | {100 * change.mean():+.2f} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
