"""Accuracy with and without EMA, mixup and layer-wise rates, from real weights.

`python -m tests.benchmarks.recipes_pretrained` fine-tunes the ImageNet Xception of `flaxapps demo` on few images, which
then classifies the others: scikit-learn's scans of digits, as in the demo, and the photos of faces and of other things
that scikit-image ships (200 of 25 x 25 pixels, of Labeled Faces in the Wild). A new head is trained first, then also
the last block, with and without each. The demo's own photos are no task: 9 of 18 have a label, of six classes.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray
from PIL import Image

from flaxapps import Model, layers, load_model, train
from flaxapps.demo.digits import LAST_FROZEN, LAST_LAYER, SIZE, TRUNK, load_digits
from flaxapps.demo.photos import fetch_demo
from flaxapps.registry import build_model
from flaxapps.train.data.datasets import ArrayDataset
from flaxapps.train.freezing.features import compute_features
from flaxapps.train.freezing.frozen import frozen_until, merge_params
from flaxapps.train.freezing.split import split_at_frozen
from tests.benchmarks.recipes import SEEDS, print_table

FACES = "scikit-image==0.26.0"  # BSD-3; skimage/data/lfw_subset.npy
STEPS, BATCH_SIZE, RATE, EMA = 20, 10, 1e-4, 0.8
HELD_OUT = 300  # digits


class Task(NamedTuple):
    """Images, (count, SIZE, SIZE, 3), uint8, with their classes, and how many of each class to train on."""

    title: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    of_each: int


class Variant(NamedTuple):
    """How the network is fine-tuned: a title, its optimizer, and mixup or None."""

    title: str
    optimizer: optax.GradientTransformation
    augmentation: train.Augmentation | None


def read_digits() -> Task:
    (images, labels), _ = load_digits()
    return Task("Digits, 5 of each to train on", images[: HELD_OUT + 50], labels[: HELD_OUT + 50], 5)


def read_faces() -> Task:
    """Fetches scikit-image's wheel with pip, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, FACES]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files, files.open("skimage/data/lfw_subset.npy") as stream:
            photos = np.load(stream)  # 100 faces, then 100 others, from 0 to 1
    grey = [Image.fromarray((255 * photo).round().astype(np.uint8)) for photo in photos]
    images = [np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")) for photo in grey]
    return Task("Faces or not, 10 of each to train on", np.stack(images), np.repeat([1, 0], 100).astype(np.int32), 10)


def build(classes: int) -> tuple[Model, dict[str, Any]]:
    """Builds the demo's network for other classes, and returns the variables of its trunk."""
    xception = build_model("xception", include_top=False, input_shape=(SIZE, SIZE, 3))
    trunk = Model(xception.input, xception.get_layer(LAST_LAYER).output, name=TRUNK)
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.Flatten()(layers.LayerNormalization()(trunk(image)))
    stored = load_model(fetch_demo().model).variables
    base = {name: {TRUNK: tree[TRUNK]} for name, tree in stored.items() if TRUNK in tree}
    return Model(image, layers.Dense(classes, activation="softmax", name="head")(x)), base


def variants(model: Model) -> list[Variant]:
    plain = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), mask=train.weight_decay_mask)
    layerwise = optax.chain(plain, train.layerwise_decay(model, 0.75))
    mixup = train.Augmentation(mixup=0.2)
    return [
        Variant("none of them", plain, None),
        Variant(f"EMA {EMA}", train.averaged(plain, EMA), None),
        Variant("mixup 0.2", plain, mixup),
        Variant("layer-wise rates 0.75", layerwise, None),
        Variant("EMA, mixup and layer-wise rates", train.averaged(layerwise, EMA), mixup),
    ]


def measure(task: Task, seeds: range) -> dict[str, list[float]]:
    """Returns the accuracies on the other images, for all seeds: of the new head alone, and of each variant."""
    model, base = build(int(task.labels.max()) + 1)
    frozen = frozen_until(model, f"{TRUNK}/{LAST_FROZEN}")
    trunk, top = split_at_frozen(model, frozen)
    # The features of the frozen blocks are computed once, except for mixup, which mixes images.
    cached = compute_features(trunk, base, ArrayDataset(task.images, task.labels), preprocess="tf")
    (features,) = cached.features
    classes = int(task.labels.max()) + 1
    epochs = STEPS * BATCH_SIZE // (task.of_each * classes)
    recipes = variants(model)
    found: dict[str, list[float]] = {name: [] for name in ("the new head alone", *(each.title for each in recipes))}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(task.labels))
        some = np.concatenate([order[task.labels[order] == label][: task.of_each] for label in range(classes)])
        rest = np.setdiff1d(order, some)

        def accuracy(variables: Mapping[str, Any], rest: NDArray[np.intp] = rest) -> float:
            own = top.init_variables(base=variables)
            value: float = train.evaluate(top, own, (features[rest], task.labels[rest]))["accuracy"]
            return value

        options: dict[str, Any] = {"batch_size": BATCH_SIZE, "seed": seed, "verbose": False}
        start = train.fit(
            top, top.init_variables(seed, base=base), (features[some], task.labels[some]), frozen={TRUNK},
            optimizer=optax.adam(1e-3), epochs=15, **options,
        ).variables  # fmt: skip # kept on few lines on purpose
        found["the new head alone"].append(accuracy(start))
        for variant in recipes:
            mixes = variant.augmentation is not None
            network, data = (model, task.images) if mixes else (top, features)
            statistics = train.frozen_layers(network, predicate=lambda layer: layer.class_name == "BatchNormalization")
            merged = {name: merge_params(start.get(name, {}), tree) for name, tree in base.items()}
            result = train.fit(
                network, network.init_variables(base=start | merged), (data[some], task.labels[some]),
                frozen=frozen | statistics if mixes else statistics, optimizer=variant.optimizer,
                augmentation=variant.augmentation, epochs=epochs, preprocess="tf" if mixes else False, **options,
            )  # fmt: skip # kept on few lines on purpose
            found[variant.title].append(accuracy(result.variables))
            print(seed, variant.title, found[variant.title][-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    for task in (read_digits(), read_faces()):
        rest = len(task.labels) - task.of_each * (int(task.labels.max()) + 1)
        print_table(f"{task.title}, {STEPS} steps; accuracy on {rest} others", measure(task, seeds))


if __name__ == "__main__":
    main()
