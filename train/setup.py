"""Sets up a run from the arguments of `fit`."""

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import optax

from flaxapps.inference.preprocessing import Function, preprocessing_function
from flaxapps.runtime.distributed import is_first
from flaxapps.train.arguments import FitArguments
from flaxapps.train.callbacks import Callback, CSVLog, ProgressDisplay
from flaxapps.train.checkpoints.checkpoints import Checkpoints
from flaxapps.train.checkpoints.description import describe_run
from flaxapps.train.checkpoints.position import Position
from flaxapps.train.checkpoints.settings import describe_settings
from flaxapps.train.data.balance import resolve_class_weights
from flaxapps.train.data.conversion import first_images
from flaxapps.train.data.datasets import ArrayDataset, Dataset
from flaxapps.train.data.labels import check_labels
from flaxapps.train.data.structured import StructuredDataset
from flaxapps.train.devices.placement import place_on_devices
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.freezing.features import compute_features
from flaxapps.train.freezing.optimized import optimize_frozen
from flaxapps.train.freezing.split import dtypes_asked_for, split_at_frozen
from flaxapps.train.freezing.summary import summarise_training
from flaxapps.train.interruption import watch_signals
from flaxapps.train.run import Run
from flaxapps.train.step.augmentation import Augmentation
from flaxapps.train.step.hyperparameters import learning_rate
from flaxapps.train.step.loss_scale import dynamic_loss_scale
from flaxapps.train.step.mixing import mixing_for, of_distributions
from flaxapps.train.step.objectives import AnyObjective, described_metrics, make_objective, value_names
from flaxapps.train.step.state import TrainState, continue_state, create_state
from flaxapps.train.step.step import Preparation


class Trainee(NamedTuple):
    """What trains, and on what: the model itself, its head on cached features, or the model with an optimized trunk.

    Attributes:
        objective: What steps minimize.
        evaluated: What is evaluated: the original layers, without class weights and label smoothing.
        frozen: Names of frozen layers in the model of `objective`.
        frozen_params: Parameters of the optimized trunk; None if it is not optimized.
        data: Training data.
        validation: Validation data, or None.
        preprocess: Preprocessing in the step, or None.
    """

    objective: AnyObjective
    evaluated: AnyObjective
    frozen: frozenset[str]
    frozen_params: Mapping[str, Any] | None
    data: Dataset
    validation: Dataset | None
    preprocess: Function | None


def set_up(given: FitArguments, stack: ExitStack) -> Run:
    """Builds a run, at its start or where its checkpoints resume it.

    Args:
        given: The arguments of `fit`.
        stack: Receives what has to be closed at the end of the run.

    Raises:
        ValueError: Arguments do not fit the model or the data.
        CheckpointError: The checkpoints belong to another run, or cannot be read or written.
    """
    weights = resolve_class_weights(given.class_weights, given.data, given.model.output_shape[-1])
    given = replace(given, optimizer=_optimizer(given), class_weights=weights)
    trainee = _trainee(given)
    devices = given.devices
    placement = place_on_devices(given.parallel, given.batch_size, devices.use, devices.mesh, devices.shard_optimizer)
    preparation = Preparation(_augmentation(given), trainee.preprocess)
    mix = mixing_for(given.augmentation, trainee.objective)
    step = placement.step(
        None if trainee.frozen_params is None else placement.replicate(trainee.frozen_params),
        objective=trainee.objective if mix is None else of_distributions(trainee.objective),
        optimizer=given.optimizer,
        frozen=trainee.frozen,
        accumulate=given.computation.accumulate,
        remat=given.computation.remat,
        metrics=given.metrics,
        prepare=preparation if preparation != Preparation() else None,
        mix=mix,
    )
    # The state keeps all variables, so that checkpoints do not depend on the trainee. Steps do not donate frozen
    # parameters, so these need no copy.
    state, position = placement.replicate(_start(given)), Position()
    callbacks: list[Callback] = list(given.callbacks)
    checkpoints = None
    if given.checkpoints is not None:
        description = describe_run(
            given.model,
            state,
            given.frozen,
            trainee.data,
            trainee.validation,
            batch_size=given.batch_size,
            seed=given.seed,
            initial_epoch=given.initial_epoch,
            metrics=described_metrics(given.metrics),
            settings=_settings(given, state),
        )
        checkpoints = stack.enter_context(Checkpoints(given.checkpoints.path, description, trainee.data))
        state, position = checkpoints.resume(state) if given.checkpoints.resume else checkpoints.start(state)
        callbacks = [*([CSVLog(checkpoints.folder / "history.csv")] if is_first() else []), *callbacks]
    if given.verbose and is_first():
        display = ProgressDisplay(given.epochs, _count_batches(trainee.data, given.batch_size))
        display.say(str(summarise_training(given.model, given.frozen)))
        callbacks = [display, *callbacks]
    for callback in callbacks:
        if isinstance(callback, AbstractContextManager):
            stack.enter_context(callback)
    monitor = "loss" if trainee.validation is None else "val_loss"
    best = given.early_stopping or EarlyStopping(monitor, restore_best=False)
    best.check(_numbers_in_history(given, trainee.evaluated, state.optimizer_state))
    return Run(
        state=state,
        position=position,
        step=step,
        placement=placement,
        data=trainee.data,
        validation=trainee.validation,
        objective=trainee.evaluated,
        metrics=given.metrics,
        preprocess=trainee.preprocess,
        batch_size=given.batch_size,
        accumulate=given.computation.accumulate,
        seed=given.seed,
        initial_epoch=given.initial_epoch,
        callbacks=callbacks,
        interruption=stack.enter_context(watch_signals()),
        best=best,
        checkpoints=checkpoints,
        save_every=given.checkpoints.every if given.checkpoints else None,
    )


def _optimizer(given: FitArguments) -> optax.GradientTransformation:
    """Returns the optimizer, which scales the loss of a model in float16."""
    scaling = given.computation.loss_scaling
    if scaling is None:
        scaling = "float16" in dtypes_asked_for(given.model.graph)
    return dynamic_loss_scale(given.optimizer) if scaling else given.optimizer


def _start(given: FitArguments) -> TrainState:
    """Returns the state before the first step, which nothing else holds."""
    if isinstance(given.variables, TrainState):
        return continue_state(given.variables, given.optimizer, given.frozen)
    state = create_state(given.model, given.variables, given.optimizer, given.frozen, given.seed, copy_frozen=False)
    if given.initial_epoch:  # without a state to go on from, other random numbers than in the first epochs
        state = state.replace(key=jax.random.fold_in(state.key, given.initial_epoch))
    return state


def _trainee(given: FitArguments) -> Trainee:
    weights: Any = given.class_weights  # resolved
    objective_of = functools.partial(
        make_objective,
        loss=given.loss,
        label_smoothing=given.label_smoothing,
        class_weights=weights,
        loss_weights=given.loss_weights,
        frozen=given.frozen,
    )
    evaluated_of = functools.partial(
        make_objective, loss=given.loss, loss_weights=given.loss_weights, frozen=given.frozen
    )
    # As in Keras, class weights are for training alone; smoothing is left out too, so that val_loss is what `evaluate`
    # gives, and early stopping does not depend on either.
    evaluated = evaluated_of(given.model)
    for data in (given.data, given.validation):
        if isinstance(data, ArrayDataset | StructuredDataset):  # others are checked batch by batch
            check_labels(data.labels, evaluated)
    preprocess = preprocessing_function(given.model, given.preprocess)
    if given.cache is not None:
        halves = split_at_frozen(given.model, given.frozen)
        compute: Any = functools.partial(
            compute_features,
            halves.trunk,
            given.start,
            batch_size=given.batch_size,
            preprocess=preprocess or False,
            memory_limit=given.cache.memory_limit,
            folder=given.cache.folder,
            verbose=given.verbose and is_first(),
        )
        data, validation = compute(given.data), None if given.validation is None else compute(given.validation)
        head = halves.head
        return Trainee(objective_of(head), evaluated_of(head), frozenset(), None, data, validation, None)
    whole = Trainee(objective_of(given.model), evaluated, given.frozen, None, given.data, given.validation, preprocess)
    mode = given.computation.optimize_frozen
    if mode is None:
        return whole
    model, arrays = optimize_frozen(given.model, given.start, given.frozen, mode)
    return whole._replace(objective=objective_of(model), frozen=frozenset(), frozen_params=arrays["params"])


def _settings(given: FitArguments, state: TrainState) -> dict[str, Any]:
    names = ("loss", "loss_weights", "class_weights", "label_smoothing", "augmentation", "preprocess", "early_stopping")
    return describe_settings(state, given.optimizer, **{name: getattr(given, name) for name in names})


def _augmentation(given: FitArguments) -> Any:
    """Returns the augmentation, with the value range of the first batch if it needs one."""
    augmentation = given.augmentation
    if isinstance(augmentation, Augmentation) and augmentation.needs_range:
        images = first_images(given.data, given.batch_size)
        return augmentation if images is None else augmentation.for_images(images)
    return augmentation


def _numbers_in_history(given: FitArguments, objective: AnyObjective, optimizer_state: Any) -> set[str]:
    """Returns the names of the values of an epoch, without confusion matrices."""
    names = {name for name in value_names(objective, given.metrics) if not name.endswith("confusion_matrix")}
    held_out = {f"val_{name}" for name in names} if given.validation is not None else set()
    return names | held_out | set(learning_rate(optimizer_state))


def _count_batches(data: Dataset, batch_size: int) -> int | None:
    try:
        return -(-len(data) // batch_size)
    except TypeError:
        return None
