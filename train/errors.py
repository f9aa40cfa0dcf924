"""Exceptions of training."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class TrainingError(RuntimeError):
    """Training cannot continue."""


class CheckpointError(TrainingError):
    """Checkpoints cannot be written, read, or resumed with the given arguments.

    Attributes:
        differences: How the run that resumes differs from the one of the checkpoints, line by line.
    """

    def __init__(self, message: str, differences: Sequence[str] = ()):
        super().__init__(message)
        self.differences = tuple(differences)


class Interrupted(SystemExit):
    """SIGTERM or Ctrl-C during `fit`, raised after the current step is finished and saved.

    It is not an `Exception`. If it is not caught, the process ends with the exit status of the signal, so that a script
    of several phases does not start the next.

    Attributes:
        result: The `FitResult` so far.
        checkpoint: Path of the last checkpoint; None without `checkpoint_dir`.
    """

    def __init__(self, signal_number: int, result: Any, checkpoint: Path | None):
        super().__init__(128 + signal_number)
        self.signal = signal.Signals(signal_number)
        self.result = result
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        saved = (
            f"saved in {self.checkpoint}: resume with checkpoint_dir=train.CheckpointFolder(..., resume=True)"
            if self.checkpoint
            else "not saved"
        )
        return f"Training was interrupted by {self.signal.name}; {saved}"
