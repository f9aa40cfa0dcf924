"""`flaxapps finetune`: a new head on a frozen network, then its last layers as well, from photos to a saved model."""

import argparse
import csv
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import optax

from flaxapps.distributed import is_anywhere, is_first
from flaxapps.exporting import save_model
from flaxapps.inference import preprocessing_function
from flaxapps.network import load_variables
from flaxapps.paths import as_path, in_bucket
from flaxapps.photos import photo_format
from flaxapps.recipe import MODEL_FILE, Recipe, write_recipe
from flaxapps.reports import new_table, open_console, replacing
from train.early_stopping import EarlyStopping
from train.errors import Interrupted
from train.evaluation import evaluate
from train.figures import write_confusion, write_curves
from train.loop import fit
from train.losses import make_objective
from train.parallel import fetch, place_on_devices
from train.planning import ARGUMENTS_FILE, Phase, Plan, make_plan, settings
from train.preparation import Preparation
from train.splitting import split_at_frozen
from train.step_costs import estimate_step, write_step_costs
from train.tensorboard import TensorBoard

HISTORY_FILE = "history.json"
MOMENTUM = 0.9

Histories = dict[str, dict[str, list[Any]]]


def finetune(arguments: argparse.Namespace) -> int:
    """Trains a model as the arguments of `flaxapps finetune` say; writes it, its history and pictures to a folder.

    Every phase has its checkpoints in a folder of its own, and its model is written when it ends, last of all: where
    that file is, a resumed run passes the phase over.

    Returns:
        0, or 130 after Ctrl-C, or 143 after SIGTERM.

    Raises:
        ValueError: The arguments make no sense; all that is wrong with them is told, before anything is downloaded.
        WeightError: The weights cannot be had, or do not fit.
        TrainingError: The loss is NaN, or the checkpoints are of another run.
        OSError: A file cannot be read or written.
    """
    plan = make_plan(arguments)
    if arguments.describe:
        _describe(plan, arguments)
        return 0
    folder = as_path(arguments.output)
    is_anywhere(False)  # every process has seen the folder as it was
    folder.mkdir(parents=True, exist_ok=True)
    if is_first():
        with replacing(folder / ARGUMENTS_FILE) as stream:
            stream.write(json.dumps(settings(arguments), indent=1) + "\n")
    try:
        variables, histories = _train(plan, arguments, folder)
        _write_results(plan, variables, histories, folder, arguments.batch_size)
    except (Interrupted, KeyboardInterrupt) as error:
        received = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        advice = f"what was reached is kept, and `flaxapps finetune --resume --output {folder}` goes on"
        if is_first():
            print(f"flaxapps: interrupted by {received.name}; {advice}", file=sys.stderr)
        return 128 + received
    return 0


def _train(plan: Plan, arguments: argparse.Namespace, folder: Path) -> tuple[Mapping[str, Any], Histories]:
    """Runs the phases that are not done yet."""
    console = open_console(sys.stderr)
    histories = _read_histories(folder)
    done = [phase for phase in plan.phases if _model_of(phase, folder).is_file()]
    if done:
        variables: Mapping[str, Any] = load_variables(_model_of(done[-1], folder), plan.model)
    else:
        variables = plan.load()
    for phase in plan.phases[len(done) :]:
        console.print(f"Training {phase.title}: {len(plan.data)} photos of {len(plan.data.class_names)} classes")
        variables, histories[phase.name] = _train_phase(plan, phase, variables, arguments, folder)
        if is_first():
            with replacing(folder / HISTORY_FILE) as stream:
                stream.write(json.dumps(histories) + "\n")
            save_model(plan.model, variables, _model_of(phase, folder))
    return variables, histories


def _train_phase(
    plan: Plan, phase: Phase, variables: Mapping[str, Any], arguments: argparse.Namespace, folder: Path
) -> tuple[Mapping[str, Any], dict[str, list[Any]]]:
    events = [TensorBoard(folder / "tensorboard" / phase.name)] if arguments.tensorboard and is_first() else []
    caches = _caches_features(plan, phase, arguments.cache_features)
    result = fit(
        plan.model,
        variables,
        plan.data,
        optimizer=_optimizer(phase),
        batch_size=arguments.batch_size,
        frozen=phase.frozen,
        epochs=phase.epochs,
        validation_data=plan.validation,
        cache_features=caches,
        optimize_frozen=None if caches or not phase.frozen else arguments.optimize_frozen,
        checkpoint_dir=folder / phase.name,
        checkpoint_every=arguments.checkpoint_every,
        resume=arguments.resume,
        seed=arguments.seed,
        augmentation=plan.augmentation,
        preprocess=plan.preprocessing,
        callbacks=events,
        mesh=arguments.mesh,
        shard_optimizer=arguments.shard_optimizer,
        early_stopping=EarlyStopping(patience=arguments.patience) if arguments.patience else None,
    )
    return fetch(result.variables), result.history


def _optimizer(phase: Phase) -> optax.GradientTransformation:
    rate = phase.learning_rate
    return optax.rmsprop(rate) if phase.name == "head" else optax.sgd(rate, momentum=MOMENTUM)


def _describe(plan: Plan, arguments: argparse.Namespace) -> None:
    """Prints what a step of every phase takes, computed from the photos: features that are kept take less."""
    placement = place_on_devices("auto", arguments.batch_size, None, arguments.mesh, arguments.shard_optimizer)
    preprocess = preprocessing_function(plan.model, plan.preprocessing)
    images = jax.ShapeDtypeStruct((arguments.batch_size, *plan.model.input_shape[1:]), photo_format(plan.model).dtype)
    labels = jax.ShapeDtypeStruct((arguments.batch_size,), "int32")
    for phase in plan.phases:
        costs = estimate_step(
            plan.model,
            placement,
            images,
            labels,
            objective=make_objective(plan.model, "categorical_crossentropy"),
            optimizer=_optimizer(phase),
            frozen=phase.frozen,
            metrics=("accuracy",),
            prepare=Preparation(plan.augmentation, preprocess),
        )
        open_console().print(f"Training {phase.title}")
        write_step_costs(sys.stdout, costs, placement.mesh.shape, arguments.batch_size)


def _caches_features(plan: Plan, phase: Phase, option: str) -> bool:
    """Whether the outputs of the frozen layers are computed once: only where they are the same in every epoch."""
    if option == "no" or plan.augmentation or (option == "auto" and phase.name != "head"):
        return False
    with suppress(ValueError):
        split_at_frozen(plan.model, phase.frozen)
        return True
    return False


def _model_of(phase: Phase, folder: Path) -> Path:
    return folder / f"{phase.name}.keras"


def _read_histories(folder: Path) -> Histories:
    file = folder / HISTORY_FILE
    histories: Histories = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return histories


def _write_results(
    plan: Plan, variables: Mapping[str, Any], histories: Histories, folder: Path, batch_size: int
) -> None:
    held_out = plan.validation or plan.data
    values = evaluate(
        plan.model,
        variables,
        held_out,
        batch_size=batch_size,
        metrics=("accuracy", "top_5_accuracy", "confusion_matrix"),
        preprocess=plan.preprocessing,
    )
    if not is_first():
        return
    names = plan.data.class_names
    title = "Validation" if plan.validation else "Training photos"
    titles = {phase.title: histories[phase.name] for phase in plan.phases}
    write_curves(titles, folder / "curves.png")
    write_confusion(values["confusion_matrix"], names, folder / "confusion.png", title)
    _write_history(plan, histories, folder / "history.csv")
    save_model(plan.model, variables, folder / MODEL_FILE)
    write_recipe(folder, Recipe(MODEL_FILE, names, plan.preprocess, plan.data.options.interpolation))
    _print_summary(plan, histories, values, title, folder)


def _write_history(plan: Plan, histories: Histories, path: Path) -> None:
    """A row for each epoch; those of the second phase follow those of the first."""
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
    for heading in ("phase", "epochs", "loss", "accuracy", "validation loss", "validation accuracy"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase in plan.phases:
        history = histories[phase.name]
        cells = [_last(history, "loss", ".4f"), _last(history, "accuracy", ".1%")]
        cells += [_last(history, "val_loss", ".4f"), _last(history, "val_accuracy", ".1%")]
        table.add_row(phase.title, str(len(history["loss"])), *cells)
    console.print(table)
    console.print(f"{title}: top-1 {values['accuracy']:.1%}, top-5 {values['top_5_accuracy']:.1%} of {MODEL_FILE}")
    place = folder if in_bucket(folder) else folder.resolve()
    console.print(f"{place}: {MODEL_FILE}, curves.png, confusion.png, history.csv and the checkpoints")
    console.print(f"Next: flaxapps predict PHOTOS --model {folder}")


def _last(history: Mapping[str, list[Any]], name: str, form: str) -> str:
    return format(history[name][-1], form) if history.get(name) else "-"
