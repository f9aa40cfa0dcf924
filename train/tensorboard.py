"""TensorBoard event files: a callback of `fit`."""

import os
from types import TracebackType
from typing import Any, Self

from train.events import EpochEnd, Event


class TensorBoard:
    """Writes the loss of every step and the values of every epoch with tensorboardX, of the extra `flaxapps[train]`."""

    def __init__(self, log_dir: str | os.PathLike[str]):
        """Nothing is written before the run starts.

        Args:
            log_dir: A folder for the event files.
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
            event: What has just ended.
        """
        if isinstance(event, EpochEnd):
            for name, value in event.values.items():
                if not isinstance(value, list):
                    self._writer.add_scalar(f"epoch/{name}", value, event.step)
            self._writer.flush()
        else:
            self._writer.add_scalar("step/loss", event.values["loss"], event.step)
