"""How far a command over many photos is, on stderr: a bar on a terminal, else a line now and then; a summary."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flaxapps.runtime.console import describe_devices
from flaxapps.runtime.distributed import is_first

SECONDS_BETWEEN_LINES = 30.0
SECONDS_WITHOUT_SUMMARY = 30.0  # a command that is over sooner says nothing to a file


class PhotoProgress:
    """Shows the progress of a command, in the first of several processes.

    On a terminal there is a bar with the count, the rate and the time left, and a summary at the end. In a file there
    is a line every half minute, and a summary of commands that took longer than that.

    Attributes:
        title: What is done, such as "Predicting".
        total: Number of photos.
        done: Photos so far, whether they could be read or not.
    """

    def __init__(self, title: str, total: int, clock: Callable[[], float] = time.monotonic):
        self.title, self.total = title, total
        self.done = 0
        self._clock = clock
        self._began = self._told = clock()
        self._shown = is_first()
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self._terminal = sys.stderr.isatty() and self._shown
        rate = TextColumn("{task.fields[rate]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._terminal)
        self._task = self._bar.add_task(title, total=total, rate="")

    def __enter__(self) -> Self:
        if self._terminal:
            self._tell(describe_devices())
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self.done and (self._terminal or self._clock() - self._began > SECONDS_WITHOUT_SUMMARY):
            self._tell(f"flaxapps: {self.summary()}")

    def advance(self, count: int = 1) -> None:
        """Counts photos that are done."""
        self.done += count
        self._bar.update(self._task, completed=self.done, rate=f"{self._rate():.1f}/s")
        now = self._clock()
        if not self._terminal and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            left = (self.total - self.done) / self._rate()
            self._tell(f"flaxapps: {self.title}: {self._counts()}, {self._rate():.1f}/s, {duration(left)} left")

    def fail(self, message: str) -> None:
        """Counts a photo that could not be read, and says why."""
        self._console.print(f"flaxapps: cannot read {message}")
        self.advance()

    def summary(self) -> str:
        """What was done, in how long, such as "500 photos in 12 s, 41.7/s"."""
        return f"{self._counts()} in {duration(self._clock() - self._began)}, {self._rate():.1f}/s"

    def _counts(self) -> str:
        return f"{self.done:,}{'' if self.done == self.total else f' of {self.total:,}'} photo{'s' * (self.total != 1)}"

    def _rate(self) -> float:
        return self.done / max(self._clock() - self._began, 1e-9)

    def _tell(self, line: str) -> None:
        if self._shown:
            self._console.print(line)


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(4.25), duration(75), duration(7260)
    ('4.2 s', '1:15 min', '2:01 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
