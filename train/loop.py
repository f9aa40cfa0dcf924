"""`fit`: trains a model."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import optax

from flaxapps.inference.preprocessing import Function
from flaxapps.model import Model
from flaxapps.train.arguments import FitArguments
from flaxapps.train.callbacks import Callback
from flaxapps.train.data.conversion import as_dataset
from flaxapps.train.devices.results import place_result
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.errors import NOTHING_LEFT, TrainingError, attach_result, interrupted
from flaxapps.train.history import History
from flaxapps.train.interruption import InterruptedRun
from flaxapps.train.moved import accept_moved_keywords
from flaxapps.train.options import CheckpointFolder, Computation, Devices, FeatureCache
from flaxapps.train.run import Run
from flaxapps.train.setup import set_up
from flaxapps.train.step.metrics import Metric
from flaxapps.train.step.objectives import Loss
from flaxapps.train.step.state import TrainState


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Its arrays are where the given variables were, unless `devices` says otherwise.

    Attributes:
        variables: The trained variables, of the best epoch if `early_stopping` restores it.
        state: Variables and optimizer state, from which another `fit` can continue.
        history: Loss and metrics, and those of the validation as "val_...", each a list with a value per epoch.
        steps: Steps taken, including those before a resume.
        best_epoch: Index of the best epoch by `early_stopping.monitor`, else by val_loss or loss; None if none.
        stopped: Why the run ended early: "early stopping", "callback", "interrupted" or "error"; None if it did not.
        checkpoint: The newest checkpoint; None without `checkpoint_dir`.
        best_checkpoint: The checkpoint of the best epoch; None without `checkpoint_dir` or a best epoch. Its
            "variables" are an Orbax tree: `weight_port.trees.load_orbax(result.best_checkpoint / "variables")`.
        class_names: Class names of the data, in the order of the model's outputs; None if unknown.
    """

    variables: dict[str, Any]
    state: TrainState = field(repr=False)
    history: History
    steps: int
    best_epoch: int | None
    stopped: str | None
    checkpoint: Path | None
    best_checkpoint: Path | None
    class_names: tuple[str, ...] | None


@accept_moved_keywords
def fit(
    model: Model,
    variables: Mapping[str, Any] | TrainState,
    data: Any,
    *,
    optimizer: str | optax.GradientTransformation,
    batch_size: int = 32,
    loss: Loss = "categorical_crossentropy",
    loss_weights: Mapping[str, float] | None = None,
    frozen: Collection[str] = frozenset(),
    epochs: int = 1,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_data: Any = None,
    parallel: str = "auto",
    cache_features: bool | FeatureCache = False,
    checkpoint_dir: str | os.PathLike[str] | CheckpointFolder | None = None,
    seed: int = 0,
    verbose: bool = True,
    metrics: Metric | Sequence[Metric] | Mapping[str, Any] = ("accuracy",),
    class_weights: Mapping[int, float] | str | None = None,
    label_smoothing: float = 0.0,
    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    preprocess: bool | str | Function = False,
    callbacks: Callback | Iterable[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    devices: Sequence[jax.Device] | Devices | None = None,
    computation: Computation | None = None,
) -> FitResult:
    """Trains a model, like Keras's `fit`. It is a pure function except for the files it writes.

    The same arguments and number of devices give the same parameters to the last bit, also if the run was killed and
    resumed. No example is dropped: a last batch that the devices do not divide is padded, and a mask excludes the
    padding from everything. With "pmap" each device draws its own dropout and augmentation; with "jit" they do not
    depend on the number of devices.

    Args:
        model: The model.
        variables: Initial variables. They are not modified: trainable parameters are copied, frozen ones are shared
            with the result. Pass `result.state` to continue with its optimizer and random numbers.
        data: (images, labels) or (images, labels, sample_weights) arrays, `train.image_folder(...)`, an iterable of
            batches, or else as `as_dataset`.
        optimizer: An optimizer of Optax with its learning rate or schedule, or the name of one of Keras with Keras's
            default rate: "adam", "adamw", "rmsprop", "sgd" and others of `flaxapps.train.optimizers.OPTIMIZERS`.
        batch_size: Examples in a batch, over all devices.
        loss: As `make_objective` takes it; "categorical_crossentropy" takes one-hot labels and class indices. A dict by
            the names of outputs for several.
        loss_weights: Factors of the losses of several outputs in their sum, by the names of outputs.
        frozen: Names of frozen layers, from `frozen_layers`.
        epochs: Passes over the data, including those before a resume and before `initial_epoch`.
        initial_epoch: The first epoch, which has its own order of the data, dropout and augmentation.
        steps_per_epoch: Batches in an epoch, for iterables that are endless or whose epochs should be shorter.
        validation_data: Data to evaluate on after every epoch; as `data`.
        parallel: "jit": all devices, partitioned by XLA. "pmap": all devices, each with its shard of the batch. "auto":
            "jit" on as many devices as divide the batch size. BatchNormalization sees the whole batch in each.
        cache_features: Whether to compute the outputs of the frozen layers once and train the others on them: the same
            training, up to rounding. They must be an unbroken beginning of the model without randomness, and the data
            the same in every epoch. A `FeatureCache` sets where they are kept.
        checkpoint_dir: A folder, local or in gs://, for the last two checkpoints, the best one and `history.csv`; None
            saves nothing. `CheckpointFolder("run", resume=True)` resumes, and can save within epochs.
        seed: Seed of the order of the data, dropout and augmentation.
        verbose: Whether to show progress, on stderr.
        metrics: Names of `flaxapps.train.step.metrics.METRICS`, or functions of (labels, outputs) that return a value
            per example; for several outputs also a dict of these by the names of outputs.
        class_weights: Weights of the loss by class index, in training alone; "balanced" for scikit-learn's, by the
            number of examples.
        label_smoothing: Fraction of every label that is spread over the classes, in training alone.
        augmentation: A hashable function of (key, images), run on the device in training; or an `Augmentation`.
        preprocess: Preprocessing on the device, after augmentation, as in `flaxapps.predict`.
        callbacks: Callables that take a `StepEnd` or an `EpochEnd`. One that returns True after an epoch ends the run,
            one that returns {"learning_rate": 1e-4} sets it in an `optax.inject_hyperparams`. Context managers are
            entered for the duration of the run.
        early_stopping: When to stop before the last epoch.
        devices: Devices to use, None for all; or `Devices(...)`, which also shards large layers and the optimizer.
        computation: Ways to save memory or time in a step: accumulation, recomputation, optimized frozen layers.

    Returns:
        The variables, the history, and how the run ended.

    Raises:
        ValueError: Arguments do not fit each other, the model or the data; all problems are listed.
        TrainingError: There is no data, or it is NaN or infinite (the message names the step and the examples).
        DivergenceError: The loss, a parameter or a statistic is NaN or infinite.
        CheckpointError: Checkpoints belong to another run (the differences are listed), or cannot be read or written.
        Interrupted: SIGTERM or Ctrl-C was received. The run is saved first if there is a `checkpoint_dir`.

    Every exception that ends a run after its first step has the training so far as its `result`.
    """
    validation = None if validation_data is None else as_dataset(validation_data)
    return _fit(FitArguments(
        model=model, variables=variables, data=as_dataset(data, steps_per_epoch), validation=validation,
        optimizer=optimizer, batch_size=batch_size, loss=loss, loss_weights=loss_weights, epochs=epochs,
        initial_epoch=initial_epoch,
        frozen=frozen, metrics=metrics, callbacks=callbacks,  # type: ignore[arg-type]  # brought to their forms there
        parallel=parallel, devices=Devices.of(devices), cache=FeatureCache.of(cache_features),
        checkpoints=CheckpointFolder.of(checkpoint_dir), computation=Computation.of(computation), seed=seed,
        verbose=verbose, class_weights=class_weights, label_smoothing=label_smoothing, augmentation=augmentation,
        preprocess=preprocess, early_stopping=early_stopping,
    ))  # fmt: skip # kept on few lines on purpose


def _fit(given: FitArguments) -> FitResult:
    """Runs `fit` with checked arguments."""
    with ExitStack() as stack:
        run = set_up(given, stack)
        try:
            stopped = _train(run, given.epochs - given.initial_epoch, given.early_stopping)
        except (Exception, KeyboardInterrupt) as error:
            with suppress(Exception):  # the error itself matters more than what cannot be kept
                if run.rescue():
                    attach_result(error, _result(run, given, "error"))
                elif isinstance(error, TrainingError) and run.position.step:
                    error.add_note(NOTHING_LEFT)
            raise
        if run.best.restore_best and stopped != "interrupted":
            run.restore_best()
        result = _result(run, given, stopped)
        if stopped == "interrupted":
            assert run.interruption.received is not None
            raise interrupted(run.interruption.received, result, result.checkpoint)
        return result


def _train(run: Run, epochs: int, early_stopping: EarlyStopping | None) -> str | None:
    """Trains to the end; returns why the run ended early, or None."""
    try:
        while True:
            if early_stopping is not None and early_stopping.should_stop(run.position.history):
                return "early stopping"
            if run.position.epoch >= epochs:
                return None
            run.train_epoch()
            if run.end_epoch():
                return "callback"
    except InterruptedRun:
        run.save_step()
        return "interrupted"


def _result(run: Run, given: FitArguments, stopped: str | None) -> FitResult:
    devices, state = given.devices, run.state
    laid_out = devices.mesh is not None or devices.shard_optimizer or run.placement.mesh.is_multi_process
    if devices.results is not None or not laid_out:
        state = place_result(state, given.variables, devices.results)
    return FitResult(
        variables=state.evaluation_variables,
        state=state,
        history=run.position.history,
        steps=run.position.step,
        best_epoch=run.best.best_epoch(run.position.history),
        stopped=stopped,
        checkpoint=run.finish(),
        best_checkpoint=run.best_checkpoint(),
        class_names=run.data.class_names,
    )
