"""Runs that are killed, ended or out of disk, each in a process of its own: the resumed run is the whole run."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.arrays import read_npz
from tests.faults import trained
from tests.faults.report import Row, at_most, tally

RESUMED = "resumed to the bit"
PAST_UNFINISHED = "resumed to the bit, past an unfinished checkpoint"
FULL = "clear error, then resumed to the bit"
SECONDS = 120  # after which a process is taken to hang
BYTES = (0, 100, 300, 1000)  # that a file may still have: none of a checkpoint's fit, some, or nearly all


class Runs:
    """The run that nothing happens to, and others like it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(trained.PRELOADED)  # a process then starts in a second
        self.number = 0
        process, told, _, final = self.start()
        told.recv()
        began = time.monotonic()
        process.join(SECONDS)
        self.event_seconds = (time.monotonic() - began) / trained.EVENTS
        self.whole = read_npz(final)

    def start(self, **options: Any) -> tuple[Any, Any, Path, Path]:
        """A new run: its process, the pipe it tells its events to, its folder, and where its parameters will be."""
        self.number += 1
        folder, final = self.folder / f"run{self.number}", self.folder / f"run{self.number}.npz"
        process, told = self.go_on(folder, final, **options)
        return process, told, folder, final

    def go_on(self, folder: Path, final: Path, **options: Any) -> tuple[Any, Any]:
        receiver, sender = self.context.Pipe(duplex=False)
        arguments = (str(folder), str(final), str(self.folder / "cache"), sender)
        process: Any = self.context.Process(target=trained.run, args=arguments, kwargs=options)
        process.start()
        sender.close()
        return process, receiver

    def resumed(self, folder: Path, final: Path) -> str:
        """What a second process makes of the run."""
        process, _ = self.go_on(folder, final)
        process.join(SECONDS)
        if process.exitcode != 0:
            return f"the resumed run ended with {process.exitcode}"
        if is_writing(folder):
            return f"leftovers in {sorted(os.listdir(folder))}"
        result = read_npz(final)
        if list(result) != list(self.whole):
            return f"other parameters: {list(result)}"
        other = [name for name in result if not np.array_equal(result[name], self.whole[name])]
        return f"other values of {', '.join(other)}" if other else RESUMED


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is being written, or was when the process ended."""
    return folder.exists() and any("tmp" in name for name in os.listdir(folder))


def wait_for(told: Any, events: int) -> None:
    for _ in range(events):
        told.recv()


def killed(runs: Runs, choose: random.Random, writing: bool) -> str:
    """SIGKILL at a random moment, or at the next at which a checkpoint is being written."""
    process, told, folder, final = runs.start()
    wait_for(told, choose.randint(0, trained.EVENTS - 5))
    time.sleep(choose.uniform(0, runs.event_seconds))
    while writing and process.is_alive() and not is_writing(folder):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join(SECONDS)
    if process.exitcode != -signal.SIGKILL:
        return f"ended with {process.exitcode} before it was killed"
    unfinished = is_writing(folder)
    outcome = runs.resumed(folder, final)
    return PAST_UNFINISHED if unfinished and outcome == RESUMED else outcome


def terminated(runs: Runs, choose: random.Random) -> str:
    process, told, folder, final = runs.start()
    wait_for(told, choose.randint(1, trained.EVENTS - 5))
    time.sleep(choose.uniform(0, runs.event_seconds))
    process.terminate()
    process.join(SECONDS)
    if process.exitcode != 128 + signal.SIGTERM:
        return f"ended with {process.exitcode}"
    if final.exists() or is_writing(folder):
        return "ended without having saved itself"
    return runs.resumed(folder, final)


def out_of_disk(runs: Runs, event: int, size: int) -> str:
    process, _, folder, final = runs.start(full_disk=(event, size))
    process.join(SECONDS)
    told = final.with_suffix(".error")
    if process.exitcode != 0 or not told.exists():
        return f"ended with {process.exitcode} and no error of a checkpoint"
    if "File too large" not in told.read_text() or f"last good one: {folder}" not in told.read_text():
        return f"an error that does not say it: {told.read_text()}"
    outcome = runs.resumed(folder, final)
    return FULL if outcome == RESUMED else outcome


def rows(count: int | None) -> Iterator[Row]:
    """The rows of this section."""
    with tempfile.TemporaryDirectory() as folder:
        runs, choose = Runs(Path(folder)), random.Random(4)
        times = range(at_most(20, count))
        tries = [(number, killed(runs, choose, writing=False)) for number in times]
        yield tally("SIGKILL at a random moment", tries, {RESUMED, PAST_UNFINISHED})
        times = range(at_most(20, count))
        tries = [(number, killed(runs, choose, writing=True)) for number in times]
        row = tally("SIGKILL while a checkpoint is written", tries, {RESUMED, PAST_UNFINISHED})
        if not row.outcomes.get(PAST_UNFINISHED):
            row = Row(row.tried, row.outcomes, (*row.wrong, "no kill came while a checkpoint was being written"))
        yield row
        tries = [(number, terminated(runs, choose)) for number in range(at_most(10, count))]
        yield tally("SIGTERM at a random moment", tries, {RESUMED})
        full = [(choose.randint(4, trained.EVENTS - 5), size) for size in BYTES for _ in range(3)]
        full = full[:: -(-len(full) // at_most(len(full), count))]
        yield tally(
            "disk full: no file longer than so many bytes",
            [((event, size), out_of_disk(runs, event, size)) for event, size in full],
            {FULL},
        )
