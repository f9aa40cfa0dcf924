"""What stops a training run."""

import signal
from pathlib import Path
from typing import Any


class TrainingError(RuntimeError):
    """A run that cannot go on."""


class CheckpointError(TrainingError):
    """Checkpoints that cannot be written, read, or continued with what was given."""


class Interrupted(SystemExit):
    """SIGTERM or Ctrl-C during `fit`, after the step at hand was finished and saved.

    It is no `Exception`: where nobody catches it the process ends with the exit status of the signal, so that a script
    of several phases does not go on to the next.

    Attributes:
        result: The `FitResult` up to here.
        checkpoint: Where the run was saved; None without `checkpoint_dir`.
    """

    def __init__(self, signal_number: int, result: Any, checkpoint: Path | None):
        super().__init__(128 + signal_number)
        self.signal = signal.Signals(signal_number)
        self.result = result
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        saved = f"saved in {self.checkpoint}, resume=True continues" if self.checkpoint else "not saved"
        return f"Training was interrupted by {self.signal.name}; {saved}"
