"""The inside of `fit`: a run that trains epoch by epoch, watches its values and saves itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flaxapps.allocation import return_freed_memory
from flaxapps.inference import Function
from train.checkpoints import Checkpoints
from train.datasets import Dataset
from train.early_stopping import EarlyStopping
from train.errors import TrainingError
from train.evaluation import evaluate_placed
from train.events import Callback, EpochEnd, Event, StepEnd
from train.history import add_fetched, extend, fetch_sums, values_of
from train.interruption import Interruption
from train.losses import Objective
from train.parallel import Placement, StepFunction, fetch
from train.position import Position
from train.soundness import all_finite, describe_batch
from train.state import TrainState

CAUSES = "Usual causes are a learning rate that is too high, or images of another range than the network takes."


class InterruptedRun(Exception):  # noqa: N818  (fit turns it into Interrupted)
    """The run was asked to end, and is saved."""


class Pending(NamedTuple):
    """A step whose values are still being computed."""

    sums: dict[str, Any]
    position: Position
    images: Any
    labels: Any


@dataclass
class Run:
    """A run between two steps. Its methods move `state` and `position` on, together.

    Attributes:
        state: The arrays.
        position: Where the run stands.
        step: The step on the devices, from `Placement.step`.
        placement: The devices.
        data: What is trained on.
        validation: What every epoch is evaluated on, or None.
        objective: From `make_objective`, to evaluate with.
        metrics: Names of metrics.
        preprocess: What is done to images before the network, or None.
        batch_size: Examples in a batch.
        accumulate: Parts of a batch on each device.
        seed: Of the order of the data.
        callbacks: What is told of every step and epoch.
        interruption: Signals that came.
        best: Which epoch is the best.
        checkpoints: Where the run is saved, or None.
        save_every: Steps between checkpoints within an epoch; None saves at the ends of epochs.
        compiled: Whether a step has been compiled.
    """

    state: TrainState
    position: Position
    step: StepFunction
    placement: Placement
    data: Dataset
    validation: Dataset | None
    objective: Objective
    metrics: tuple[str, ...]
    preprocess: Function | None
    batch_size: int
    accumulate: int
    seed: int
    callbacks: Sequence[Callback]
    interruption: Interruption
    best: EarlyStopping
    checkpoints: Checkpoints | None = None
    save_every: int | None = None
    compiled: bool = False
    pending: Pending | None = None
    best_arrays: Any = field(default=None, repr=False)

    def train_epoch(self) -> None:
        """Trains what is left of the epoch.

        The values of a step are fetched while the next one computes, so that the devices never wait for Python.

        Raises:
            TrainingError: The loss is NaN or infinite.
            InterruptedRun: A signal came.
        """
        done = self.position
        order: Any = {"seed": self.seed, "epoch": done.epoch, "start": done.batch, "shard": self.placement.shard}
        batches = self.data.batches(self.batch_size, **order)
        for images, labels in batches:
            if self.placement.is_empty(labels):  # its photos were all broken and are skipped
                self.position = self.position.after_empty_batch()
                continue
            batch = self.placement.spread(images, labels, self.accumulate)
            self.state, sums = self.step(self.state, *batch)
            if not self.compiled:
                return_freed_memory()
                self.compiled = True
            self.settle()
            self.position = self.position.after_step()
            self.pending = Pending(sums, self.position, images, labels)
            due = self.save_every is not None and self.position.step % self.save_every == 0
            self.interruption.look()
            if due or self.interruption.received is not None:
                self.settle()
                self.save()
            if self.interruption.received is not None:
                raise InterruptedRun
        self.settle()

    def settle(self) -> None:
        """Waits for the values of the step before, adds them up and tells the callbacks."""
        if self.pending is None:
            return
        sums, position, images, labels = self.pending
        self.pending = None
        fetched = fetch_sums(sums)
        if not math.isfinite(fetched["loss"].total):
            loss = f"The loss is {fetched['loss'].value} at step {position.step}"
            broken = describe_batch(images, labels)
            self._stop(loss, f"In its batch {broken}." if broken else f"Its images and labels are finite. {CAUSES}")
        self.position = self.position._replace(sums=add_fetched(self.position.sums, fetched))
        self._tell(StepEnd(position.step, position.epoch, position.batch, fetched["loss"].count, values_of(fetched)))

    def end_epoch(self) -> bool:
        """Evaluates, extends the history, saves and tells the callbacks.

        Returns:
            Whether a callback wants the run to stop.

        Raises:
            TrainingError: There was no batch, or a parameter or statistic is NaN or infinite.
            InterruptedRun: A signal came.
        """
        if not self.position.sums:
            raise TrainingError(f"The data gave no batch for epoch {self.position.epoch + 1}")
        values = values_of(self.position.sums) | _learning_rate(self.state.optimizer_state)
        if self.validation is not None:
            sums = evaluate_placed(
                self.state.variables,
                self.validation,
                self.placement,
                batch_size=self.batch_size,
                objective=self.objective,
                metrics=self.metrics,
                preprocess=self.preprocess,
            )
            values |= values_of(sums, prefix="val_")
        self.position = self.position.after_epoch(extend(self.position.history, values))
        self.save()
        if self.best.restore_best and self.best.best_epoch(self.position.history) == self.position.epoch - 1:
            self.best_arrays = fetch((self.state.params, self.state.batch_stats))
        ended = EpochEnd(
            self.position.step, self.position.epoch - 1, values, self.position.history, self.state.variables
        )
        stop = self._tell(ended)
        self.interruption.look()
        if self.interruption.received is not None:
            raise InterruptedRun
        return stop

    def save(self) -> None:
        """Writes a checkpoint, where there are any, of a state that is found to be sound."""
        if not all_finite((self.state.params, self.state.batch_stats)):
            self._stop(f"A parameter or a moving statistic is NaN or infinite after step {self.position.step}", CAUSES)
        if self.checkpoints is not None:
            best = self.best.best_epoch(self.position.history)
            best_step = None if best is None else self.position.epoch_steps[best]
            self.checkpoints.save(self.state, self.position, best_step)

    def restore_best(self) -> None:
        """Goes back to the arrays of the best epoch, where that is not the last."""
        best = self.best.best_epoch(self.position.history)
        if best is None or best == self.position.epoch - 1:
            return
        if self.best_arrays is not None:
            params, statistics = self.placement.place(self.best_arrays)
            self.state = self.state.replace(params=params, batch_stats=statistics)
        elif self.checkpoints is not None:  # the run was resumed after its best epoch
            self.state, _ = self.checkpoints.load(self.position.epoch_steps[best], self.state)

    def finish(self) -> Path | None:
        """Waits until the last checkpoint is whole on disk; None where there are none."""
        return None if self.checkpoints is None else self.checkpoints.finish()

    def _tell(self, event: Event) -> bool:
        answers = [callback(event) for callback in self.callbacks]
        return True in answers

    def _stop(self, what: str, why: str) -> None:
        saved = None if self.checkpoints is None else self.checkpoints.newest()
        raise TrainingError(
            f"{what} (epoch {self.position.epoch + 1}). The last good checkpoint: {saved or 'none was written'}. {why}"
        )


def _learning_rate(optimizer_state: Any) -> dict[str, float]:
    """The current learning rate where the optimizer keeps it, as those of `optax.inject_hyperparams` do."""
    hyperparams = getattr(optimizer_state, "hyperparams", {})
    return {"learning_rate": float(hyperparams["learning_rate"])} if "learning_rate" in hyperparams else {}
