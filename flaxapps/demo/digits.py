"""Second half of `flaxapps demo`: fine-tunes the ImageNet Xception of the first half on handwritten digits."""

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray

from flaxapps import layers
from flaxapps.inference.predict import predict
from flaxapps.model import Model, Network
from flaxapps.registry import build_model
from flaxapps.runtime.console import open_console
from flaxapps.runtime.files import replacing
from flaxapps.saving.load import load_model
from flaxapps.saving.save import save_model
from flaxapps.train.data.datasets import ArrayDataset
from flaxapps.train.evaluation import evaluate
from flaxapps.train.figures import write_curves
from flaxapps.train.freezing.features import compute_features
from flaxapps.train.freezing.frozen import frozen_layers, frozen_until, merge_params
from flaxapps.train.freezing.split import split_at_frozen
from flaxapps.train.loop import fit

SIZE = 71  # pixels, the smallest that Xception takes
TRAINING = 1300  # of the 1,797 digits; the others are used only to report the accuracy
TRUNK = "xception"
# Chosen by the accuracy on 300 of the 1,300 after training on the other 1,000: blocks 13 and 14 are too specific to
# ImageNet, and the 5 x 5 feature map of block 12 reads digits better.
LAST_LAYER = "add_10"  # the end of block 12
LAST_FROZEN = "add_9"  # in the second phase: the end of block 11
HEAD_EPOCHS = 12
TOP_EPOCHS = 3
BATCH_SIZE = 32
SHOWN = (4, 12)  # rows and columns of the picture


class Digits(NamedTuple):
    """Scans of handwritten digits: images (count, SIZE, SIZE, 3), uint8, and labels (count,), int32."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


def load_digits() -> tuple[Digits, Digits]:
    """Loads scikit-learn's 1,797 scans of 8 x 8 pixels, enlarged, in a fixed random order: training, held out."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    scans = (scans.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    enlarged = [Image.fromarray(scan).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB") for scan in scans]
    order = np.random.default_rng(0).permutation(len(scans))
    images, labels = np.stack([np.asarray(image) for image in enlarged])[order], labels.astype(np.int32)[order]
    return Digits(images[:TRAINING], labels[:TRAINING]), Digits(images[TRAINING:], labels[TRAINING:])


def build_reader(kitchenware: str | os.PathLike[str]) -> Network:
    """Builds a model for ten digits on the trunk of the kitchenware model, which is the published ImageNet Xception."""
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
    """Defines the phases: the head alone on the frozen trunk, then also the last block of the trunk, at a low rate.

    Args:
        model: What trains in the second phase. As in Keras's guide, BatchNormalization keeps its statistics there.
    """
    head = {"optimizer": optax.rmsprop(1e-4), "frozen": frozenset({TRUNK}), "epochs": HEAD_EPOCHS}
    statistics = frozen_layers(model, predicate=lambda layer: layer.class_name == "BatchNormalization")
    top = {"optimizer": optax.sgd(1e-4, momentum=0.9), "frozen": statistics, "epochs": TOP_EPOCHS}
    return Phase("The new head alone", head | {"cache_features": True}), Phase("The last block as well", top)


def run_training(kitchenware: str | os.PathLike[str], folder: str | os.PathLike[str]) -> float:
    """Trains, prints the accuracy on held-out digits after each phase, saves, reloads and plots.

    The features of the first eleven blocks are computed once, for both phases.

    Args:
        kitchenware: The Keras model that the trunk is taken from.
        folder: Folder for digits.keras, digits.png and digits_curves.png.

    Returns:
        The accuracy of the reloaded model on the held-out digits.
    """
    console, start = open_console(), time.perf_counter()
    training, held_out = load_digits()
    console.print(f"\nThe same Xception learns to read, from {TRAINING} handwritten digits of scikit-learn")
    model, variables = build_reader(kitchenware)
    trunk, top = split_at_frozen(model, frozen_until(model, f"{TRUNK}/{LAST_FROZEN}"))
    with open_console(sys.stderr).status("Computing the features of the first eleven blocks"):
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
        console.print(f"{title}: {right:.1%} of {len(unseen)} held-out digits read correctly, after {seconds:.0f} s")
    saved = Path(folder) / "digits.keras"
    save_model(model, variables, saved)
    probabilities = predict(*load_model(saved), held_out.images, batch_size=64, preprocess=True)
    accuracy = float((probabilities.argmax(axis=1) == held_out.labels).mean())
    console.print(f"{saved.resolve()}, loaded again, reads {accuracy:.1%} of them correctly")
    write_digits(held_out, probabilities, saved.with_suffix(".png"))
    write_curves(histories, saved.with_name("digits_curves.png"))
    console.print(f"Pictures: digits.png and digits_curves.png; {time.perf_counter() - start:.0f} s for all of it")
    return accuracy


def write_digits(digits: Digits, probabilities: NDArray[np.float32], path: str | os.PathLike[str]) -> None:
    """Draws digits with their predicted classes, wrong ones first, to a PNG file."""
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
