"""Photos whose classes are known: folders of classes, tables, and the forms in which ImageNet is handed out."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flaxapps.decoding import class_names
from flaxapps.paths import as_path, local_file, path_in
from flaxapps.photos import find_photos

PATH_COLUMNS = ("path", "file", "filename", "image", "ImageId")
LABEL_COLUMNS = ("label", "class", "wnid", "PredictionString")
SHOWN = 10  # of each list in an error


class Labelled(NamedTuple):
    """A photo and the name of its class: a folder's, or what a table says."""

    path: Path
    label: str


def find_labelled(place: str | os.PathLike[str], truth: str | os.PathLike[str] | None = None) -> list[Labelled]:
    """Finds photos and their labels.

    Args:
        place: A folder with a folder for each class; a CSV file of paths and labels, with or without the names of its
            columns, whose paths start from its folder; or, with `truth`, a folder of photos.
        truth: What tells the classes of a folder of photos:
            - a CSV file, with file names or, as Kaggle's LOC_val_solution.csv, the stems of them;
            - lines of "name label", as Caffe's val.txt, which numbers ImageNet's classes;
            - a label per line in the order of the file names: words such as wnids, or the numbers of the ILSVRC2012
              development kit, whose meta.mat has to lie beside it.

    Returns:
        The photos; those of folders in the order of their names.

    Raises:
        ValueError: There are no photos, no classes, or labels do not fit the photos.
        OSError: A file or a folder is not there or cannot be read.
    """
    place = as_path(place)
    if truth is not None:
        photos = find_photos([place])
        return _read_truth(Path(local_file(truth)), photos)
    if not place.is_dir():
        place.stat()  # raises FileNotFoundError, which names it
        return [
            Labelled(as_path(path_in(place.parent, name)), label) for name, label in _read_csv(Path(local_file(place)))
        ]
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"{place} holds no folders of classes; give the labels of single photos with --truth FILE")
    labelled = [Labelled(path, folder.name) for folder in folders for path in _photos_in(folder)]
    if not labelled:
        raise ValueError(f"There are no images in the folders of {place}")
    return labelled


def match_labels(labels: Sequence[str], names: Sequence[str] | None, classes: int) -> tuple[list[int], list[str]]:
    """The output of a model that each label stands for.

    Args:
        labels: As `find_labelled` found them.
        names: Names of the classes in the order of the outputs. None takes ImageNet's where there are 1000 outputs and
            a label is one of its wnids; else the sorted labels, as Keras orders folders.
        classes: How many outputs the model has.

    Returns:
        Indices, one for each label, and the names of all classes.

    Raises:
        ValueError: Labels that no output stands for, or, without names, labels that leave it open.

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
        # Sorted, "10" comes before "2": whether "2" is output 2 or the label sorted third, nobody can tell.
        if len(names) != classes or (all(map(str.isdigit, names)) and names != sorted(names, key=int)):
            raise ValueError(
                f"Which of the model's {classes} outputs stands for which of the {len(names)} labels ({_some(names)}) "
                "is not known: give the names of the outputs, in their order, with --labels FILE"
            )
    known = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise ValueError(f"{len(unknown)} labels are no classes of the model: {_some(unknown)}. It has {_some(names)}")
    return [known[label] for label in labels], titles


def _photos_in(folder: Path) -> list[Path]:
    try:
        return find_photos([folder])
    except ValueError:  # an empty class
        return []


def _read_truth(file: Path, photos: Sequence[Path]) -> list[Labelled]:
    if file.suffix.lower() == ".csv":
        return _by_name(_read_csv(file), photos, file)
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
    """Caffe numbers ImageNet's classes by their sorted wnids, as the networks do."""
    known = class_names()
    numbered = all(number.isdigit() and int(number) < len(known) for number in numbers)
    return [known[int(number)][0] for number in numbers] if numbered else list(numbers)


def _by_name(rows: Sequence[tuple[str, str]], photos: Sequence[Path], file: Path) -> list[Labelled]:
    labels = {Path(name).name: label for name, label in rows}
    found = {photo: labels.get(photo.name, labels.get(photo.stem)) for photo in photos}
    missing = [photo.name for photo, label in found.items() if label is None]
    if missing:
        raise ValueError(f"{file} says nothing of {len(missing)} of {len(photos)} photos: {_some(missing)}")
    return [Labelled(photo, label) for photo, label in found.items() if label is not None]


def _read_csv(file: Path) -> list[tuple[str, str]]:
    """Paths and labels; of Kaggle's boxes, the wnid of the first."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(row)]
    header = rows[0] if rows else []
    path = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    label = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    boxes = label is not None and header[label] == "PredictionString"
    if path is not None and label is not None:
        rows = rows[1:]
    elif len(header) == 2:
        path, label = 0, 1
    else:
        raise ValueError(
            f"{file} should hold paths and labels, or begin with a line of column names, one of "
            f"{', '.join(PATH_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}; it begins with {','.join(header)!r}"
        )
    short = [",".join(row) for row in rows if len(row) <= max(path, label) or not row[path] or not row[label]]
    if short or not rows:
        raise ValueError(f"{file} has lines without a label: {_some(short)}" if short else f"{file} lists no photos")
    return [(row[path], row[label].split()[0] if boxes else row[label]) for row in rows]


def _wnids_of_development_kit(numbers: Sequence[str], file: Path) -> list[str]:
    """Numbers of the ILSVRC2012 development kit count its own list of classes, which is not that of the networks."""
    kit = file.with_name("meta.mat")
    if not kit.is_file():
        raise ValueError(
            f"{file} holds numbers of the ILSVRC2012 development kit, which its meta.mat explains: put that beside it"
        )
    from scipy.io import loadmat  # JAX needs SciPy as well

    synsets = loadmat(kit, squeeze_me=True)["synsets"]
    wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    return [wnids[int(number)] for number in numbers]


def _some(entries: Sequence[str]) -> str:
    return ", ".join(entries[:SHOWN]) + (f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else "")
