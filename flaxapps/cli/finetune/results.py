"""Results of `flaxapps finetune`: the models, pictures and tables in the output folder, and the summary it prints."""

import argparse
import csv
import heapq
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.cli.finetune.folder import BEST_FILE, LAST_FILE, MISTAKES_FILE, remove_checkpoints
from flaxapps.cli.finetune.plan import Plan
from flaxapps.cli.models import Recipe, write_recipe
from flaxapps.inference.predict import predict
from flaxapps.model import load_variables
from flaxapps.runtime.console import new_table, open_console
from flaxapps.runtime.distributed import is_anywhere, is_first
from flaxapps.runtime.files import in_bucket, replacing
from flaxapps.saving.save import save_model
from flaxapps.train.data.image_files import ImageDataset
from flaxapps.train.evaluation import evaluate
from flaxapps.train.figures import write_confusion, write_curves, write_mistakes

Histories = dict[str, dict[str, list[Any]]]
MISTAKES_SHOWN = 36
NAME_LENGTH, FILE_LENGTH = 20, 24  # characters


class Mistake(NamedTuple):
    """A misclassified photo.

    Attributes:
        confidence: Probability of the class it was taken for.
        place: Its place among the photos, which makes the order of equal confidences the same in every run.
        file: Name of the file.
        own: Index of its class.
        taken: Index of the class it was taken for.
        photo: (height, width, channels), as the network gets it before preprocessing.
    """

    confidence: float
    place: int
    file: str
    own: int
    taken: int
    photo: NDArray[Any]


def best_epoch(histories: Histories, plan: Plan) -> tuple[str | None, int]:
    """Returns the phase and the index of the epoch of the smallest validation loss; (None, 0) without validation."""
    losses = [
        (loss, phase.name, epoch)
        for phase in plan.phases
        for epoch, loss in enumerate(histories.get(phase.name, {}).get("val_loss", ()))
        if math.isfinite(loss)
    ]
    _, name, epoch = min(losses, default=(math.inf, None, 0), key=lambda entry: entry[0])
    return name, epoch


def write_results(
    plan: Plan, variables: Mapping[str, Any], histories: Histories, folder: Path, arguments: argparse.Namespace
) -> None:
    """Evaluates the best model, and writes it, the last one, pictures and the history."""
    is_anywhere(False)  # a barrier: the best model is on the disk
    phase, epoch = best_epoch(histories, plan)
    last = phase in (None, plan.phases[-1].name) and epoch == len(histories[plan.phases[-1].name]["loss"]) - 1
    best = variables if phase is None or last else load_variables(folder / BEST_FILE, plan.model)
    values = evaluate(
        plan.model,
        best,
        plan.validation or plan.data,
        batch_size=arguments.batch_size,
        metrics=("accuracy", "top_5_accuracy", "confusion_matrix"),
        preprocess=plan.preprocessing,
    )
    wrong = int(np.sum(values["confusion_matrix"]) - np.trace(values["confusion_matrix"]))
    if wrong and is_first():  # on its own devices
        _draw_mistakes(plan, best, arguments.batch_size, wrong, folder / MISTAKES_FILE)
    is_anywhere(False)  # a barrier: the others wait, as their end would be taken for a failure
    if not is_first():
        return
    names = plan.data.class_names
    title = "Validation" if plan.validation else "Training photos"
    titles = {phase.title: histories[phase.name] for phase in plan.phases}
    write_curves(titles, folder / "curves.png")
    write_confusion(values["confusion_matrix"], names, folder / "confusion.png", title)
    _write_history(plan, histories, folder / "history.csv")
    save_model(plan.model, variables, folder / LAST_FILE)
    file = LAST_FILE if phase is None else BEST_FILE
    if not arguments.keep_checkpoints:
        remove_checkpoints(folder)
    write_recipe(folder, Recipe(file, names, plan.preprocess or "none", plan.data.options.resizing))
    _print_summary(plan, histories, values, title, folder)


def find_mistakes(plan: Plan, variables: Mapping[str, Any], data: ImageDataset, batch_size: int) -> list[Mistake]:
    """Finds the misclassified photos of which the model is most certain, in this order."""
    found: list[Mistake] = []
    names = enumerate(file for file in data.files if file not in data.skipped)  # lazily: a batch says what it skipped
    for photos, labels in data.batches(batch_size, seed=None):
        outputs = predict(plan.model, variables, photos, batch_size=batch_size, preprocess=plan.preprocessing)
        taken = outputs.argmax(axis=-1)
        for row, (place, file) in enumerate(itertools.islice(names, len(labels))):
            if taken[row] != labels[row]:
                classes = int(labels[row]), int(taken[row])
                mistake = Mistake(float(outputs[row].max()), -place, file, *classes, np.asarray(photos[row]))
                (heapq.heappush if len(found) < MISTAKES_SHOWN else heapq.heappushpop)(found, mistake)
    return sorted(found, reverse=True)


def _draw_mistakes(plan: Plan, variables: Mapping[str, Any], batch_size: int, wrong: int, path: Path) -> None:
    mistakes = find_mistakes(plan, variables, plan.validation or plan.data, batch_size)
    names = [name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…" for name in plan.data.class_names]
    titles = [
        f"{each.file[-FILE_LENGTH:]}\n{names[each.taken]}, {each.confidence:.0%}\nis {names[each.own]}"
        for each in mistakes
    ]
    shown = "" if wrong == len(mistakes) else f", the {len(mistakes)} most certain"
    write_mistakes([each.photo for each in mistakes], titles, path, f"{wrong} misclassified photos{shown}")


def _write_history(plan: Plan, histories: Histories, path: Path) -> None:
    """Writes a row per epoch, phase by phase."""
    columns = [name for name, values in histories[plan.phases[0].name].items() if not isinstance(values[0], list)]
    with replacing(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["phase", "epoch", *columns])
        for phase in plan.phases:
            rows = zip(*(histories[phase.name][name] for name in columns), strict=True)
            writer.writerows([phase.name, epoch, *row] for epoch, row in enumerate(rows, start=1))


def _print_summary(plan: Plan, histories: Histories, values: Mapping[str, Any], title: str, folder: Path) -> None:
    console = open_console()
    table = new_table()
    table.add_column("phase")
    for heading in ("epochs", "loss", "accuracy", "val_loss", "val_accuracy"):
        table.add_column(heading, justify="right", min_width=len(heading))
    for phase in plan.phases:
        history = histories[phase.name]
        cells = [_last(history, "loss", ".4f"), _last(history, "accuracy", ".1%")]
        cells += [_last(history, "val_loss", ".4f"), _last(history, "val_accuracy", ".1%")]
        table.add_row(phase.title, str(len(history["loss"])), *cells)
    console.print(table)
    name, epoch = best_epoch(histories, plan)
    best = next((phase for phase in plan.phases if phase.name == name), None)
    file = f"{BEST_FILE}, epoch {epoch + 1} of {best.title}" if best else LAST_FILE
    best_five = f", top-5 {values['top_5_accuracy']:.1%}" if len(plan.data.class_names) > 5 else ""
    console.print(f"{title}: top-1 {values['accuracy']:.1%}{best_five} of {file}")
    place = folder if in_bucket(folder) else folder.resolve()
    models = f"{BEST_FILE} (the smallest validation loss), {LAST_FILE}" if best else LAST_FILE
    mistakes = f", {MISTAKES_FILE}" if (folder / MISTAKES_FILE).exists() else ""
    console.print(f"{place}: {models}, curves.png, confusion.png{mistakes}, history.csv")
    console.print(f"Next: flaxapps predict PHOTOS --model {folder}")


def _last(history: Mapping[str, list[Any]], name: str, form: str) -> str:
    return format(history[name][-1], form) if history.get(name) else "-"
