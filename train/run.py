"""The training loop: epochs, callbacks, validation and checkpoints."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxapps.inference.preprocessing import Function
from flaxapps.runtime.process import return_freed_memory
from flaxapps.train.callbacks import Callback, EpochEnd, Event, StepEnd
from flaxapps.train.checkpoints.checkpoints import Checkpoints
from flaxapps.train.checkpoints.position import Position
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.data.labels import check_labels
from flaxapps.train.data.pipeline import reading
from flaxapps.train.devices.placement import Placement, StepFunction, fetch
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.errors import DivergenceError, TrainingError
from flaxapps.train.evaluation import evaluate_placed
from flaxapps.train.finite import all_finite, describe_batch
from flaxapps.train.history import add_fetched, extend, fetch_sums, values_of
from flaxapps.train.interruption import InterruptedRun, Interruption
from flaxapps.train.step.hyperparameters import learning_rate, with_hyperparameters
from flaxapps.train.step.objectives import AnyObjective, OutputMetric
from flaxapps.train.step.state import TrainState, averages_params

CAUSES = "Usual causes are a learning rate that is too high, or images in another range than the network takes."


class Pending(NamedTuple):
    """A step whose values are still being computed."""

    sums: dict[str, Any]
    position: Position
    images: Any
    labels: Any


@dataclass
class Run:
    """A run between two steps. Its methods advance `state` and `position` together.

    Attributes:
        state: The arrays.
        position: Progress of the run.
        step: The compiled step, from `Placement.step`.
        placement: The devices.
        data: Training data.
        validation: Validation data, or None.
        objective: From `make_objective`, for evaluation.
        metrics: Names of metrics, or functions.
        preprocess: Preprocessing for evaluation, or None.
        batch_size: Examples in a batch.
        accumulate: Parts of a batch on each device.
        seed: Seed of the order of the data.
        initial_epoch: Index of the first epoch; those of `position` count from it.
        callbacks: Called after every step and epoch.
        interruption: Signals that were received.
        best: Rule for the best epoch.
        checkpoints: Checkpoints of the run, or None.
        save_every: Steps between checkpoints within an epoch; None saves at the ends of epochs.
        compiled: Whether a step has been compiled.
        pending: The last step, until its values are fetched.
        best_arrays: Parameters, statistics, and the optimizer's averages if it has any, of the best epoch; on the host.
        saved: The position that was saved last.
    """

    state: TrainState
    position: Position
    step: StepFunction
    placement: Placement
    data: Dataset
    validation: Dataset | None
    objective: AnyObjective
    metrics: tuple[OutputMetric, ...]
    preprocess: Function | None
    batch_size: int
    accumulate: int
    seed: int
    initial_epoch: int
    callbacks: Sequence[Callback]
    interruption: Interruption
    best: EarlyStopping
    checkpoints: Checkpoints | None = None
    save_every: int | None = None
    compiled: bool = False
    pending: Pending | None = None
    best_arrays: Any = field(default=None, repr=False)
    saved: Position | None = None

    @property
    def epoch(self) -> int:
        """Index of the current epoch."""
        return self.initial_epoch + self.position.epoch

    def train_epoch(self) -> None:
        """Trains the rest of the epoch.

        The values of a step are fetched while the next one is computed, so that the devices never wait for Python.

        Raises:
            TrainingError: The images or labels of a batch are NaN or infinite.
            DivergenceError: The loss is, of finite ones.
            InterruptedRun: A signal was received.
        """
        done = self.position
        order: Any = {"seed": self.seed, "epoch": self.epoch, "start": done.batch, "shard": self.placement.shard}
        with reading(self.data.batches(self.batch_size, **order)) as batches:
            self._train_on(batches)

    def _train_on(self, batches: Iterator[Any]) -> None:
        while (batch := self._next(batches)) is not None:
            images, labels = batch
            if self.placement.is_empty(labels):  # all its photos are unreadable and skipped
                self.position = self.position.after_empty_batch()
                continue
            check_labels(labels, self.objective)
            self.state, sums = self.step(self.state, *self.placement.shard_batch(images, labels, self.accumulate))
            if not self.compiled:
                return_freed_memory()  # compiling frees much, which the allocator would keep
                self.compiled = True
            self.settle()
            self.position = self.position.after_step()
            self.pending = Pending(sums, self.position, images, labels)
            due = self.save_every is not None and self.position.step % self.save_every == 0
            self.interruption.poll()
            if self.interruption.received is not None:
                raise InterruptedRun
            if due:
                self.save_step()
        self.settle()

    def save_step(self) -> None:
        """Saves within an epoch.

        Raises:
            DivergenceError: The loss, a parameter or a statistic is NaN or infinite.
        """
        self.settle()
        self.check_finite()
        self.save()

    def settle(self) -> None:
        """Waits for the values of the last step, adds them up and calls the callbacks."""
        if self.pending is None:
            return
        sums, position, images, labels = self.pending
        self.pending = None
        fetched = fetch_sums(sums)
        if not math.isfinite(fetched["loss"].total):
            loss = f"The loss is {fetched['loss'].value} at step {position.step}"
            broken = describe_batch(images, labels)
            if broken:
                raise TrainingError(self._explain(loss, f"In its batch {broken}."))
            raise DivergenceError(self._explain(loss, f"Its images and labels are finite. {CAUSES}"))
        self.position = self.position._replace(sums=add_fetched(self.position.sums, fetched))
        epoch = self.initial_epoch + position.epoch
        self._tell(StepEnd(position.step, epoch, position.batch, fetched["loss"].count, values_of(fetched)))

    def end_epoch(self) -> bool:
        """Evaluates, extends the history, saves and calls the callbacks.

        Returns:
            Whether a callback asked to stop.

        Raises:
            TrainingError: There was no batch.
            DivergenceError: A parameter or statistic is NaN or infinite.
            InterruptedRun: A signal was received.
        """
        if not self.position.sums:
            raise TrainingError(f"The data has no batch for epoch {self.epoch + 1}")
        values = values_of(self.position.sums) | learning_rate(self.state.optimizer_state)
        if self.validation is not None:
            with self.interruption.waiting():
                sums = evaluate_placed(
                    self.state.evaluation_variables,
                    self.validation,
                    self.placement,
                    batch_size=self.batch_size,
                    objective=self.objective,
                    metrics=self.metrics,
                    preprocess=self.preprocess,
                )
            values |= values_of(sums, prefix="val_")
        self.position = self.position.after_epoch(extend(self.position.history, values))
        self.check_finite()
        if self.best.restore_best and self.best.best_epoch(self.position.history) == self.position.epoch - 1:
            kept = {"params": self.state.params, "batch_stats": self.state.batch_stats}
            averages = {"optimizer_state": self.state.optimizer_state} if averages_params(self.state) else {}
            self.best_arrays = fetch(kept | averages)
        ended = EpochEnd(
            self.position.step, self.epoch - 1, values, self.position.history, self.state.evaluation_variables
        )
        try:
            stop = self._tell(ended)
        finally:
            self.save()  # with the hyperparameters that callbacks have set
        self.interruption.poll()
        if self.interruption.received is not None:
            raise InterruptedRun
        return stop

    def check_finite(self) -> None:
        """Checks that the parameters and statistics are finite.

        Raises:
            DivergenceError: They are not.
        """
        if not all_finite((self.state.params, self.state.batch_stats)):
            what = f"A parameter or a moving statistic is NaN or infinite after step {self.position.step}"
            raise DivergenceError(self._explain(what, CAUSES))

    def save(self) -> None:
        """Writes a checkpoint, if the run has any."""
        if self.checkpoints is not None and self.saved is not self.position:
            self.saved = self.position
            best = self.best.best_epoch(self.position.history)
            best_step = None if best is None else self.position.epoch_steps[best]
            self.checkpoints.save(self.state, self.position, best_step)

    def restore_best(self) -> None:
        """Restores the arrays of the best epoch, if that is not the last."""
        epoch = self.best.best_epoch(self.position.history)
        if epoch is None or epoch == self.position.epoch - 1:
            return
        if self.best_arrays is not None:
            self.state = self.state.replace(**self.placement.replicate(self.best_arrays))
        elif self.checkpoints is not None:  # the run was resumed after its best epoch
            self.state, _ = self.checkpoints.load(self.position.epoch_steps[epoch], self.state)

    def rescue(self) -> bool:
        """Goes back to arrays worth keeping after an error: the best ones, else those at hand, else a checkpoint's.

        Returns:
            Whether there are any. With several processes there are none, as all would have to take part.
        """
        if not self.position.step or self.placement.mesh.is_multi_process:
            return False
        if self.best_arrays is not None:
            self.state = self.state.replace(**self.placement.replicate(self.best_arrays))
            return True
        leaves = jax.tree.leaves(self.state.replace(frozen_params={}))
        if not any(leaf.is_deleted() for leaf in leaves) and all_finite((self.state.params, self.state.batch_stats)):
            return True
        newest = None if self.checkpoints is None else self.checkpoints.newest()
        if newest is None or self.checkpoints is None:
            return False
        self.state, self.position = self.checkpoints.load(int(newest.name), self.state)
        return True

    def finish(self) -> Path | None:
        """Waits until the last checkpoint is written and returns it; None if there are none."""
        return None if self.checkpoints is None else self.checkpoints.finish()

    def best_checkpoint(self) -> Path | None:
        """Returns the checkpoint of the best epoch; None if there is none."""
        best = self.best.best_epoch(self.position.history)
        if best is None or self.checkpoints is None:
            return None
        return self.checkpoints.folder / str(self.position.epoch_steps[best])

    def _next(self, batches: Iterator[Any]) -> Any:
        with self.interruption.waiting():
            return next(batches, None)

    def _tell(self, event: Event) -> bool:
        answers = [callback(event) for callback in self.callbacks]
        for values in [answer for answer in answers if isinstance(answer, Mapping)]:
            if isinstance(event, StepEnd):  # the next step is under way, so that a resumed run would differ
                raise ValueError(f"A callback can set hyperparameters after an epoch, not after a step: {dict(values)}")
            set_there = with_hyperparameters(self.state.optimizer_state, values)
            self.state = self.state.replace(optimizer_state=set_there)
        return any(map(_is_true, answers))

    def _explain(self, what: str, why: str) -> str:
        """Returns the message of an error that ends the run."""
        saved = None if self.checkpoints is None else self.checkpoints.newest()
        return f"{what} (epoch {self.epoch + 1}). The last good checkpoint: {saved or 'none was written'}. {why}"


def _is_true(answer: Any) -> bool:
    """Whether an answer is True, also NumPy's or JAX's; other values, such as that of `list.append`, mean nothing."""
    is_bool = getattr(answer, "shape", None) == () and getattr(answer, "dtype", None) == np.bool_
    return answer is True or (is_bool and bool(answer))
