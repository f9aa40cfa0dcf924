"""Signals that ask a run to end."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Which signal came, if any."""

    received: int | None = None

    def look(self) -> None:
        """Once after every step and every epoch: a place where a run can end."""


class SharedInterruption(Interruption):
    """Of a run of several processes: a signal to one of them ends all, at the same step."""

    _looks = itertools.count()  # of the whole process: JAX wants a number that only grows, the same on all processes

    def look(self) -> None:
        """Asks JAX whether a process was told to end, and whether all have come to where they agreed to stop."""
        if multihost_utils.reached_preemption_sync_point(next(self._looks)):
            self.received = signal.SIGTERM


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Notes SIGTERM and Ctrl-C instead of dying of them, within the context and in the main thread.

    A second signal does what it did before, so that a run that hangs can still be ended. Where this is one of several
    processes, SIGTERM is left to JAX's preemption service, which tells the others, and Ctrl-C is sent on as SIGTERM; if
    that service is turned off, signals do what they always do.
    """
    shared = jax.process_count() > 1
    options: Any = jax.config  # JAX adds its options without types
    told = shared and options.jax_enable_preemption_service
    interruption = SharedInterruption() if told else Interruption()
    if threading.current_thread() is not threading.main_thread() or (shared and not told):
        yield interruption  # Python lets only the main thread handle signals
        return
    before = {number: signal.getsignal(number) for number in (SIGNALS if not shared else (signal.SIGINT,))}

    def note(number: int, frame: object) -> None:
        if shared:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            interruption.received = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
