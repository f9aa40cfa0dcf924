"""Exceptions of training."""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

NOTHING_LEFT = (
    "No finite parameters are left of the training. To keep those of the last epochs, give `checkpoint_dir`, or an "
    "`early_stopping` that restores the best."
)


class TrainingError(RuntimeError):
    """Training cannot continue.

    Attributes:
        result: The `FitResult` so far, with the best arrays if early stopping keeps them, else with the last finite
            ones (after NaN, those of the last checkpoint). None if there are none, or no step was taken.
    """

    result: Any = None


class DivergenceError(TrainingError):
    """The loss, a parameter or a moving statistic is NaN or infinite, though the images and labels are finite."""


class CheckpointError(TrainingError):
    """Checkpoints cannot be written, read, or resumed with the given arguments.

    Attributes:
        differences: How the run that resumes differs from the one of the checkpoints, line by line.
    """

    def __init__(self, message: str, differences: Sequence[str] = ()):
        super().__init__(message)
        self.differences = tuple(differences)


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C during `fit`, raised after the current step is finished and saved.

    It is not an `Exception`. In a notebook or at a prompt it is a KeyboardInterrupt, and the session continues. In a
    script it is also a SystemExit: if it is not caught, the process ends with the exit status of the signal, so that
    a script of several phases does not start the next.

    Attributes:
        result: The `FitResult` so far.
        checkpoint: Path of the last checkpoint; None without `checkpoint_dir`.
        code: Exit status of the signal, such as 130 for Ctrl-C.
    """

    code: str | int | None  # as of SystemExit

    def __init__(self, signal_number: int, result: Any, checkpoint: Path | None):
        super().__init__(128 + signal_number)
        self.signal = signal.Signals(signal_number)
        self.result = result
        self.checkpoint = checkpoint
        self.code = 128 + signal_number

    def __str__(self) -> str:
        saved = (
            f"saved in {self.checkpoint}: resume with checkpoint_dir=train.CheckpointFolder(..., resume=True)"
            if self.checkpoint
            else "not saved, but in the `result` of this exception"
        )
        return f"Training was interrupted by {self.signal.name}; {saved}"


class InterruptedScript(Interrupted, SystemExit):
    """An `Interrupted` that ends the process quietly if it is not caught."""


def interrupted(signal_number: int, result: Any, checkpoint: Path | None) -> Interrupted:
    """Creates the exception of an interrupted run, for a script or for an interactive session.

    Args:
        signal_number: The signal; SIGTERM ends interactive sessions too.
        result: The `FitResult` so far.
        checkpoint: Path of the last checkpoint, or None.
    """
    interactive = hasattr(sys, "ps1")  # set by Python's prompt, IPython and Jupyter
    kind = Interrupted if interactive and signal_number == signal.SIGINT else InterruptedScript
    return kind(signal_number, result, checkpoint)


def attach_result(error: BaseException, result: Any) -> None:
    """Gives an exception of any kind the `result` of the run that it ended.

    Args:
        error: The exception.
        result: The `FitResult` so far.
    """
    with suppress(AttributeError, TypeError):  # some take no attributes
        error.result = result  # type: ignore[attr-defined]  # only TrainingError declares it
        error.add_note("The training so far is in the `result` of this exception.")
