"""Signals that interrupt a run."""

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


class InterruptedRun(BaseException):
    """The run was interrupted between two steps. Not an `Exception`, which the code that reads data may catch."""


class Interruption:
    """Records which signal was received, if any."""

    received: int | None = None
    waits = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the context nothing changes the state, so a signal raises `InterruptedRun` at once."""
        self.waits = True
        try:
            if self.received is not None:
                raise InterruptedRun
            yield
        finally:
            self.waits = False

    def poll(self) -> None:
        """Called after every step and epoch; records a pending interruption."""


class SharedInterruption(Interruption):
    """Interruption of a multi-process run: a signal to one process ends all of them at the same step."""

    _looks = itertools.count()  # shared by all runs: JAX needs a number that only grows, the same in all processes

    def poll(self) -> None:
        """Asks JAX whether a process was preempted and all have reached the step at which they agreed to stop."""
        if multihost_utils.reached_preemption_sync_point(next(self._looks)):
            self.received = signal.SIGTERM


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Records SIGTERM and Ctrl-C instead of dying of them, within the context and in the main thread.

    A second signal has its usual effect, so that a hanging run can still be ended. In a multi-process run, SIGTERM is
    left to JAX's preemption service, which notifies the other processes, and Ctrl-C is sent on as SIGTERM. If that
    service is disabled, signals keep their usual effect.
    """
    shared = jax.process_count() > 1
    options: Any = jax.config  # JAX's options are not typed
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
        if interruption.waits and not shared:
            raise InterruptedRun

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
