"""Signals that ask a run to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Which signal came, if any."""

    received: int | None = None


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Notes SIGTERM and Ctrl-C instead of dying of them, within the context and in the main thread.

    A second signal does what it did before, so that a run that hangs can still be ended.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # Python lets only the main thread handle signals
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: object) -> None:
        interruption.received = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
