"""A progress display: a callback of `fit`."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from train.events import EpochEnd, Event, StepEnd


class ProgressDisplay:
    """A bar for the epoch at hand with loss, metrics, images per second and time left, and a line for every epoch.

    On stderr; where that is no terminal there are only the lines.
    """

    def __init__(self, epochs: int, batches: int | None, console: Console | None = None):
        """Nothing is shown before the context is entered.

        Args:
            epochs: Epochs of the run.
            batches: Batches in each; None where nobody knows.
            console: Where to show it.
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
        """Shows how far the run is.

        Args:
            event: What has just ended, a step or an epoch.
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
        steps = sorted(self._steps)[:-1]  # without the slowest, which holds a compilation if there was one
        seconds = sum(seconds for seconds, _ in steps)
        return f"{sum(examples for _, examples in steps) / seconds:.0f} images/s" if seconds else ""


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items() if not isinstance(value, list))
