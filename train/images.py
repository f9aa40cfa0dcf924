"""Image files with their classes, decoded as they are needed."""

import contextlib
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from flaxapps.image import INTERPOLATIONS, ImageError, img_to_array, load_img
from flaxapps.manifests import fingerprint_of
from flaxapps.paths import as_path, in_bucket, path_in
from train.datasets import HASHED_BYTES, Batches
from train.pipeline import pipeline

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
LABEL_MODES = ("int", "categorical")
ERROR_MODES = ("raise", "skip")
DEEP_MODES = ("I", "F")  # Pillow's for more than 8 bits a pixel; "I;16" and its kin begin like the first

FAILURES_SHOWN = 10

Described = TypeVar("Described")


class ImageOptions(NamedTuple):
    """How the images of a dataset are read.

    Attributes:
        image_size: (height, width) in pixels that every image is resized to.
        label_mode: "int" for class indices, int32 (n,), or "categorical" for one-hot rows, float32 (n, classes).
        color_mode: "rgb", "grayscale" or "rgba": 3, 1 or 4 channels. Images are uint8 from 0 to 255; grey ones float32,
            up to 65535 where a file has 16 bits.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos", those of Pillow.
        on_error: What to do with an image that cannot be read: "raise" an error that names it, or "skip" it.
        workers: Processes that decode; 0 decodes in threads, which suits most, as Pillow leaves Python's lock alone.
    """

    image_size: tuple[int, int]
    label_mode: str = "int"
    color_mode: str = "rgb"
    interpolation: str = "bilinear"
    on_error: str = "raise"
    workers: int = 0


def image_options(image_size: tuple[int, int] | int, **options: Any) -> ImageOptions:
    """Checked options.

    Args:
        image_size: (height, width) in pixels; one number for both.
        **options: The others of `ImageOptions`.

    Raises:
        ValueError: Options are unknown or out of range; all of them are told.
    """
    size: Any = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    checked = ImageOptions(size, **options)
    choices = {
        "label_mode": LABEL_MODES,
        "color_mode": tuple(CHANNELS),
        "interpolation": INTERPOLATIONS,
        "on_error": ERROR_MODES,
    }
    wrong = [
        f"{name} is one of {', '.join(known)}, got {getattr(checked, name)!r}"
        for name, known in choices.items()
        if getattr(checked, name) not in known
    ]
    if len(size) != 2 or min(size) < 1:
        wrong.append(f"image_size is (height, width) in pixels, got {size}")
    if checked.workers < 0:
        wrong.append(f"workers is at least 0, got {checked.workers}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return checked


class _Loaded(NamedTuple):
    images: NDArray[Any]
    labels: NDArray[Any]
    failures: list[tuple[str, str]]


class ImageDataset:
    """Labelled image files; `image_folder` and `image_table` make one.

    Images are read as `flaxapps.image.load_img` reads them, so as Keras does: EXIF orientation is ignored, of an
    animation the first frame is taken, transparency is dropped with "rgb", CMYK is converted. What Keras would spoil is
    an error here: greyscale of more than 8 bits read as "rgb", which comes out all white.

    Attributes:
        root: The folder that file names are relative to.
        files: Names of the files.
        labels: Class index of each, (n,), int32.
        class_names: In the order of the labels.
        options: How they are read.
        skipped: With on_error="skip", the files that were left out so far, by name, and why. The end of an epoch that
            left out any warns with their number. A batch with such a file is smaller than the others, so that a
            position in an epoch does not depend on what could be read; `without_broken` makes full batches.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        files: Sequence[str],
        labels: NDArray[np.int32],
        class_names: Sequence[str],
        options: ImageOptions,
    ):
        """Reads nothing yet."""
        self.root = os.fspath(root)
        self.files = files
        self.labels = labels
        self.class_names = tuple(class_names)
        self.options = options
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def fingerprint(self) -> str:
        """Of names, sizes in bytes and classes of the files, of how they are read, and of some of their content.

        Read are all files of up to 64 MiB together, and of more the half, quarter, eighth, ... that comes to so much.
        """
        return fingerprint_of(self.manifest())

    def manifest(self) -> dict[str, str]:
        """An entry for each class, for the options that change what is read, and for each file."""
        options = self.options
        entries = {f"class {index}": name for index, name in enumerate(self.class_names)}
        entries["images"] = f"{options.image_size} {options.color_mode}, {options.interpolation}, {options.label_mode}"
        repeated = Counter(self.files) if len(set(self.files)) < len(self.files) else {}
        for file, content, label in zip(self.files, self._contents(), self.labels.tolist(), strict=True):
            times = f", {repeated[file]} times" if repeated.get(file, 1) > 1 else ""
            entries[f"file {file}"] = f"class {label}, {content}{times}"
        return entries

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Reads one epoch, as `train.Dataset.batches`.

        Raises:
            ImageError: With on_error="raise": images cannot be read; all those of a batch are named.
        """
        options: Any = {"seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return self._unpack(self._loaded(batch_size, **options))

    def without_broken(self) -> "ImageDataset":
        """The same without the images that cannot be read; reads every image once to find them.

        Raises:
            ValueError: None can be read.
        """
        careful = ImageDataset(
            self.root, self.files, self.labels, self.class_names, self.options._replace(on_error="skip")
        )
        broken = {file for loaded in careful._loaded(32, seed=None) for file, _ in loaded.failures}
        kept = [index for index, file in enumerate(self.files) if file not in broken]
        if not kept:
            raise ValueError(f"None of the {len(self)} images in {self.root} can be read")
        return ImageDataset(
            self.root, [self.files[index] for index in kept], self.labels[kept], self.class_names, self.options
        )

    def _loaded(self, batch_size: int, **options: Any) -> Any:
        return iter(pipeline(self._load, len(self), batch_size=batch_size, workers=self.options.workers, **options))

    def _unpack(self, loaded: Any) -> Batches:
        missing = 0
        with contextlib.closing(loaded):  # an epoch that is left early ends its workers as well
            for images, labels, failures in loaded:
                missing += len(failures)
                self.skipped.update(failures)
                # Worker processes send images in shared memory, which is free again once there is a copy.
                yield (np.array(images), np.array(labels)) if self.options.workers else (images, labels)
        if missing:
            names = ", ".join(list(self.skipped)[:FAILURES_SHOWN])
            warnings.warn(f"{missing} images could not be read and were left out of this epoch: {names}", stacklevel=2)

    def _load(self, indices: NDArray[np.int64]) -> _Loaded:
        threads = max(1, (os.cpu_count() or 1) // max(1, self.options.workers))
        with ThreadPoolExecutor(threads) as executor:
            results = list(executor.map(self._read, indices.tolist()))
        failures = [
            (self.files[index], str(result))
            for index, result in zip(indices, results, strict=True)
            if isinstance(result, Exception)
        ]
        if failures and self.options.on_error == "raise":
            raise ImageError(_describe(failures, len(indices)))
        photos = [result for result in results if not isinstance(result, Exception)]
        read = [not isinstance(result, Exception) for result in results]
        shape = (0, *self.options.image_size, CHANNELS[self.options.color_mode])
        images = np.stack(photos) if photos else np.empty(shape, self._dtype)
        return _Loaded(images, self._encoded(self.labels[indices[read]]), failures)

    @property
    def _dtype(self) -> Any:
        return np.float32 if self.options.color_mode == "grayscale" else np.uint8

    def _read(self, index: int) -> NDArray[Any] | Exception:
        from PIL import Image

        color_mode = self.options.color_mode
        try:
            path = path_in(self.root, self.files[index])
            with as_path(path).open("rb") as file:
                image = load_img(file, color_mode, self.options.image_size, self.options.interpolation)
                file.seek(0)
                mode = Image.open(file).mode
        except (ImageError, OSError) as error:
            return error
        if color_mode != "grayscale" and mode.startswith(DEEP_MODES):
            return ImageError(
                f"{path}: greyscale of more than 8 bits (mode {mode}) read as {color_mode!r} would be cut off at "
                "255, nearly all white: save it with 8 bits, or read with color_mode='grayscale'"
            )
        return img_to_array(image, "channels_last", self._dtype)

    def _encoded(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        if self.options.label_mode == "int":
            return labels
        return np.eye(len(self.class_names), dtype=np.float32)[labels]

    def _contents(self) -> list[str]:
        """What is in every file."""
        paths = [path_in(self.root, file) for file in self.files]
        sizes = in_threads(lambda index: _size(paths[index]), len(paths))
        total = sum(size for size in sizes if isinstance(size, int))
        # Chosen by their names, so that a file more or less leaves the entries of the others as they are.
        rate = 1 << (max(0, total - 1) // HASHED_BYTES).bit_length()
        read = [zlib.crc32(os.fsencode(file)) % rate == 0 for file in self.files]
        return in_threads(lambda index: _content(paths[index], sizes[index], read[index]), len(paths))


def in_threads(describe: Callable[[int], Described], count: int) -> list[Described]:
    """What a function gives for each index; by threads, since each answer of a network drive takes its time."""
    parts = np.array_split(np.arange(count), 32)
    with ThreadPoolExecutor(32) as executor:
        answers = executor.map(lambda part: [describe(index) for index in part.tolist()], parts)
        return [answer for some in answers for answer in some]


def _size(path: str) -> int | str:
    try:
        found: Any = as_path(path).stat()
        size: int = found.length if in_bucket(path) else found.st_size
        return size
    except OSError as error:
        return f"{error.strerror}"


def _content(path: str, size: int | str, read: bool) -> str:
    """Such as "1234 bytes, CRC-32 0a1b2c3d"."""
    if not isinstance(size, int):
        return size
    if not read:
        return f"{size} bytes"
    try:
        with as_path(path).open("rb") as file:
            return f"{size} bytes, CRC-32 {zlib.crc32(file.read()):08x}"
    except OSError as error:
        return f"{size} bytes, {error.strerror}"


def _describe(failures: list[tuple[str, str]], count: int) -> str:
    lines = [f"{len(failures)} of a batch of {count} images cannot be read (on_error='skip' leaves such images out):"]
    return "\n  ".join([*lines, *(reason for _, reason in failures)])
