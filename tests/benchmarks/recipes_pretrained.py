"""Accuracy with and without EMA, mixup and layer-wise rates, from real weights.

`python -m tests.benchmarks.recipes_pretrained` fine-tunes four blocks of the ImageNet Xception of `flaxapps demo` on
few images, which then classifies the others. Digits: scikit-learn's scans, as in the demo. Faces: is this detail, of
6 x 6 pixels, part of a face? The photos are those of Labeled Faces in the Wild that scikit-image ships. A seed chooses
the images, the new head and the order. `--choose` compares learning rates without any of the three, on other seeds.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray
from PIL import Image

from flaxapps import Model, layers, load_model, train
from flaxapps.demo.digits import TRUNK, load_digits
from flaxapps.demo.photos import fetch_demo
from flaxapps.registry import build_model
from flaxapps.train.data.datasets import ArrayDataset
from flaxapps.train.freezing.features import compute_features
from flaxapps.train.freezing.frozen import frozen_until
from flaxapps.train.freezing.split import split_at_frozen
from tests.benchmarks.recipes import SEEDS, print_table

FACES = "scikit-image==0.26.0"  # BSD-3; skimage/data/lfw_subset.npy
SIZE = 48  # pixels
LAST_FROZEN, LAST_LAYER = "add_2", "add_6"  # the ends of blocks 4 and 8: Xception's entry flow is frozen
STEPS, WARMUP, BATCH_SIZE = 100, 10, 10
RATES = (3e-4, 1e-3, 3e-3)
CHOSEN = 3e-4  # the smallest loss of both tasks
OTHER_SEEDS = range(100, 102)
EMA, MIXUP, DECAY = 0.95, 0.2, 0.75
HELD_OUT = 500  # digits


class Task(NamedTuple):
    """Images, (count, SIZE, SIZE, 3), uint8, with their classes.

    Attributes:
        title: Title to show.
        images: The images; `crops` of the same photo follow each other.
        labels: Their classes.
        of_each: Number of photos of each class to train on.
        crops: Images of a photo, which are all trained on or all classified.
    """

    title: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    of_each: int
    crops: int = 1

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def split(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Returns the indices of the images to train on, and of the others."""
        labels = self.labels[:: self.crops]
        order = np.random.default_rng(seed).permutation(len(labels))
        some = np.concatenate([order[labels[order] == label][: self.of_each] for label in range(self.classes)])
        both = (some, np.setdiff1d(order, some))
        some, rest = ((self.crops * photos[:, None] + np.arange(self.crops)).ravel() for photos in both)
        return some, rest


class Variant(NamedTuple):
    """How the network is fine-tuned: a title, its optimizer, and mixup or None."""

    title: str
    optimizer: optax.GradientTransformation
    augmentation: train.Augmentation | None = None


def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB"))


def read_digits() -> Task:
    (images, labels), _ = load_digits()
    images = np.stack([resized(image) for image in images[: HELD_OUT + 50]])
    return Task("Digits, 5 of each to train on", images, labels[: HELD_OUT + 50], 5)


def read_faces() -> Task:
    """Fetches scikit-image's wheel with pip, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, FACES]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files, files.open("skimage/data/lfw_subset.npy") as stream:
            photos = np.load(stream)  # 100 faces, then 100 others, of 25 x 25 pixels from 0 to 1
    details = [photo[y : y + 6, x : x + 6] for photo in photos for y in (6, 12) for x in (6, 12)]
    images = np.stack([resized((255 * detail).round().astype(np.uint8)) for detail in details])
    labels = np.repeat([1, 0], 400).astype(np.int32)
    return Task("Details of photos, of a face or not, 5 photos of each to train on", images, labels, 5, 4)


def build(classes: int) -> tuple[Model, dict[str, Any]]:
    """Builds a network for these classes on blocks 1 to 8, and returns the variables of these."""
    xception = build_model("xception", include_top=False, input_shape=(None, None, 3))
    trunk = Model(xception.input, xception.get_layer(LAST_LAYER).output, name=TRUNK)
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.LayerNormalization(name="norm")(layers.GlobalAveragePooling2D()(trunk(image)))
    stored = load_model(fetch_demo().model).variables
    kept = {layer.name for layer in trunk.layers}
    base = {
        name: {TRUNK: {layer: arrays for layer, arrays in tree[TRUNK].items() if layer in kept}}
        for name, tree in stored.items()
        if TRUNK in tree
    }
    return Model(image, layers.Dense(classes, activation="softmax", name="head")(x)), base


def adamw(rate: float) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, WARMUP, STEPS)
    return optax.adamw(schedule, mask=train.weight_decay_mask)


def variants(model: Model) -> list[Variant]:
    plain = adamw(CHOSEN)
    layerwise = optax.chain(plain, train.layerwise_decay(model, DECAY))
    mixup = train.Augmentation(mixup=MIXUP)
    return [
        Variant("none of them", plain),
        Variant(f"EMA {EMA}", train.averaged(plain, EMA)),
        Variant(f"mixup {MIXUP}", plain, mixup),
        Variant(f"layer-wise rates {DECAY}", layerwise),
        Variant("EMA, mixup and layer-wise rates", train.averaged(layerwise, EMA), mixup),
    ]


def measure(
    task: Task, recipes: Sequence[Variant], seeds: Sequence[int], network: tuple[Model, Mapping[str, Any]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns accuracies and losses on the other images, of each recipe for all seeds."""
    model, base = network
    frozen = frozen_until(model, f"{TRUNK}/{LAST_FROZEN}")
    trunk, top = split_at_frozen(model, frozen)
    # The features of the frozen blocks are computed once, except for mixup, which mixes images.
    cached = compute_features(trunk, base, ArrayDataset(task.images, task.labels), preprocess="tf")
    (features,) = cached.features
    accuracies: dict[str, list[float]] = {each.title: [] for each in recipes}
    losses: dict[str, list[float]] = {each.title: [] for each in recipes}
    for seed in seeds:
        some, rest = task.split(seed)
        for title, optimizer, augmentation in recipes:
            trained, data = (top, features) if augmentation is None else (model, task.images)
            statistics = train.frozen_layers(trained, predicate=lambda layer: layer.class_name == "BatchNormalization")
            result = train.fit(
                trained, trained.init_variables(seed, base=base), (data[some], task.labels[some]),
                frozen=statistics if augmentation is None else statistics | frozen, optimizer=optimizer,
                augmentation=augmentation, epochs=STEPS * BATCH_SIZE // len(some), batch_size=BATCH_SIZE, seed=seed,
                preprocess=False if augmentation is None else "tf", verbose=False,
            )  # fmt: skip # kept on few lines on purpose
            variables = top.init_variables(base=result.variables)
            found = train.evaluate(top, variables, (features[rest], task.labels[rest]), batch_size=100)
            accuracies[title].append(found["accuracy"])
            losses[title].append(found["loss"])
            last = result.history["loss"][-1]
            print(f"{seed} {title}: trained to {last:.2g}; {found}", file=sys.stderr, flush=True)
    return accuracies, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--task", choices=("digits", "faces"), action="append", help="default: both")
    parser.add_argument("--choose", action="store_true", help="compare learning rates on other seeds")
    arguments = parser.parse_args()
    for name in arguments.task or ("digits", "faces"):
        task = {"digits": read_digits, "faces": read_faces}[name]()
        network = build(task.classes)
        recipes = [Variant(f"{rate:g}", adamw(rate)) for rate in RATES] if arguments.choose else variants(network[0])
        seeds = OTHER_SEEDS if arguments.choose else range(arguments.seeds)
        accuracies, losses = measure(task, recipes, seeds, network)
        count = len(task.labels) - task.of_each * task.classes * task.crops
        print_table(f"{task.title}, {STEPS} steps; accuracy on {count} others", accuracies)
        print_table("The same; 100 times the loss on them", losses)


if __name__ == "__main__":
    main()
