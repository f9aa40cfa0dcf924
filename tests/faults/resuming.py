"""Runs that find their checkpoints broken, their data changed, or numbers that are none: said, and nothing is lost."""

import contextlib
import functools
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from PIL import Image

from flaxapps import Input, Model, layers, train
from tests.faults.report import Row, at_most, outcome_of, tally
from tests.train.small import fit, small_data, small_model

FELL_BACK = "the one before, with a warning, and on to the bit"
HARMLESS = "read, and on to the bit"
REFUSED = "clear error"
EPOCHS, BATCHES, STOPPED_AT = 2, 5, 7


class StoppedError(Exception):
    """What stops a run on its way."""


def larger_model() -> Model:
    """One whose arrays are most of its checkpoint."""
    x = y = Input((8, 8, 3), name="image")
    for name in ("conv1", "conv2"):
        y = layers.Conv2D(32, 3, name=name)(y)
    return Model(x, layers.Dense(4, activation="softmax", name="head")(layers.GlobalAveragePooling2D(name="pool")(y)))


def run(folder: Path, stop_at: int | None = None, resume: bool = False, **options: Any) -> Any:
    def stop(event: object) -> None:
        if isinstance(event, train.StepEnd) and event.step == stop_at:
            raise StoppedError

    arguments = {"optimizer": optax.adam(0.01), "epochs": EPOCHS, "callbacks": [stop], **options}
    return fit(
        arguments.pop("data", small_data(16 * BATCHES)),
        checkpoint_dir=train.CheckpointFolder(folder, every=1, resume=resume),
        **arguments,
    )[0]


def equal(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def flip(path: Path, choose: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place = choose.randrange(len(content))
    content[place] ^= 1 << choose.randrange(8)
    path.write_bytes(content)
    return f"byte {place}"


def cut(path: Path, choose: random.Random) -> str:
    length = choose.randrange(path.stat().st_size)
    path.write_bytes(path.read_bytes()[:length])
    return f"after {length} bytes"


def remove(path: Path, choose: random.Random) -> str:
    path.unlink()
    return "removed"


Harm = Callable[[Path, random.Random], str]


def broken_checkpoints(folder: Path, harm: Harm, times: int) -> Iterator[tuple[str, str]]:
    """Harm to a file of the newest checkpoint, larger files more often, and what a resumed run then does."""
    options: dict[str, Any] = {"model": larger_model()}
    whole = run(folder / "whole", **options).variables
    with contextlib.suppress(StoppedError):
        run(folder / "run", stop_at=STOPPED_AT, **options)
    newest = max((path for path in (folder / "run").iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    choose = random.Random(7)
    for _ in range(times):
        copy = folder / "copy"
        shutil.copytree(folder / "run", copy)
        (file,) = choose.choices(files, [path.stat().st_size for path in files])
        label = f"{file.relative_to(newest)} {harm(copy / file.relative_to(folder / 'run'), choose)}"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                result = run(copy, resume=True, **options).variables
                told = any("trying the one before" in str(warning.message) for warning in said)
                yield label, (FELL_BACK if told else HARMLESS) if equal(result, whole) else "other parameters"
            except Exception as error:
                yield label, f"{type(error).__name__}: {error}"
        shutil.rmtree(copy)


def photo(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, 0, 99)).save(path)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "added": (lambda root: photo(root / "cat" / "new.bmp", 1), "cat/new.bmp: is new"),
    "missing": (lambda root: (root / "cat" / "3.bmp").unlink(), "cat/3.bmp: was class 0"),
    "changed, of another size": (lambda root: (root / "dog" / "2.bmp").write_bytes(b"BM"), "dog/2.bmp: was"),
    "changed, of the same size": (lambda root: photo(root / "dog" / "2.bmp", 200), "dog/2.bmp: was"),
    "renamed": (lambda root: (root / "dog" / "2.bmp").rename(root / "dog" / "z.bmp"), "dog/z.bmp: is new"),
    "in another class": (lambda root: (root / "dog" / "2.bmp").rename(root / "cat" / "2b.bmp"), "cat/2b.bmp: is new"),
    "two that swapped names": (lambda root: swap(root / "dog" / "1.bmp", root / "cat" / "1.bmp"), "cat/1.bmp: was"),
}


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def changed_folders(folder: Path) -> Iterator[tuple[str, str]]:
    for name, (change, says) in CHANGES.items():
        root, checkpoints = folder / name / "photos", folder / name / "run"
        for number in range(8):
            photo(root / "cat" / f"{number}.bmp", number)
            photo(root / "dog" / f"{number}.bmp", 100 + number)

        def train_on(root: Path = root, checkpoints: Path = checkpoints, **options: Any) -> str:
            data = train.image_folder(root, image_size=8)
            model = Model(x := Input((8, 8, 3)), layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
            run(checkpoints, data=data, model=model, epochs=1, **options)
            return "resumed"

        train_on()
        change(root)
        yield name, outcome_of(lambda: train_on(resume=True), train.CheckpointError, says)


def not_numbers() -> dict[str, tuple[dict[str, Any], str]]:
    """What makes a run meet NaN, and what its error says."""
    images, labels = small_data(16 * BATCHES)
    broken, one_hot = images.copy(), np.eye(4, dtype=np.float32)[labels]
    broken[37, 2, 2] = np.nan
    infinite = images.copy()
    infinite[37] = np.inf
    one_hot[5] = np.nan
    large = images.copy()
    large[20] = 1e30

    def nan_loss(labels: Any, outputs: Any) -> Any:
        return jax.numpy.where(outputs[:, 0] >= 0, jax.numpy.nan, outputs[:, 0])

    return {
        "an image with NaN": ({"data": (broken, labels)}, "images of examples"),
        "an image with infinity": ({"data": (infinite, labels)}, "images of examples"),
        "a label that is NaN": ({"data": (images, one_hot)}, "labels of examples"),
        "an image of 1e30": ({"data": (large, labels)}, "NaN or infinite"),
        "a learning rate of 1e20": ({"optimizer": optax.sgd(1e20)}, "learning rate"),
        "a loss that is NaN": ({"loss": nan_loss}, "images and labels are finite"),
    }


def without_numbers(folder: Path) -> Iterator[tuple[str, str]]:
    """An error that says it, and checkpoints that hold numbers only."""
    import orbax.checkpoint as ocp

    def train_on(name: str, options: dict[str, Any]) -> str:
        run(folder / name, **{"model": small_model(), **options})
        return "trained to the end"

    for name, (options, says) in not_numbers().items():
        outcome = outcome_of(functools.partial(train_on, name, options), train.TrainingError, says)
        for path in (folder / name).iterdir():
            if path.name.isdigit():
                saved = ocp.StandardCheckpointer().restore(path / "variables")
                if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved)):
                    outcome = f"{outcome}; checkpoint {path.name} is not finite"
        yield name, outcome


def rows(count: int | None) -> Iterator[Row]:
    """The rows of this section."""
    harms: dict[str, tuple[Harm, int]] = {"one bit is flipped": (flip, 100), "one is cut": (cut, 40)}
    harms["one is missing"] = (remove, 20)
    for name, (harm, times) in harms.items():
        with tempfile.TemporaryDirectory() as folder:
            tries = broken_checkpoints(Path(folder), harm, at_most(times, count))
            yield tally(f"of the newest checkpoint's files {name}", tries, {FELL_BACK, HARMLESS})
    with tempfile.TemporaryDirectory() as folder:
        yield tally("photos changed between runs", changed_folders(Path(folder)), {REFUSED})
    with tempfile.TemporaryDirectory() as folder:
        yield tally("numbers that are none", without_numbers(Path(folder)), {REFUSED})
