"""Labelled images in one folder per class, read as by Keras's `image_dataset_from_directory`."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flaxapps.photos.files import LOOKED_FOR, is_photo, photos_below, warn_left_out
from flaxapps.photos.parts import find_parts
from flaxapps.runtime.console import listed
from flaxapps.runtime.files import as_path
from flaxapps.train.data.image_files import ImageDataset, image_options
from flaxapps.train.data.splits import split_indices


def image_folder(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | int,
    class_names: Sequence[str] | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int = 0,
    label_mode: str = "int",
    color_mode: str = "rgb",
    interpolation: str = "bilinear",
    follow_links: bool = False,
    on_error: str = "raise",
    workers: int = 0,
    antialias: bool = True,
    orientation: bool = True,
    crop_to_aspect_ratio: bool = False,
) -> ImageDataset:
    """Reads labelled images from a folder with one subfolder per class.

    ```
    path/cat/1.jpg
    path/cat/more/2.png
    path/dog/3.jpg
    ```

    Files are recognised by their suffix: .bmp .gif .jpeg .jpg .png, and suffixes that Keras ignores, such as .webp,
    .tif, .heic (with pillow-heif) and .avif. Hidden files and folders are skipped. A split selects the same files as
    Keras for the same seed, if it sees the same files.

    Args:
        path: The folder.
        image_size: (height, width) in pixels; one number for both.
        class_names: Subfolders to read, in the order of the labels; None reads all, in alphanumeric order. For
            validation data, give those of the training data.
        validation_split: Fraction of the images to hold out, between 0 and 1.
        subset: Subset of the split to read, "training" or "validation".
        seed: Seed of the split.
        label_mode: "int", or "categorical" for one-hot labels.
        color_mode: "rgb", "grayscale" or "rgba".
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        follow_links: Whether to follow symbolic links to folders within a class folder. Linked files and linked class
            folders are always read.
        on_error: "raise" an error that names the unreadable images, or "skip" them with a warning.
        workers: Decoding processes; 0 decodes in threads. A script needs `if __name__ == "__main__":` for them.
        antialias: Whether images that shrink are averaged, by Pillow, as in torchvision and timm. False takes the
            pixels of Keras's `image_dataset_from_directory`, in float32.
        orientation: Whether images are turned upright by their EXIF orientation. Keras does not.
        crop_to_aspect_ratio: Whether to crop the largest centred box of the target's proportions before resizing, as in
            Keras. Otherwise proportions are not kept.

    Returns:
        A `Dataset` of images, uint8 (float32 for greyscale, and without antialias), and their labels, decoded when they
        are read.

    Raises:
        OSError: The folder does not exist or cannot be read.
        ValueError: There are no classes or only one, a class has no images (unless `class_names` names it), or an
            argument is out of range. All such folders are listed.
    """
    options = image_options(
        image_size,
        label_mode=label_mode,
        color_mode=color_mode,
        interpolation=interpolation,
        on_error=on_error,
        workers=workers,
        antialias=antialias,
        orientation=orientation,
        crop_to_aspect_ratio=crop_to_aspect_ratio,
    )
    root = as_path(path)
    parts = find_parts(root) if class_names is None else None
    if parts:
        raise ValueError(
            f"{root} holds the parts of a data set, {parts.names}, not classes: give {parts.training}, and the other "
            "part as validation data; or name the classes you mean with class_names"
        )
    present = _class_folders(root)
    wanted = list(present if class_names is None else class_names)
    _check_classes(root, wanted, present, named=class_names is not None)
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda name: photos_below(root / name, follow_links=follow_links), wanted))
    warn_left_out(root, *found)
    prefix = len(os.path.join(root, ""))
    # In Keras's order, which decides what a split holds: a folder's own files before those of its subfolders.
    by_class = [sorted((str(path)[prefix:] for path in each.photos), key=os.path.split) for each in found]
    empty = [name for name, files in zip(wanted, by_class, strict=True) if not files]
    if empty and (class_names is None or len(empty) == len(wanted)):
        raise ValueError(
            f"There are no images in {_quoted(empty)} of {root} ({LOOKED_FOR}): put images "
            "there, delete the folders, or name the classes you mean with class_names"
        )
    files = [file for names in by_class for file in names]
    labels = np.repeat(np.arange(len(wanted), dtype=np.int32), [len(names) for names in by_class])
    chosen = split_indices(len(files), validation_split, subset, seed)
    if subset == "training":
        _check_split(wanted, labels, chosen, validation_split, seed)
    return ImageDataset(root, [files[index] for index in chosen], labels[chosen], wanted, options)


def _check_split(
    names: Sequence[str],
    labels: NDArray[np.int32],
    chosen: NDArray[np.int64],
    validation_split: float | None,
    seed: int,
) -> None:
    lost = set(labels.tolist()) - set(labels[chosen].tolist())
    if lost:
        raise ValueError(
            f"validation_split={validation_split} with seed={seed} leaves no training image of "
            f"{_quoted([names[label] for label in sorted(lost)])}: give a smaller fraction, another seed, or a "
            "separate validation folder"
        )


def _class_folders(root: Path) -> list[str]:
    if root.is_file():
        raise NotADirectoryError(
            f"{root} is a file: give the folder with the class folders, or use image_table for a CSV"
        )
    entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    beside = [name for name in entries if is_photo(name) and not (root / name).is_dir()]
    folders = [name for name in entries if (root / name).is_dir()]
    if not folders:
        found = f"{len(beside)} images but no folders" if beside else "no folders"
        raise ValueError(f"{root} holds {found}: put the images of each class into a folder named after it")
    if beside:
        warnings.warn(f"Images beside the class folders of {root} are left out: {_quoted(beside)}", stacklevel=3)
    return folders


def _check_classes(root: Path, wanted: list[str], present: list[str], named: bool) -> None:
    unknown = [name for name in wanted if name not in set(present)]
    if unknown:
        raise ValueError(f"{root} has no folders {_quoted(unknown)}; it has {_quoted(present)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"class_names should be distinct names of folders, got {wanted}")
    if len(wanted) == 1 and not named:
        raise ValueError(
            f"{root} has one class folder only, {wanted[0]!r}: a classifier needs two. If it is the folder above "
            f"the classes, give {root / wanted[0]}. If you mean one class, give class_names={wanted}"
        )


def _quoted(names: Sequence[str]) -> str:
    return listed([repr(name) for name in names])
