"""The second half of `flaxapps demo`: the ImageNet Xception of the first half learns to read handwritten digits."""

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray

from flaxapps import layers
from flaxapps.exporting import save_model
from flaxapps.importing import load_model
from flaxapps.inference import predict
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.registry import build_model
from flaxapps.reports import open_console, replacing
from train.datasets import ArrayDataset
from train.evaluation import evaluate
from train.features import compute_features
from train.figures import write_curves
from train.heads import frozen_until
from train.loop import fit
from train.masks import frozen_layers, merge_params
from train.splitting import split_at_frozen

SIZE = 71  # pixels, the smallest that Xception takes
TRAINING = 1300  # of the 1,797 digits; the others are looked at only to report how many are read rightly
TRUNK = "xception"
# Chosen by the accuracy on 300 of the 1,300 after training with the other 1,000: blocks 13 and 14 know the classes of
# ImageNet too well; what block 12 says of each of 5 x 5 places reads digits better.
LAST_LAYER = "add_10"  # the end of block 12
LAST_FROZEN = "add_9"  # in the second phase: the end of block 11
HEAD_EPOCHS = 12
TOP_EPOCHS = 3
BATCH_SIZE = 32
SHOWN = (4, 12)  # rows and columns of the picture


class Digits(NamedTuple):
    """Scans of handwritten digits: images (count, SIZE, SIZE, 3), uint8, and what they are, (count,), int32."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


def load_digits() -> tuple[Digits, Digits]:
    """scikit-learn's 1,797 scans of 8 x 8 pixels, enlarged, in a fixed random order: to train with, and held out."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    scans = (scans.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    enlarged = [Image.fromarray(scan).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB") for scan in scans]
    order = np.random.default_rng(0).permutation(len(scans))
    images, labels = np.stack([np.asarray(image) for image in enlarged])[order], labels.astype(np.int32)[order]
    return Digits(images[:TRAINING], labels[:TRAINING]), Digits(images[TRAINING:], labels[TRAINING:])


def build_reader(kitchenware: str | os.PathLike[str]) -> Network:
    """A model for ten digits on the trunk of the kitchenware model, which is the published ImageNet Xception."""
    pretrained = load_model(kitchenware).variables
    xception = build_model("xception", include_top=False, input_shape=(SIZE, SIZE, 3))
    trunk = Model(xception.input, xception.get_layer(LAST_LAYER).output, name=TRUNK)
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.Flatten()(layers.LayerNormalization()(trunk(image)))
    model = Model(image, layers.Dense(10, activation="softmax")(x), name="digits")
    base = {collection: {TRUNK: tree[TRUNK]} for collection, tree in pretrained.items() if TRUNK in tree}
    return Network(model, model.init_variables(base=base))


class Phase(NamedTuple):
    """One phase of the training: a title, and the arguments of `fit`."""

    title: str
    options: dict[str, Any]


def make_phases(model: Model) -> tuple[Phase, Phase]:
    """The head alone, with the trunk frozen; then the last block of the trunk as well, slowly.

    Args:
        model: What trains in the second phase. As in Keras's guide, BatchNormalization keeps its statistics there.
    """
    head = {"optimizer": optax.rmsprop(1e-4), "frozen": frozenset({TRUNK}), "epochs": HEAD_EPOCHS}
    statistics = frozen_layers(model, predicate=lambda layer: layer.class_name == "BatchNormalization")
    top = {"optimizer": optax.sgd(1e-4, momentum=0.9), "frozen": statistics, "epochs": TOP_EPOCHS}
    return Phase("The new head alone", head | {"cache_features": True}), Phase("The last block as well", top)


def run_training(kitchenware: str | os.PathLike[str], folder: str | os.PathLike[str]) -> float:
    """Trains, says how many held-out digits are read rightly after each phase, saves, reloads and draws.

    What the first eleven blocks make of the digits is computed once, for both phases.

    Args:
        kitchenware: The Keras model that the trunk is taken from.
        folder: Gets digits.keras, digits.png and digits_curves.png.

    Returns:
        The share of the held-out digits that the reloaded model reads rightly.
    """
    console, start = open_console(), time.perf_counter()
    training, held_out = load_digits()
    console.print(f"\nThe same Xception learns to read, from {TRAINING} handwritten digits of scikit-learn")
    model, variables = build_reader(kitchenware)
    trunk, top = split_at_frozen(model, frozen_until(model, f"{TRUNK}/{LAST_FROZEN}"))
    with open_console(sys.stderr).status("Computing what the first eleven blocks make of them"):
        both = (ArrayDataset(*digits) for digits in (training, held_out))
        features, unseen = (compute_features(trunk, variables, data, preprocess="tf") for data in both)
    histories = {}
    for title, options in make_phases(top):
        verbose = sys.stderr.isatty()
        start_from = top.init_variables(base=variables)
        result = fit(top, start_from, features, batch_size=BATCH_SIZE, verbose=verbose, **options)
        variables = {name: merge_params(result.variables.get(name, {}), tree) for name, tree in variables.items()}
        histories[title] = result.history
        right = evaluate(top, result.variables, unseen)["accuracy"]
        seconds = time.perf_counter() - start
        console.print(f"{title}: {right:.1%} of {len(unseen)} held-out digits read rightly, after {seconds:.0f} s")
    saved = Path(folder) / "digits.keras"
    save_model(model, variables, saved)
    probabilities = predict(*load_model(saved), held_out.images, batch_size=64, preprocess=True)
    accuracy = float((probabilities.argmax(axis=1) == held_out.labels).mean())
    console.print(f"{saved.resolve()}, loaded again, reads {accuracy:.1%} of them rightly")
    write_digits(held_out, probabilities, saved.with_suffix(".png"))
    write_curves(histories, saved.with_name("digits_curves.png"))
    console.print(f"Pictures: digits.png and digits_curves.png; {time.perf_counter() - start:.0f} s for all of it")
    return accuracy


def write_digits(digits: Digits, probabilities: NDArray[np.float32], path: str | os.PathLike[str]) -> None:
    """Draws digits with what they were taken for, those that were misread first, to a PNG file."""
    from matplotlib.figure import Figure

    read = probabilities.argmax(axis=1)
    order = np.argsort(read == digits.labels, kind="stable")[: SHOWN[0] * SHOWN[1]]
    figure = Figure(figsize=(SHOWN[1], 1.25 * SHOWN[0] + 0.4), dpi=120, layout="constrained")
    wrong = int((read != digits.labels).sum())
    figure.suptitle(f"{len(read)} held-out digits, {wrong} misread: the misread ones in red, then others", fontsize=11)
    for axes, index in zip(figure.subplots(*SHOWN).flat, order, strict=False):
        axes.imshow(digits.images[index])
        right = read[index] == digits.labels[index]
        known = f"{probabilities[index].max():.0%}" if right else f"is {digits.labels[index]}"
        axes.set_title(f"{read[index]}, {known}", color="black" if right else "red", fontsize=9)
        axes.set_axis_off()
    with replacing(path, "wb") as stream:
        figure.savefig(stream, format="png")
