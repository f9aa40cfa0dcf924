"""Labelled image files, decoded when they are read."""

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

from flaxapps.image import INTERPOLATIONS, ImageError
from flaxapps.photos.photo import CHANNELS, PhotoFormat, Resizing, read_photo
from flaxapps.runtime.files import as_path, in_bucket, path_in
from flaxapps.runtime.manifests import fingerprint_of
from flaxapps.train.data.datasets import HASHED_BYTES, Batches
from flaxapps.train.data.pipeline import ending_workers, pipeline

LABEL_MODES = ("int", "categorical")
ERROR_MODES = ("raise", "skip")

FAILURES_SHOWN = 10

Described = TypeVar("Described")


class ImageOptions(NamedTuple):
    """Options for reading the images of a dataset.

    Attributes:
        image_size: (height, width) in pixels to which every image is resized.
        label_mode: "int" for class indices, int32 (n,), or "categorical" for one-hot rows, float32 (n, classes).
        color_mode: "rgb", "grayscale" or "rgba": 3, 1 or 4 channels. Images are from 0 to 255, uint8; greyscale ones
            are float32, as files of 16 bits keep their levels as fractions.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        on_error: "raise" an error that names the unreadable images, or "skip" them.
        workers: Decoding processes; 0 decodes in threads, which suits most uses, as Pillow releases Python's lock.
        antialias: Whether images that shrink are averaged, by Pillow; False takes Keras's pixels, float32.
        orientation: Whether images are turned upright by their EXIF orientation. Keras does not.
        crop_to_aspect_ratio: Whether to crop the largest centred box of the target's proportions before resizing.
    """

    image_size: tuple[int, int]
    label_mode: str = "int"
    color_mode: str = "rgb"
    interpolation: str = "bilinear"
    on_error: str = "raise"
    workers: int = 0
    antialias: bool = True
    orientation: bool = True
    crop_to_aspect_ratio: bool = False

    @property
    def resizing(self) -> Resizing:
        """How an image gets its size."""
        return Resizing(
            self.interpolation,
            self.antialias,
            self.orientation,
            crop_to_aspect_ratio=self.crop_to_aspect_ratio,
        )

    @property
    def form(self) -> PhotoFormat:
        """Size and layout of an image."""
        return PhotoFormat(*self.image_size, CHANNELS[self.color_mode])

    @property
    def dtype(self) -> str:
        """Dtype of images."""
        return self.resizing.dtype(CHANNELS[self.color_mode])


def image_options(image_size: tuple[int, int] | int, **options: Any) -> ImageOptions:
    """Checks options.

    Args:
        image_size: (height, width) in pixels; one number for both.
        **options: The other fields of `ImageOptions`.

    Raises:
        ValueError: Options are unknown or out of range; all of them are listed.
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
        f"{name} should be one of {', '.join(known)}, got {getattr(checked, name)!r}"
        for name, known in choices.items()
        if getattr(checked, name) not in known
    ]
    if len(size) != 2 or min(size) < 1:
        wrong.append(f"image_size should be (height, width) in pixels, got {size}")
    if checked.workers < 0:
        wrong.append(f"workers should be at least 0, got {checked.workers}")
    if checked.interpolation in INTERPOLATIONS:
        try:
            checked.resizing.check()
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return checked


class _Loaded(NamedTuple):
    images: NDArray[Any]
    labels: NDArray[Any]
    failures: list[tuple[str, str]]


class ImageDataset:
    """Labelled image files, as `image_folder` and `image_table` return them.

    Images are turned upright by their EXIF orientation, unless `options.orientation` is False, as in Keras. As there,
    animations give their first frame, and "rgb" drops transparency and converts CMYK. Greyscale of 16 bits is scaled to
    0 to 255 (Keras clips it to nearly all white, or keeps 0 to 65535); of 32 bits it is an error.

    Attributes:
        root: Folder that file names are relative to.
        files: File names.
        labels: Class index of each file, (n,), int32.
        class_names: Class names in the order of the labels.
        options: Options for reading the images.
        skipped: With on_error="skip", the files skipped so far, and why. An epoch that skipped any ends with a warning.
            Its batches with such files are smaller than the others, so that a position in an epoch does not depend on
            which files are readable; `without_broken` gives full batches.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        files: Sequence[str],
        labels: NDArray[np.int32],
        class_names: Sequence[str],
        options: ImageOptions,
    ):
        """Stores the arguments; no file is read."""
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
        """Hash of names, sizes and classes of the files, of the reading options, and of some of the files' content.

        All files are hashed up to 64 MiB in total; above that a half, a quarter, an eighth, ... of them.
        """
        return fingerprint_of(self.manifest())

    def manifest(self) -> dict[str, str]:
        """Returns an entry for each class, for the options that affect the images, and for each file."""
        options = self.options
        entries = {f"class {index}": name for index, name in enumerate(self.class_names)}
        resizing = options.resizing.describe()
        entries["images"] = f"{options.image_size} {options.color_mode}, {resizing}, {options.label_mode}"
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
            ImageError: Images cannot be read, with on_error="raise"; all those of a batch are named.
        """
        options: Any = {"seed": seed, "epoch": epoch, "start": start, "shard": shard}
        return self._unpack(self._loaded(batch_size, **options))

    def without_broken(self) -> "ImageDataset":
        """Returns the dataset without unreadable images; reads every image once to find them.

        Raises:
            ValueError: No image can be read.
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
        with ending_workers(loaded):
            for images, labels, failures in loaded:
                missing += len(failures)
                self.skipped.update(failures)
                # Workers send images in shared memory, which is released once they are copied.
                yield (np.array(images), np.array(labels)) if self.options.workers else (images, labels)
        if missing:
            names = ", ".join(list(self.skipped)[:FAILURES_SHOWN])
            count, were = ("1 image", "was") if missing == 1 else (f"{missing} images", "were")
            warnings.warn(f"{count} could not be read and {were} left out of this epoch: {names}", stacklevel=2)

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
        shape = (0, *self.options.form.shape)
        images = np.stack(photos) if photos else np.empty(shape, self.options.dtype)
        return _Loaded(images, self._encoded(self.labels[indices[read]]), failures)

    def _read(self, index: int) -> NDArray[Any] | Exception:
        try:
            return read_photo(path_in(self.root, self.files[index]), self.options.form, self.options.resizing)
        except (ImageError, OSError) as error:
            return error

    def _encoded(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        if self.options.label_mode == "int":
            return labels
        return np.eye(len(self.class_names), dtype=np.float32)[labels]

    def _contents(self) -> list[str]:
        """Describes the size, and for some files the checksum, of every file."""
        paths = [path_in(self.root, file) for file in self.files]
        sizes = in_threads(lambda index: _size(paths[index]), len(paths))
        total = sum(size for size in sizes if isinstance(size, int))
        # Sampled by name, so that adding or removing a file does not change the entries of the others.
        rate = 1 << (max(0, total - 1) // HASHED_BYTES).bit_length()
        read = [zlib.crc32(os.fsencode(file)) % rate == 0 for file in self.files]
        return in_threads(lambda index: _content(paths[index], sizes[index], read[index]), len(paths))


def in_threads(describe: Callable[[int], Described], count: int) -> list[Described]:
    """Calls a function for each index, on threads, since every request to a network drive takes time."""
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
    """Describes a file, such as "1234 bytes, CRC-32 0a1b2c3d"."""
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
    advice = "(on_error='skip', or --on-error skip, leaves them out)"
    lines = [f"{len(failures)} of a batch of {count} images cannot be read {advice}:"]
    return "\n  ".join([*lines, *(reason for _, reason in failures)])
