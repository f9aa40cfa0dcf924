"""Labelled photos: folders of classes, tables, and the formats in which ImageNet is distributed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flaxapps.applications.imagenet_utils import class_names
from flaxapps.photos.files import find_photos, photos_below, warn_left_out
from flaxapps.photos.parts import find_parts
from flaxapps.photos.tables import read_rows
from flaxapps.runtime.console import listed
from flaxapps.runtime.files import as_path, local_file, path_in


class Labelled(NamedTuple):
    """A photo and the name of its class, from a folder or a table."""

    path: Path
    label: str


def find_labelled(place: str | os.PathLike[str], truth: str | os.PathLike[str] | None = None) -> list[Labelled]:
    """Finds photos and their labels.

    Args:
        place: A folder with a folder for each class; a CSV file of paths and labels, with or without column names,
            whose paths are relative to its folder; or, with `truth`, a folder of photos.
        truth: A file with the classes of a folder of photos:
            - a CSV file with file names or, as in Kaggle's LOC_val_solution.csv, their stems;
            - lines of "name label", as in Caffe's val.txt, which numbers ImageNet's classes;
            - a label per line in the order of the file names: words such as wnids, or the numbers of the ILSVRC2012
              development kit, which needs its meta.mat beside it.

    Returns:
        The photos; those of folders in the order of their names.

    Raises:
        ValueError: There are no photos, no classes, or labels do not fit the photos.
        OSError: A file or a folder does not exist or cannot be read.
    """
    place = as_path(place)
    if truth is not None:
        given = find_photos([place])
        warn_left_out(place, given)
        return _read_truth(Path(local_file(truth)), given.photos)
    if not place.is_dir():
        place.stat()  # raises FileNotFoundError, with the name
        return [Labelled(as_path(path_in(place.parent, row.file)), row.label) for row in read_rows(place)]
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"{place} has no folders of classes; give the labels of single photos with --truth FILE")
    if parts := find_parts(place):
        raise ValueError(
            f"{place} holds the parts of a data set, {parts.names}, not classes: give the folder of one, such as "
            f"{parts.test or parts.validation or parts.training}"
        )
    found = [photos_below(folder) for folder in folders]
    labelled = [
        Labelled(path, folder.name) for folder, each in zip(folders, found, strict=True) for path in each.photos
    ]
    warn_left_out(place, *found)
    if not labelled:
        raise ValueError(f"There are no images in the folders of {place}")
    return labelled


def match_labels(labels: Sequence[str], names: Sequence[str] | None, classes: int) -> tuple[list[int], list[str]]:
    """Matches labels with the outputs of a model.

    Args:
        labels: Labels from `find_labelled`.
        names: Names of the classes in the order of the outputs. None takes ImageNet's if there are 1000 outputs and a
            label is one of its wnids, else the sorted labels, as Keras orders folders.
        classes: Number of outputs of the model.

    Returns:
        The index of the output for each label, and the names of all classes.

    Raises:
        ValueError: A label is not a class of the model; or `names` is None and the labels are ambiguous.

    >>> match_labels(["dog", "cat"], None, 2)
    ([1, 0], ['cat', 'dog'])
    >>> match_labels(["n02124075"], None, 1000)[0]
    [285]
    """
    titles = names = list(names) if names is not None else None
    if names is None and classes == len(class_names()):
        wnids = [wnid for wnid, _ in class_names()]
        if set(labels) & set(wnids):
            names, titles = wnids, [f"{wnid} {name}" for wnid, name in class_names()]
    if names is None or titles is None:
        titles = names = sorted(set(labels))
        # Numeric labels are ambiguous: "10" sorts before "2", so "2" could be output 2 or the third label in order.
        if len(names) != classes or (all(map(str.isdigit, names)) and names != sorted(names, key=int)):
            raise ValueError(
                f"The order of the model's {classes} outputs is not known for the {len(names)} labels "
                f"({listed(names)}): give the names of the outputs, in order, with --labels FILE"
            )
    known = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise ValueError(
            f"{len(unknown)} labels are not classes of the model: {listed(unknown)}. Its classes are {listed(names)}"
        )
    return [known[label] for label in labels], titles


def _read_truth(file: Path, photos: Sequence[Path]) -> list[Labelled]:
    if file.suffix.lower() == ".csv":
        return _by_name([(row.file, row.label) for row in read_rows(file)], photos, file)
    lines = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if all(len(line) == 2 for line in lines):
        labels = _wnids([label for _, label in lines])
        return _by_name([(line[0], label) for line, label in zip(lines, labels, strict=True)], photos, file)
    if len(lines) != len(photos):
        raise ValueError(f"{file} has {len(lines)} lines for {len(photos)} photos")
    labels = [" ".join(line) for line in lines]
    if all(label.isdigit() for label in labels):
        labels = _wnids_of_development_kit(labels, file)
    return [Labelled(photo, label) for photo, label in zip(photos, labels, strict=True)]


def _wnids(numbers: Sequence[str]) -> list[str]:
    """Converts Caffe's numbers to wnids. They count ImageNet's classes by sorted wnid, like the networks' outputs."""
    known = class_names()
    numbered = all(number.isdigit() and int(number) < len(known) for number in numbers)
    return [known[int(number)][0] for number in numbers] if numbered else list(numbers)


def _by_name(rows: Sequence[tuple[str, str]], photos: Sequence[Path], file: Path) -> list[Labelled]:
    labels = {Path(name).name: label for name, label in rows}
    found = {photo: labels.get(photo.name, labels.get(photo.stem)) for photo in photos}
    missing = [photo.name for photo, label in found.items() if label is None]
    if missing:
        raise ValueError(f"{file} has no labels of {len(missing)} of {len(photos)} photos: {listed(missing)}")
    return [Labelled(photo, label) for photo, label in found.items() if label is not None]


def _wnids_of_development_kit(numbers: Sequence[str], file: Path) -> list[str]:
    """Converts numbers of the ILSVRC2012 development kit to wnids. They follow its own order of the classes."""
    kit = file.with_name("meta.mat")
    if not kit.is_file():
        raise ValueError(
            f"{file} has numbers of the ILSVRC2012 development kit, which need its meta.mat: put that file beside it"
        )
    from scipy.io import loadmat  # SciPy is a dependency of JAX

    synsets = loadmat(kit, squeeze_me=True)["synsets"]
    wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    return [wnids[int(number)] for number in numbers]
