"""Accuracy with and without EMA, mixup and layer-wise rates on a real task: `python -m tests.benchmarks.recipes`.

Two tasks with scikit-learn's scans of handwritten digits and a small network. Transfer: it has learned to read 0 to 4,
is fine-tuned on a few scans of 5 to 9, and reads the others of these. From scratch: it learns to read all digits from
some scans of each. A seed chooses scans, initial parameters and order. Takes about five minutes on two cores.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flaxapps import Input, Model, layers, train

SEEDS = 5
RATE = 3e-3
BASE = (0, 1, 2, 3, 4)  # what the network of the first task reads already

Digits = tuple[NDArray[np.float32], NDArray[np.int32]]


class Task(NamedTuple):
    """What a network learns.

    Attributes:
        title: Title to show.
        classes: The digits.
        scans: Scans of each to train on.
        epochs: Passes over them.
        batch_size: Scans in a batch.
        pretrained: Whether the network has learned to read the digits in BASE.
    """

    title: str
    classes: tuple[int, ...]
    scans: int
    epochs: int
    batch_size: int
    pretrained: bool

    @property
    def steps(self) -> int:
        return self.epochs * (self.scans * len(self.classes) // self.batch_size)


TASKS = (
    Task("Transfer, 20 scans of each of 5 digits", (5, 6, 7, 8, 9), 20, 40, 20, True),
    Task("From scratch, 30 scans of each of 10 digits", tuple(range(10)), 30, 40, 50, False),
)


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


def reader(trunk: Model, classes: tuple[int, ...]) -> Model:
    """The trunk with a head of its own for these digits, so that none is taken from another reader."""
    name = "_".join(map(str, classes))
    return Model(trunk.input, layers.Dense(len(classes), activation="softmax", name=name)(trunk.output))


def small_trunk() -> Model:
    image = y = Input((8, 8, 1), name="image")
    for number, filters in enumerate((16, 32, 64), start=1):
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}")(y)
        # Keras's momentum of 0.99 is too slow for runs of a few hundred steps.
        y = layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(y)
        y = layers.Activation("relu")(y)
    return Model(image, layers.GlobalAveragePooling2D()(y), name="trunk")


def variants(model: Model, task: Task) -> list[Variant]:
    plain = optax.adamw(optax.cosine_decay_schedule(RATE, task.steps), mask=train.weight_decay_mask)
    constant = optax.adamw(RATE, mask=train.weight_decay_mask)
    mixup = train.Augmentation(mixup=0.2)
    alone = [
        Variant("none of them", plain, None),
        Variant("EMA 0.98", train.averaged(plain, 0.98), None),
        Variant("mixup 0.2", plain, mixup),
        Variant("a constant rate in place of the cosine", constant, None),
        Variant("a constant rate and EMA 0.98", train.averaged(constant, 0.98), None),
    ]
    if not task.pretrained:  # without first layers that have learned already, there is no reason to slow them down
        return alone
    layerwise = optax.chain(plain, train.layerwise_decay(model, 0.75))
    return [
        *alone,
        Variant("layer-wise rates 0.75", layerwise, None),
        Variant("EMA, mixup and layer-wise rates", train.averaged(layerwise, 0.98), mixup),
    ]


def digits(classes: tuple[int, ...]) -> Digits:
    scans, labels = load_digits(return_X_y=True)
    kept = np.isin(labels, classes)
    images = scans[kept].reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return images, np.searchsorted(classes, labels[kept]).astype(np.int32)


def split(task: Task, seed: int) -> tuple[Digits, Digits]:
    """Some scans of each class to train on, and the others."""
    images, labels = digits(task.classes)
    order = np.random.default_rng(seed).permutation(len(labels))
    some = np.concatenate([order[labels[order] == label][: task.scans] for label in range(len(task.classes))])
    rest = np.setdiff1d(order, some)
    return (images[some], labels[some]), (images[rest], labels[rest])


def pretrain(trunk: Model, seed: int, optimizer: optax.GradientTransformation) -> dict[str, Any]:
    model = reader(trunk, BASE)
    options: Any = {"optimizer": optimizer, "epochs": 15, "seed": seed, "verbose": False}
    return train.fit(model, model.init_variables(seed), digits(BASE), **options).variables


def accuracy(model: Model, task: Task, start: Mapping[str, Any], variant: Variant, seed: int) -> float:
    training, held_out = split(task, seed)
    result = train.fit(
        model, model.init_variables(seed, base=start), training, optimizer=variant.optimizer, seed=seed,
        batch_size=task.batch_size, epochs=task.epochs, augmentation=variant.augmentation, verbose=False,
    )  # fmt: skip # kept on few lines on purpose
    value: float = train.evaluate(model, result.variables, held_out, batch_size=256)["accuracy"]
    return value


def print_table(title: str, accuracies: Mapping[str, Sequence[float]]) -> None:
    """Prints the accuracies of each seed and their differences to the first row, seed by seed, in percent.

    The standard error is that of the mean difference.

    Args:
        title: What was measured.
        accuracies: Accuracies of all seeds by what was done, from 0 to 1.
    """
    print(f"\n{title}, {len(next(iter(accuracies.values())))} seeds\n")
    print("| | mean | deviation | difference | its standard error | higher, equal, lower | seeds |\n|" + "---|" * 7)
    plain = 100 * np.array(next(iter(accuracies.values())))
    for name, values in accuracies.items():
        found = 100 * np.array(values)
        change = found - plain
        error = change.std(ddof=1) / np.sqrt(len(change))
        counts = ", ".join(str(int(count)) for count in ((change > 0).sum(), (change == 0).sum(), (change < 0).sum()))
        print(
            f"| {name} | {found.mean():.1f} | {found.std(ddof=1):.1f} | {change.mean():+.2f} | {error:.2f}"
            f" | {counts} | {' '.join(f'{value:.1f}' for value in found)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    trunk, first = small_trunk(), optax.adam(RATE)
    for task in TASKS:
        starts = [pretrain(trunk, seed, first) if task.pretrained else {} for seed in seeds]
        model = reader(trunk, task.classes)
        found = {
            variant.title: [
                accuracy(model, task, start, variant, seed) for seed, start in zip(seeds, starts, strict=True)
            ]
            for variant in variants(model, task)
        }
        print_table(f"{task.title}, {task.epochs} epochs; accuracy on the other scans", found)


if __name__ == "__main__":
    main()
