"""Images in folders, one folder per class, as `image_dataset_from_directory` of Keras reads them."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flaxapps.paths import as_path, in_bucket
from flaxapps.photos import SUFFIXES, photos_below
from train.images import ImageDataset, image_options
from train.splits import split_indices

NAMES_SHOWN = 10


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
) -> ImageDataset:
    """Labelled images from a folder that has a folder for each class.

    ```
    path/cat/1.jpg
    path/cat/more/2.png
    path/dog/3.jpg
    ```

    Files are told by their suffix (.bmp .gif .jpeg .jpg .png, and .ppm .tif .tiff .webp, which Keras leaves out);
    hidden files and folders are left out. Which files a split chooses is as in Keras for the same seed.

    Args:
        path: The folder.
        image_size: (height, width) in pixels; one number for both.
        class_names: Folders to read, in the order of the labels; None reads all, in alphanumeric order. For validation
            data, those of the training data.
        validation_split: Share of the images to set aside, between 0 and 1.
        subset: Which part of a split to read, "training" or "validation".
        seed: Of the split.
        label_mode: "int", or "categorical" for one-hot labels.
        color_mode: "rgb", "grayscale" or "rgba".
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos", those of Pillow.
        follow_links: Whether to read folders within a class folder that are symbolic links. Linked files and linked
            class folders are always read.
        on_error: "raise" an error that names the images that cannot be read, or "skip" and count them.
        workers: Processes that decode; 0 decodes in threads.

    Returns:
        A `Dataset` of images, uint8 (grey ones float32), and their labels; decoded when they are read.

    Raises:
        OSError: The folder is not there, or cannot be read.
        ValueError: There are no classes or only one, a class has no images (unless `class_names` names it), or an
            argument is out of range. All that is wrong with the folders is told at once.
    """
    options = image_options(
        image_size,
        label_mode=label_mode,
        color_mode=color_mode,
        interpolation=interpolation,
        on_error=on_error,
        workers=workers,
    )
    root = as_path(path)
    present = _class_folders(root)
    wanted = list(present if class_names is None else class_names)
    _check_classes(root, wanted, present, named=class_names is not None)
    with ThreadPoolExecutor() as threads:
        by_class = list(threads.map(lambda name: list(_images_below(root, name, follow_links)), wanted))
    empty = [name for name, files in zip(wanted, by_class, strict=True) if not files]
    if empty and (class_names is None or len(empty) == len(wanted)):
        raise ValueError(
            f"There are no images in {_listed(empty)} of {root} (looked for {' '.join(sorted(SUFFIXES))}): put images "
            "there, delete the folders, or name the classes you mean with class_names"
        )
    files = [file for found in by_class for file in found]
    labels = np.repeat(np.arange(len(wanted), dtype=np.int32), [len(found) for found in by_class])
    chosen = split_indices(len(files), validation_split, subset, seed)
    lost = set(labels.tolist()) - set(labels[chosen].tolist())
    if lost and subset == "training":
        raise ValueError(
            f"validation_split={validation_split} with seed={seed} leaves no image to train on of "
            f"{_listed([wanted[label] for label in sorted(lost)])}: take a smaller share, another seed, or a folder of "
            "its own for validation"
        )
    return ImageDataset(root, [files[index] for index in chosen], labels[chosen], wanted, options)


def _class_folders(root: Path) -> list[str]:
    if root.is_file():
        raise NotADirectoryError(
            f"{root} is a file: give the folder with the class folders, or use image_table for a CSV"
        )
    entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    beside = [name for name in entries if _is_image(name) and not (root / name).is_dir()]
    folders = [name for name in entries if (root / name).is_dir()]
    if not folders:
        found = f"{len(beside)} images but no folders" if beside else "no folders"
        raise ValueError(f"{root} holds {found}: put the images of each class into a folder of its name")
    if beside:
        warnings.warn(f"Images beside the class folders of {root} are left out: {_listed(beside)}", stacklevel=3)
    return folders


def _check_classes(root: Path, wanted: list[str], present: list[str], named: bool) -> None:
    unknown = [name for name in wanted if name not in set(present)]
    if unknown:
        raise ValueError(f"{root} has no folders {_listed(unknown)}; it has {_listed(present)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"class_names are different names of folders, got {wanted}")
    if len(wanted) == 1 and not named:
        raise ValueError(
            f"{root} has one class folder only, {wanted[0]!r}: a classifier needs two. Is it the folder above the "
            f"classes? Then give {root / wanted[0]}. If one class is meant, say class_names={wanted}"
        )


def _images_below(root: Path, name: str, follow_links: bool) -> Iterator[str]:
    """File names relative to the root, in Keras's order: folder by folder, those of a folder before its folders'."""
    prefix = len(os.path.join(root, ""))
    if in_bucket(root):
        files = [str(path)[prefix:] for path in photos_below(root / name)]
        yield from sorted(files, key=os.path.split)
        return
    names_in, seen = {}, set()
    for folder, subfolders, names in os.walk(root / name, onerror=_fail, followlinks=follow_links):
        if follow_links:
            real = os.path.realpath(folder)
            if real in seen:  # a link to a folder above it, which would never end
                subfolders.clear()
                continue
            seen.add(real)
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        names_in[folder] = sorted(filter(_is_image, names))
    for folder in sorted(names_in):
        yield from (os.path.join(folder[prefix:], file) for file in names_in[folder])


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _fail(error: OSError) -> None:
    raise error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:NAMES_SHOWN])) + more
