"""`flaxapps evaluate`: how often a network is right about labelled photos, as a whole and class by class."""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.classification import check_classes, chosen_preprocessing, open_model, settle_format, settle_recipe
from flaxapps.distributed import is_first, share_of, sum_over_processes
from flaxapps.inference import predict, usual_batch_size
from flaxapps.labelled import find_labelled, match_labels
from flaxapps.optimizing import optimize
from flaxapps.photos import PhotoFormat, read_photos
from flaxapps.reports import describe_error, new_table, open_console, open_progress, replacing

CLASSES_SHOWN = 50  # in the table; CSV and JSON have all
AT_A_TIME = 16  # batches whose scores are in memory together


class ClassAccuracy(NamedTuple):
    """What became of the photos of one class.

    Attributes:
        name: The class.
        photos: How many there were.
        top1: How many had the class on top.
        top5: How many had it among the best five.
        taken_for: The class that most of the others were taken for; None where there were no others.
        mistakes: How many those were.
    """

    name: str
    photos: int
    top1: int
    top5: int
    taken_for: str | None
    mistakes: int


class Tally:
    """Counts of right answers, which grow batch by batch.

    Attributes:
        confusion: Photos by their class (row) and the class on top (column).
        top5: Photos by class whose class was among the best five.
    """

    def __init__(self, classes: int):
        self.confusion = np.zeros((classes, classes), np.int64)
        self.top5 = np.zeros(classes, np.int64)

    def add(self, scores: NDArray[Any], labels: Sequence[int]) -> None:
        """Counts photos: scores (photos, classes), and the index of each one's class.

        The best five are counted as Keras counts ties: fewer than five scores are above that of the class.
        """
        true = np.asarray(labels, np.int64)
        np.add.at(self.confusion, (true, scores.argmax(axis=1)), 1)
        own = np.take_along_axis(scores, true[:, None], axis=1)
        above = (scores > np.where(np.isnan(own), -np.inf, own)).sum(axis=1)
        np.add.at(self.top5, true, above < 5)

    def sum_over_processes(self) -> None:
        """Makes these the counts of all processes, each of which has to call this."""
        self.confusion = sum_over_processes(self.confusion)
        self.top5 = sum_over_processes(self.top5)

    @property
    def photos(self) -> int:
        """How many were counted."""
        return int(self.confusion.sum())

    @property
    def accuracies(self) -> tuple[float, float]:
        """Top-1 and top-5, from 0 to 1; NaN of nothing."""
        count = self.photos or np.nan
        return float(self.confusion.trace() / count), float(self.top5.sum() / count)

    def by_class(self, names: Sequence[str]) -> list[ClassAccuracy]:
        """The classes that had photos, in the order of the outputs."""
        rows = []
        for index in map(int, np.flatnonzero(self.confusion.sum(axis=1))):
            wrong = self.confusion[index].copy()
            right, wrong[index] = int(wrong[index]), 0
            taken = names[int(wrong.argmax())] if wrong.any() else None
            photos = int(self.confusion[index].sum())
            rows.append(ClassAccuracy(names[index], photos, right, int(self.top5[index]), taken, int(wrong.max())))
        return rows


def evaluate_photos(arguments: argparse.Namespace) -> int:
    """Counts how often the model is right and prints or writes it; several processes count a part of the photos each.

    Args:
        arguments: Those of the command, as `flaxapps evaluate --help` says.

    Returns:
        1 where photos could not be read, else 0.

    Raises:
        ValueError: The model does not classify photos, or labels or arguments do not fit it.
        OSError: A file is not there, or cannot be read or written.
    """
    labelled = find_labelled(arguments.data, arguments.truth)
    recipe = settle_recipe(arguments)
    names = recipe.class_names
    with ExitStack() as stack:
        output = stack.enter_context(replacing(arguments.output)) if arguments.output and is_first() else sys.stdout
        model, load = open_model(recipe.model, arguments.weights)
        form = settle_format(model, [arguments.crop] * 2 if arguments.crop else arguments.size)
        _check_resize(arguments, form)
        classes = check_classes(model, names)
        indices, titles = match_labels([label for _, label in labelled], names, classes)
        preprocess = chosen_preprocessing(model, recipe.preprocess)
        model, variables = optimize(model, load())
        label_of = dict(zip((photo.path for photo in labelled), indices, strict=True))
        tally = Tally(classes)
        progress = stack.enter_context(open_progress())
        own = share_of(list(label_of))
        task = progress.add_task("Evaluating", total=len(own))

        def complain(path: Path, error: Exception) -> None:
            progress.console.print(f"flaxapps: cannot read {describe_error(error)}")
            progress.advance(task)

        batch_size = arguments.batch_size or usual_batch_size()
        batches = read_photos(
            own,
            form,
            interpolation=recipe.interpolation or "bilinear",
            resize=arguments.resize,
            batch_size=batch_size,
            unreadable=complain,
        )
        for files, arrays in _in_groups(batches, AT_A_TIME):
            options: dict[str, Any] = {"batch_size": batch_size, "preprocess": preprocess, "optimize": None}
            scores = predict(model, variables, iter(arrays), **options)
            tally.add(scores, [label_of[file] for file in files])
            progress.advance(task, len(files))
        progress.stop()
        tally.sum_over_processes()
        write_evaluation(output, arguments.format, tally, titles)
    failed = len(label_of) - tally.photos
    if failed:
        print(f"flaxapps: {failed} of {len(label_of)} images could not be read", file=sys.stderr)
    return 1 if failed else 0


def write_evaluation(stream: IO[str], form: str, tally: Tally, names: Sequence[str]) -> None:
    """Writes accuracies.

    Args:
        stream: Where to.
        form: "table", "csv" (a line for each class) or "json" (one object).
        tally: The counts.
        names: Of the classes, in the order of the outputs.
    """
    {"table": _write_table, "csv": _write_csv, "json": _write_json}[form](stream, tally, names)


def _write_table(stream: IO[str], tally: Tally, names: Sequence[str]) -> None:
    rows = sorted(tally.by_class(names), key=lambda row: row.top1 / row.photos)
    table = new_table(f"the {CLASSES_SHOWN} worst of {len(rows)} classes" if len(rows) > CLASSES_SHOWN else None)
    for heading in ("class", "photos", "top-1", "top-5", "most often taken for"):
        table.add_column(heading, justify="right" if heading in ("photos", "top-1", "top-5") else "left")
    for row in rows[:CLASSES_SHOWN]:
        taken = f"{row.taken_for} ({row.mistakes})" if row.taken_for else ""
        table.add_row(row.name, str(row.photos), _percent(row.top1, row.photos), _percent(row.top5, row.photos), taken)
    console = open_console(stream)
    console.print(table)
    right, best = int(tally.confusion.trace()), int(tally.top5.sum())
    console.print(f"top-1 {_percent(right, tally.photos)} ({right} of {tally.photos})")
    console.print(f"top-5 {_percent(best, tally.photos)} ({best} of {tally.photos})")


def _write_csv(stream: IO[str], tally: Tally, names: Sequence[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(ClassAccuracy._fields)
    writer.writerows(tally.by_class(names))


def _write_json(stream: IO[str], tally: Tally, names: Sequence[str]) -> None:
    top1, top5 = tally.accuracies
    classes = [row._asdict() for row in tally.by_class(names)]
    stream.write(json.dumps({"photos": tally.photos, "top1": top1, "top5": top5, "classes": classes}, indent=2) + "\n")


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _check_resize(arguments: argparse.Namespace, form: PhotoFormat) -> None:
    if arguments.crop and not arguments.resize:
        raise ValueError("--crop cuts out of photos that --resize N has brought to one size: give that too")
    if arguments.resize and arguments.resize < max(form.height or 0, form.width or 0):
        raise ValueError(f"--resize {arguments.resize} leaves no {form.height} x {form.width} to cut out")


def _in_groups(batches: Iterator[tuple[list[Path], NDArray[Any]]], size: int) -> Iterator[tuple[list[Path], list[Any]]]:
    while group := list(itertools.islice(batches, size)):
        yield [file for files, _ in group for file in files], [photos for _, photos in group]
