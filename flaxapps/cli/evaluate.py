"""`flaxapps evaluate`: accuracy of a network on labelled photos, overall and by class."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from flaxapps.cli.models import ResolvedModel, adapted, resolve_model
from flaxapps.cli.multilabel import SEPARATORS, LabelTally, as_two_classes, threshold_of
from flaxapps.cli.options import check_resize, given_resizing, given_size, join_processes, usual_batch_size
from flaxapps.cli.rows import write_rows
from flaxapps.inference.pieces import optimize_for_batches
from flaxapps.inference.predict import predict
from flaxapps.photos.labelled import Labelled, find_labelled, match_labels
from flaxapps.photos.reading import read_photos
from flaxapps.runtime.console import describe_error, new_table, open_console
from flaxapps.runtime.distributed import is_first, share_of, sum_over_processes
from flaxapps.runtime.files import replacing
from flaxapps.runtime.process import keep_compilations
from flaxapps.runtime.progress import PhotoProgress
from flaxapps.transforms.logits import last_activation
from flaxapps.transforms.optimize import Mode

CLASSES_SHOWN = 50  # in the table; CSV and JSON list all
TOP = 5  # classes; with no more outputs than these, all photos are right
AT_A_TIME = 16  # batches whose scores are held in memory together


class ClassAccuracy(NamedTuple):
    """Prediction counts of one class.

    Attributes:
        name: The class.
        photos: Number of photos.
        top1: Number of photos whose highest score is the class.
        top5: Number of photos with the class among the five highest scores.
        taken_for: The most frequent wrong prediction; None if there is none.
        mistakes: Number of photos with that prediction.
    """

    name: str
    photos: int
    top1: int
    top5: int
    taken_for: str | None
    mistakes: int


class Tally:
    """Running counts of correct predictions.

    Attributes:
        confusion: Number of photos by true class (row) and predicted class (column).
        top5: Number of photos by true class, with it among the five highest scores.
    """

    def __init__(self, classes: int):
        self.confusion = np.zeros((classes, classes), np.int64)
        self.top5 = np.zeros(classes, np.int64)

    def add(self, scores: NDArray[Any], labels: Sequence[int]) -> None:
        """Adds photos, given their scores (photos, classes) and the indices of their classes.

        Ties count as in Keras: a class is among the top five if fewer than five scores exceed its own.
        """
        true = np.asarray(labels, np.int64)
        np.add.at(self.confusion, (true, scores.argmax(axis=1)), 1)
        own = np.take_along_axis(scores, true[:, None], axis=1)
        # A NaN score of the class itself ranks below all others.
        above = (scores > np.where(np.isnan(own), -np.inf, own)).sum(axis=1)
        np.add.at(self.top5, true, above < TOP)

    def sum_over_processes(self) -> None:
        """Adds up the counts of all processes. A collective: every process must call it."""
        self.confusion = sum_over_processes(self.confusion)
        self.top5 = sum_over_processes(self.top5)

    @property
    def photos(self) -> int:
        """Number of photos counted."""
        return int(self.confusion.sum())

    @property
    def accuracies(self) -> tuple[float, float]:
        """Top-1 and top-5 accuracy, from 0 to 1; NaN without photos."""
        count = self.photos or np.nan
        return float(self.confusion.trace() / count), float(self.top5.sum() / count)

    def by_class(self, names: Sequence[str]) -> list[ClassAccuracy]:
        """Returns the counts of the classes that had photos, in the order of the outputs."""
        rows = []
        for index in map(int, np.flatnonzero(self.confusion.sum(axis=1))):
            wrong = self.confusion[index].copy()
            right, wrong[index] = int(wrong[index]), 0
            taken = names[int(wrong.argmax())] if wrong.any() else None
            photos = int(self.confusion[index].sum())
            rows.append(ClassAccuracy(names[index], photos, right, int(self.top5[index]), taken, int(wrong.max())))
        return rows


def evaluate_photos(arguments: argparse.Namespace) -> int:
    """Measures the accuracy of a model and prints or writes it. Several processes take a share of the photos each.

    Returns:
        The exit code: 1 if photos could not be read, else 0.

    Raises:
        ValueError: The model does not classify photos, or labels or arguments do not fit it.
        OSError: A file does not exist, or cannot be read or written.
    """
    labelled = find_labelled(arguments.data, arguments.truth)
    with ExitStack() as stack:
        output = sys.stdout
        if arguments.output and is_first():
            output = stack.enter_context(replacing(arguments.output, "wb" if arguments.format == "npz" else "w"))
        elif arguments.format == "npz" and is_first():
            raise ValueError("--format npz cannot be printed: give --output")
        resolved = resolve_model(
            arguments.model,
            weights=arguments.weights,
            size=given_size(arguments),
            labels=arguments.labels,
            preprocess=arguments.preprocess,
            resizing=given_resizing(arguments),
        )
        form, preprocess = resolved.photo_format, resolved.preprocess
        binary = resolved.model.output_shape == (None, 1)
        classes = 2 if binary else resolved.classes
        check_resize(arguments, form)
        label_of, titles, several = _match(labelled, resolved, classes)
        threshold = threshold_of(resolved.model) if binary or several else 0.0
        mode: Mode = arguments.optimize or "default"
        batch_size = arguments.batch_size or usual_batch_size()
        network = adapted(resolved.model, arguments), resolved.load()
        model, variables = optimize_for_batches(*network, mode, batch_size, jax.local_devices(), arguments.precision)
        tally: Any = LabelTally(classes, threshold) if several else Tally(classes)
        own = share_of(list(label_of))
        batches = read_photos(
            own,
            form,
            resolved.resizing,
            batch_size=batch_size,
            unreadable=None if arguments.on_error == "raise" else lambda _, error: progress.fail(describe_error(error)),
        )
        options: dict[str, Any] = {"batch_size": batch_size, "preprocess": preprocess, "optimize": None}
        with PhotoProgress("Evaluating", len(own)) as progress:
            for files, arrays in _in_groups(batches, AT_A_TIME):
                scores = predict(model, variables, iter(arrays), **options)
                scores = as_two_classes(scores, threshold) if binary else scores
                tally.add(scores, [label_of[file] for file in files])
                progress.advance(len(files))
        tally.sum_over_processes()
        (tally.write if several else partial(write_evaluation, tally=tally))(output, arguments.format, names=titles)
    failed = len(label_of) - tally.photos
    if failed:
        print(f"flaxapps: {failed} of {len(label_of)} photos could not be read", file=sys.stderr)
    return 1 if failed else 0


def _match(
    labelled: Sequence[Labelled], resolved: ResolvedModel, classes: int
) -> tuple[dict[Path, Any], list[str], bool]:
    """Matches labels with outputs.

    Returns:
        The index of the class of each photo, or the indices of its labels if some have several; the names of all
        classes; and whether some have several.
    """
    labels_of: dict[Path, list[str]] = {}
    for path, label in labelled:
        labels_of.setdefault(path, []).append(label)
    split = {path: [part for label in each for part in SEPARATORS.split(label)] for path, each in labels_of.items()}
    known = set(resolved.class_names or ())
    whole = all(len(set(each)) == 1 for each in labels_of.values())
    several = any(len(set(each)) > 1 for each in split.values()) and not (
        whole and (known >= {label for _, label in labelled} or last_activation(resolved.model) == "softmax")
    )
    found = split if several else {path: each[-1:] for path, each in labels_of.items()}
    indices, titles = match_labels([label for each in found.values() for label in each], resolved.class_names, classes)
    rest = iter(indices)
    indexed = {path: [next(rest) for _ in each] for path, each in found.items()}
    return (indexed if several else {path: each[0] for path, each in indexed.items()}), titles, several


def write_evaluation(stream: IO[str], form: str, tally: Tally, names: Sequence[str]) -> None:
    """Writes accuracies.

    Args:
        stream: Output.
        form: "table", "csv" and "jsonl" (a line for each class), "json" (one object), or "npz" (the confusion matrix).
        tally: The counts.
        names: Class names in the order of the outputs.
    """
    if form in ("csv", "jsonl"):
        write_rows(stream, form, (row._asdict() for row in tally.by_class(names)), ClassAccuracy._fields)
    else:
        {"table": _write_table, "json": _write_json, "npz": _write_npz}[form](stream, tally, names)


def _write_table(stream: IO[str], tally: Tally, names: Sequence[str]) -> None:
    rows = sorted(tally.by_class(names), key=lambda row: row.top1 / row.photos)
    table = new_table(f"the {CLASSES_SHOWN} worst of {len(rows)} classes" if len(rows) > CLASSES_SHOWN else None)
    totals = {"top-1": int(tally.confusion.trace())}
    if len(names) > TOP:
        totals["top-5"] = int(tally.top5.sum())
    for heading in ("class", "photos", *totals, "most often taken for"):
        table.add_column(heading, justify="right" if heading in ("photos", *totals) else "left")
    for row in rows[:CLASSES_SHOWN]:
        shares = [_percent(right, row.photos) for right in (row.top1, row.top5)[: len(totals)]]
        taken = f"{row.taken_for} ({row.mistakes})" if row.taken_for else ""
        table.add_row(row.name, str(row.photos), *shares, taken)
    console = open_console(stream)
    console.print(table)
    for heading, right in totals.items():
        console.print(f"{heading} {_percent(right, tally.photos)} ({right} of {tally.photos})")


def _write_json(stream: IO[str], tally: Tally, names: Sequence[str]) -> None:
    top1, top5 = tally.accuracies
    classes = [row._asdict() for row in tally.by_class(names)]
    stream.write(json.dumps({"photos": tally.photos, "top1": top1, "top5": top5, "classes": classes}, indent=2) + "\n")


def _write_npz(stream: IO[Any], tally: Tally, names: Sequence[str]) -> None:
    np.savez(stream, confusion=tally.confusion, top5=tally.top5, classes=np.array(names, np.str_))


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _in_groups(batches: Iterator[tuple[list[Path], NDArray[Any]]], size: int) -> Iterator[tuple[list[Path], list[Any]]]:
    while group := list(itertools.islice(batches, size)):
        yield [file for files, _ in group for file in files], [photos for _, photos in group]


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps evaluate`."""
    keep_compilations()
    join_processes(arguments)
    return evaluate_photos(arguments)
