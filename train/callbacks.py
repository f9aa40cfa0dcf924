"""Callbacks of `fit`: events, progress display, CSV and TensorBoard logs."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flaxapps.train.history import write_csv


class StepEnd(NamedTuple):
    """The end of a step, reported once its values are known, while the next step already runs.

    Attributes:
        step: Steps of the run so far, counted from 1.
        epoch: Index of the epoch, from 0.
        batch: Batches of the epoch so far, counted from 1.
        examples: Examples in this batch.
        values: Loss and metrics of this batch.
    """

    step: int
    epoch: int
    batch: int
    examples: int
    values: Mapping[str, Any]


class EpochEnd(NamedTuple):
    """The end of an epoch, after its validation.

    Attributes:
        step: Steps of the run so far.
        epoch: Index of the epoch, from 0.
        values: Loss and metrics over the epoch, and `val_...` if there is validation data.
        history: The values of all epochs so far.
        variables: Variables of the model. The next step donates these arrays: copy what you want to keep.
    """

    step: int
    epoch: int
    values: Mapping[str, Any]
    history: Mapping[str, list[Any]]
    variables: Mapping[str, Any]


Event = StepEnd | EpochEnd
Callback = Callable[[Event], Any]


class ProgressDisplay:
    """Progress bar of the current epoch with loss, metrics, images per second and time left, and a line per epoch.

    It prints to stderr. If that is not a terminal, only the lines are printed.
    """

    def __init__(self, epochs: int, batches: int | None, console: Console | None = None):
        """Creates the bar, which is shown when the context is entered.

        Args:
            epochs: Epochs of the run.
            batches: Batches per epoch; None if unknown.
            console: Console to print to; None for stderr.
        """
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._epochs = epochs
        self._batches = batches
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=batches, values="")
        self._steps: list[tuple[float, int]] = []  # seconds and examples
        self._latest = time.perf_counter()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Updates the bar after a step, or prints the line of an epoch.

        Args:
            event: The step or epoch that has just ended.
        """
        if isinstance(event, StepEnd):
            self._show_step(event)
        else:
            self._show_epoch(event)

    def say(self, text: str) -> None:
        """Prints a line above the bar.

        Args:
            text: The line.
        """
        self._bar.console.print(text)

    def _show_step(self, event: StepEnd) -> None:
        now = time.perf_counter()
        self._steps.append((now - self._latest, event.examples))
        self._latest = now
        self._bar.update(
            self._task,
            description=f"Epoch {event.epoch + 1}/{self._epochs}",
            completed=event.batch,
            values=f"{_text(event.values)} {self._speed()}",
        )

    def _show_epoch(self, event: EpochEnd) -> None:
        self.say(f"Epoch {event.epoch + 1}/{self._epochs}: {_text(event.values)} {self._speed()}".rstrip())
        self._bar.reset(self._task, total=self._batches, values="")
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._steps = []
        self._latest = time.perf_counter()

    def _speed(self) -> str:
        steps = sorted(self._steps)[:-1]  # without the slowest, which may include compilation
        seconds = sum(seconds for seconds, _ in steps)
        return f"{sum(examples for _, examples in steps) / seconds:.0f} images/s" if seconds else ""


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items() if not isinstance(value, list))


@dataclass(frozen=True)
class CSVLog:
    """Writes the history to a CSV file after every epoch. The file is always complete, as it is replaced atomically.

    Attributes:
        path: Path of the CSV file.
    """

    path: str | os.PathLike[str]

    def __call__(self, event: Event) -> None:
        """Writes the history at the end of an epoch.

        Args:
            event: The step or epoch that has just ended; steps are ignored.
        """
        if isinstance(event, EpochEnd):
            write_csv(dict(event.history), self.path)


class TensorBoard:
    """Logs the loss of every step and the values of every epoch with tensorboardX (extra `flaxapps[train]`)."""

    def __init__(self, log_dir: str | os.PathLike[str]):
        """Stores the folder; files are opened when the run starts.

        Args:
            log_dir: Folder for the event files.
        """
        self._log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def __enter__(self) -> Self:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(self._log_dir)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def __call__(self, event: Event) -> None:
        """Writes the loss of a step, or all values of an epoch.

        Args:
            event: The step or epoch that has just ended.
        """
        if isinstance(event, EpochEnd):
            for name, value in event.values.items():
                if not isinstance(value, list):
                    self._writer.add_scalar(f"epoch/{name}", value, event.step)
            self._writer.flush()
        else:
            self._writer.add_scalar("step/loss", event.values["loss"], event.step)
