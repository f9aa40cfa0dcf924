"""`fit`: fine-tuning from variables and data to variables and a history."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from flaxapps.distributed import is_first
from flaxapps.inference import Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.optimizing import Mode
from train.arguments import check_arguments, check_classes
from train.checkpoints import Checkpoints
from train.csv_log import CSVLog
from train.datasets import Dataset, as_dataset
from train.early_stopping import EarlyStopping
from train.errors import Interrupted
from train.events import Callback
from train.features import MEMORY_LIMIT, compute_features
from train.history import History
from train.interruption import watch_signals
from train.losses import LossFunction, make_objective
from train.optimized import optimize_frozen as rewrite_frozen
from train.parallel import place_on_devices
from train.position import Position
from train.preparation import Preparation
from train.progress import ProgressDisplay
from train.run import InterruptedRun, Run
from train.run_description import describe_run
from train.splitting import split_at_frozen
from train.state import create_state


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
        variables: The trained variables, of the best epoch where `early_stopping` restores it.
        history: Loss and metrics, and those of the validation as "val_...", a list with a value per epoch each.
        steps: Steps taken, those before a resumption included.
        best_epoch: Index of the best epoch by `early_stopping.monitor`, or else by val_loss or loss; None of none.
        stopped: Why the run ended before its last epoch: "early stopping", "callback" or "interrupted"; None if it
            did not.
        checkpoint: The newest checkpoint; None without `checkpoint_dir`.
        class_names: Of the data, in the order of the model's outputs; None where nobody knows.
    """

    variables: dict[str, Any]
    history: History
    steps: int
    best_epoch: int | None
    stopped: str | None
    checkpoint: Path | None
    class_names: tuple[str, ...] | None


def fit(
    model: Model,
    variables: Mapping[str, Any],
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int = 32,
    loss: str | LossFunction = "categorical_crossentropy",
    frozen: frozenset[str] = frozenset(),
    epochs: int = 1,
    validation_data: Any = None,
    parallel: str = "auto",
    mesh: Mapping[str, int] | None = None,
    shard_optimizer: bool = False,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: bool = True,
    metrics: tuple[str, ...] = ("accuracy",),
    class_weights: Mapping[int, float] | None = None,
    label_smoothing: float = 0.0,
    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    preprocess: bool | str | Function = False,
    accumulate: int = 1,
    remat: bool = False,
    callbacks: Iterable[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    devices: Sequence[jax.Device] | None = None,
    cache_features: bool = False,
    cache_limit: int = MEMORY_LIMIT,
    optimize_frozen: Mode | None = None,
) -> FitResult:
    """Trains a model, as `fit` of Keras does; a pure function but for the files it writes.

    The same arguments and the same number of devices give the same parameters to the last bit, also where the run was
    killed and resumed on the way. The last batch of an epoch is trained at its own size where it divides by the devices
    (and by `accumulate`); otherwise it is filled up with examples that a mask keeps out of loss, metrics, gradients and
    statistics of BatchNormalization. Nothing is dropped. With "pmap" each device draws its own dropout and
    augmentation; with "jit" they do not depend on the number of devices.

    Args:
        model: A model with one output.
        variables: Its variables, which stay yours; what trains is copied, frozen parameters are shared with the result.
        data: (images, labels) arrays, `train.image_folder(...)`, any other `Dataset`, or an iterable of batches.
        optimizer: From Optax, with the learning rate or a schedule of it.
        batch_size: Examples in a batch, over all devices together.
        loss: As `make_objective` takes it; "categorical_crossentropy" takes one-hot labels and class indices.
        frozen: What `frozen_layers` returns.
        epochs: Passes over the data, those before a resumption included.
        validation_data: What to evaluate on after every epoch; as `data`.
        parallel: "jit": all devices, partitioned by XLA. "pmap": all devices, each with its part of the batch. "auto":
            "jit" on as many devices as divide the batch size. BatchNormalization sees the whole batch in each.
        mesh: How many devices there are along "data" and "model", such as {"data": 4, "model": 2}: kernels of large
            dense layers lie in parts along "model" (`train.layout.Layout`). None: all along "data".
        shard_optimizer: Whether each device along "data" keeps only its part of what the optimizer keeps.
        checkpoint_dir: A folder, here or in gs://, for the last two checkpoints, the best one and `history.csv`; None
            saves nothing.
        seed: Of the order of the data, dropout and augmentation.
        verbose: Whether to show progress, on stderr.
        metrics: Names of `train.metrics.METRICS`.
        class_weights: Factors of the loss by class.
        label_smoothing: The part of every label that is spread over the classes.
        augmentation: A hashable function of (key, images) of 0..255, run on the device in training.
        preprocess: What is done to images on the device, after augmentation, as in `flaxapps.predict`.
        accumulate: In how many parts a batch is computed one after the other.
        remat: Whether to recompute the network in the backward pass instead of keeping its values.
        callbacks: Callables that take a `StepEnd` or an `EpochEnd`. One that returns True after an epoch ends the run;
            one that is a context manager is entered for the length of the run.
        early_stopping: When to stop before the last epoch.
        checkpoint_every: Steps between checkpoints within an epoch; None saves at the ends of epochs.
        resume: Whether to go on from the newest checkpoint; without one the run starts from the beginning.
        devices: The devices to use; None for all.
        cache_features: Whether to compute the outputs of the frozen layers once, before the first epoch, and train the
            others on them: the same training, to float rounding. The frozen layers must be an unbroken beginning of
            the model, nothing random may come before their end (`split_at_frozen` says what does), and the data must
            be the same in every epoch.
        cache_limit: Bytes of features that are kept in memory; more go to temporary files, as in `compute_features`.
        optimize_frozen: How frozen layers compute in a step, where features cannot be kept: "exact" with
            BatchNormalization folded, "fast" on CPUs with Winograd's products too (`flaxapps.optimize` says how much
            that moves). They must be an unbroken beginning of the model. The result has its own arrays, as ever.

    Returns:
        The variables, the history, and how the run ended.

    Raises:
        ValueError: Arguments do not fit each other, the model or the data; all of it is listed.
        TrainingError: The loss is NaN or infinite (names the step and the last good checkpoint), or the data is empty.
        CheckpointError: The checkpoints are those of another run (the differences are listed), or cannot be read or
            written, the last one included.
        Interrupted: SIGTERM or Ctrl-C came; the run is saved first, where there is a `checkpoint_dir`.
    """
    data = as_dataset(data)
    validation = None if validation_data is None else as_dataset(validation_data)
    check_arguments(
        {"batch_size": batch_size, "epochs": epochs, "accumulate": accumulate, "checkpoint_every": checkpoint_every},
        metrics=metrics,
        parallel=parallel,
        resume=resume,
        checkpoint_dir=checkpoint_dir,
        random_cache=cache_features and augmentation is not None,
        optimize_frozen=optimize_frozen,
        cache_features=cache_features,
    )
    check_classes(model, data, validation)
    preprocessing = preprocessing_function(model, preprocess)
    trained, still = model, frozen
    frozen_params = None
    if cache_features:  # the state keeps all variables, so that checkpoints and results are the same
        halves = split_at_frozen(model, frozen)
        compute: Any = functools.partial(
            compute_features,
            halves.trunk,
            variables,
            batch_size=batch_size,
            preprocess=preprocessing or False,
            memory_limit=cache_limit,
            verbose=verbose and is_first(),
        )
        data, validation = compute(data), None if validation is None else compute(validation)
        trained, still, preprocessing = halves.head, frozenset(), None
    objective_of = functools.partial(
        make_objective, loss=loss, label_smoothing=label_smoothing, class_weights=class_weights
    )
    objective = evaluated = objective_of(trained)
    if optimize_frozen is not None:
        rewritten, arrays = rewrite_frozen(model, variables, frozen, optimize_frozen)
        objective, still, frozen_params = objective_of(rewritten), frozenset(), arrays["params"]
    placement = place_on_devices(parallel, batch_size, devices, mesh, shard_optimizer)
    step = placement.step(
        None if frozen_params is None else placement.place(frozen_params),
        objective=objective,
        optimizer=optimizer,
        frozen=still,
        accumulate=accumulate,
        remat=remat,
        metrics=metrics,
        prepare=Preparation(augmentation, preprocessing) if augmentation or preprocessing else None,
    )
    state = placement.place(create_state(model, variables, optimizer, frozen, seed, copy_frozen=False))
    position = Position()
    monitor = "loss" if validation is None else "val_loss"
    best = early_stopping or EarlyStopping(monitor, restore_best=False)
    with ExitStack() as stack:
        checkpoints = None
        if checkpoint_dir is not None:
            description = describe_run(
                model, state, frozen, data, validation, batch_size=batch_size, seed=seed, metrics=metrics
            )
            checkpoints = stack.enter_context(Checkpoints(checkpoint_dir, description, data))
            state, position = checkpoints.resume(state) if resume else checkpoints.start(state)
            callbacks = [*([CSVLog(checkpoints.folder / "history.csv")] if is_first() else []), *callbacks]
        if verbose and is_first():
            callbacks = [ProgressDisplay(epochs, _count_batches(data, batch_size)), *callbacks]
        callbacks = list(callbacks)
        for callback in callbacks:
            if isinstance(callback, AbstractContextManager):
                stack.enter_context(callback)
        run = Run(
            state=state,
            position=position,
            step=step,
            placement=placement,
            data=data,
            validation=validation,
            objective=evaluated,
            metrics=metrics,
            preprocess=preprocessing,
            batch_size=batch_size,
            accumulate=accumulate,
            seed=seed,
            callbacks=callbacks,
            interruption=stack.enter_context(watch_signals()),
            best=best,
            checkpoints=checkpoints,
            save_every=checkpoint_every,
        )
        try:
            stopped = _train(run, epochs, early_stopping)
        except InterruptedRun:
            received = run.interruption.received
            assert received is not None
            result = _result(run, "interrupted")
            raise Interrupted(received, result, result.checkpoint) from None
        if best.restore_best:
            run.restore_best()
        return _result(run, stopped)


def _train(run: Run, epochs: int, early_stopping: EarlyStopping | None) -> str | None:
    """Trains to the end; why that came before the last epoch, if it did."""
    while True:
        if early_stopping is not None and early_stopping.should_stop(run.position.history):
            return "early stopping"
        if run.position.epoch >= epochs:
            return None
        run.train_epoch()
        if run.end_epoch():
            return "callback"


def _result(run: Run, stopped: str | None) -> FitResult:
    return FitResult(
        variables=run.state.variables,
        history=run.position.history,
        steps=run.position.step,
        best_epoch=run.best.best_epoch(run.position.history),
        stopped=stopped,
        checkpoint=run.finish(),
        class_names=run.data.class_names,
    )


def _count_batches(data: Dataset, batch_size: int) -> int | None:
    try:
        return -(-len(data) // batch_size)
    except TypeError:
        return None
