"""Runs `flaxapps finetune`: a new head on a frozen network, then its last layers as well, and a saved model."""

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from flaxapps.cli.costs import write_step_costs
from flaxapps.cli.finetune.find_rate import run_range_test
from flaxapps.cli.finetune.folder import BEST_FILE, HISTORY_FILE, is_finished, remove_run, write_arguments
from flaxapps.cli.finetune.optimizer import build_optimizer, schedule_rate
from flaxapps.cli.finetune.plan import Phase, Plan, make_plan
from flaxapps.cli.finetune.results import Histories, best_epoch, write_results
from flaxapps.cli.finetune.unreadable import tell_unreadable
from flaxapps.inference.preprocessing import preprocessing_function
from flaxapps.model import load_variables
from flaxapps.runtime.console import describe_devices, listed, open_console
from flaxapps.runtime.distributed import is_anywhere, is_first
from flaxapps.runtime.files import as_path, replacing
from flaxapps.saving.save import save_model
from flaxapps.train.callbacks import TensorBoard
from flaxapps.train.data.balance import BALANCED, count_classes
from flaxapps.train.devices.costs import estimate_step
from flaxapps.train.devices.placement import fetch, place_on_devices
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.errors import CheckpointError, Interrupted, TrainingError
from flaxapps.train.freezing.split import split_at_frozen
from flaxapps.train.loop import FitResult, fit
from flaxapps.train.options import CheckpointFolder, Computation, Devices
from flaxapps.train.step.objectives import make_objective
from flaxapps.train.step.step import Preparation
from weight_port.trees import load_orbax

IMBALANCED = 4  # times as many photos as the smallest class has, from which on the largest is worth a warning


def finetune(arguments: argparse.Namespace) -> int:
    """Trains a model from the arguments of `flaxapps finetune`; writes it, its history and plots to a folder.

    Every phase has a checkpoint folder of its own. Its model is written last, so a resumed run skips the phases whose
    model exists.

    Returns:
        0, or 130 after Ctrl-C, or 143 after SIGTERM.

    Raises:
        ValueError: Arguments are not valid (all problems are listed, before anything is downloaded), the loss is NaN,
            or the checkpoints belong to another run or cannot be read.
        WeightError: The weights cannot be fetched, or do not fit.
        OSError: A file cannot be read or written.
    """
    plan = make_plan(arguments)
    folder = as_path(arguments.output)
    if arguments.describe:
        _describe(plan, arguments)
        return 0
    if arguments.on_error == "skip":
        tell_unreadable(open_console(sys.stderr), plan)
    if arguments.find_rate:
        _tell_data(open_console(sys.stderr), plan, arguments)
        run_range_test(plan, arguments, folder, caches=_caches_features(plan, plan.phases[0], arguments.cache_features))
        return 0
    is_anywhere(False)  # a barrier: every process looks at the folder before it changes
    if is_first() and arguments.overwrite:
        remove_run(folder)
    if is_finished(folder):
        open_console().print(f"The run in {folder} is finished: flaxapps predict PHOTOS --model {folder}")
        return 0
    is_anywhere(False)
    try:
        variables, histories = _train(plan, arguments, folder)
        write_results(plan, variables, histories, folder, arguments)
    except (Interrupted, KeyboardInterrupt) as error:
        received = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        saved = any(any((folder / phase.name).glob("[0-9]*")) for phase in plan.phases)  # not after a second Ctrl-C
        progress = "progress is saved, resume" if saved else "there is no checkpoint yet, start again"
        advice = f"{progress} with `flaxapps finetune --resume --output {folder}`"
        if is_first():
            print(f"flaxapps: interrupted by {received.name}; {advice}", file=sys.stderr)
        return 128 + received
    except CheckpointError as error:
        if not error.differences:
            raise ValueError(str(error)) from error
        changed = listed(error.differences, "; ", limit=3)
        raise ValueError(
            f"The run in {folder} cannot be resumed, because it had other settings or photos: {changed}. Undo the "
            "changes, or start a run with --overwrite or another --output"
        ) from error
    except TrainingError as error:
        raise ValueError(str(error)) from error
    return 0


def _train(plan: Plan, arguments: argparse.Namespace, folder: Path) -> tuple[Mapping[str, Any], Histories]:
    """Runs the phases that are not finished yet, and keeps the model of the best epoch."""
    console = open_console(sys.stderr)
    histories = _read_histories(folder)
    done = [phase for phase in plan.phases if _model_of(phase, folder).is_file()]
    if done:
        variables: Mapping[str, Any] = load_variables(_model_of(done[-1], folder), plan.model)
    else:
        variables = plan.load()
    _tell_data(console, plan, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    if is_first():
        write_arguments(folder, arguments)  # only now: a run that could not start can be started again
    for phase in plan.phases[len(done) :]:
        console.print(f"Training {phase.title}")
        result = _train_phase(plan, phase, variables, arguments, folder)
        variables, histories[phase.name] = fetch(result.variables), result.history
        best = None
        if result.best_checkpoint and best_epoch(histories, plan)[0] == phase.name:
            last = result.best_epoch == len(result.history["loss"]) - 1
            best = variables if last else load_orbax(result.best_checkpoint / "variables")  # in all processes at once
        if is_first():
            if best is not None:
                save_model(plan.model, best, folder / BEST_FILE)
            with replacing(folder / HISTORY_FILE) as stream:
                stream.write(json.dumps(histories) + "\n")
            save_model(plan.model, variables, _model_of(phase, folder))
    return variables, histories


def _tell_data(console: Console, plan: Plan, arguments: argparse.Namespace) -> None:
    """Says what was found: photos and classes, how unequal they are, and on which devices they train."""
    console.print(describe_devices())
    names = plan.data.class_names
    counts = count_classes(plan.data.labels, len(names))
    classes = listed([f"{name} {count}" for name, count in zip(names, counts, strict=True)])
    held_out = f"{len(plan.validation)} to validate on" if plan.validation else "none to validate on"
    console.print(f"{len(plan.data)} photos of {len(counts)} classes to train on, {held_out}: {classes}")
    small, large = int(counts.argmin()), int(counts.argmax())
    if counts[large] >= IMBALANCED * counts[small] and arguments.class_weights != BALANCED:
        console.print(
            f"The classes are unequal: {names[large]} has {counts[large]} photos, {names[small]} {counts[small]}. The "
            "accuracy can be high although the small ones are wrong: see confusion.png, or try --class-weights balanced"
        )


def _train_phase(
    plan: Plan, phase: Phase, variables: Mapping[str, Any], arguments: argparse.Namespace, folder: Path
) -> FitResult:
    events = [TensorBoard(folder / "tensorboard" / phase.name)] if arguments.tensorboard and is_first() else []
    caches = _caches_features(plan, phase, arguments.cache_features)
    return fit(
        plan.model,
        variables,
        plan.data,
        optimizer=_optimizer(plan, phase, arguments),
        batch_size=arguments.batch_size,
        frozen=phase.frozen,
        epochs=phase.epochs,
        validation_data=plan.validation,
        cache_features=caches,
        checkpoint_dir=CheckpointFolder(folder / phase.name, arguments.checkpoint_every, arguments.resume),
        seed=arguments.seed,
        augmentation=plan.augmentation,
        preprocess=plan.preprocessing,
        label_smoothing=arguments.label_smoothing,
        class_weights=arguments.class_weights,
        callbacks=events,
        devices=Devices(mesh=arguments.mesh, shard_optimizer=arguments.shard_optimizer),
        computation=Computation(optimize_frozen=arguments.optimize_frozen if phase.frozen and not caches else None),
        early_stopping=EarlyStopping(patience=arguments.patience) if arguments.patience else None,
    )


def _optimizer(plan: Plan, phase: Phase, arguments: argparse.Namespace) -> optax.GradientTransformation:
    rate = schedule_rate(arguments, phase.learning_rate, plan.steps(phase, arguments.batch_size))
    return build_optimizer(arguments, plan.model, phase.optimizer, rate)


def _describe(plan: Plan, arguments: argparse.Namespace) -> None:
    """Prints what a step of every phase takes when it starts from the photos; cached features take less."""
    placement = place_on_devices("auto", arguments.batch_size, None, arguments.mesh, arguments.shard_optimizer)
    preprocess = preprocessing_function(plan.model, plan.preprocessing)
    images = jax.ShapeDtypeStruct((arguments.batch_size, *plan.model.input_shape[1:]), plan.data.options.dtype)
    labels = jax.ShapeDtypeStruct((arguments.batch_size,), "int32")
    for phase in plan.phases:
        costs = estimate_step(
            plan.model,
            placement,
            images,
            labels,
            objective=make_objective(plan.model, "categorical_crossentropy"),
            optimizer=_optimizer(plan, phase, arguments),
            frozen=phase.frozen,
            metrics=("accuracy",),
            prepare=Preparation(plan.augmentation, preprocess),
        )
        open_console().print(f"Training {phase.title}")
        write_step_costs(sys.stdout, costs, placement.mesh.shape, arguments.batch_size)


def _caches_features(plan: Plan, phase: Phase, option: str) -> bool:
    """Whether to cache the outputs of frozen layers: only if they are the same in every epoch."""
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
