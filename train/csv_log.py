"""The history as a file that grows epoch by epoch: a callback of `fit`."""

import os
from dataclasses import dataclass

from train.events import EpochEnd, Event
from train.history import write_csv


@dataclass(frozen=True)
class CSVLog:
    """Writes the whole history at the end of every epoch, so that the file is whole at any time.

    Attributes:
        path: The file.
    """

    path: str | os.PathLike[str]

    def __call__(self, event: Event) -> None:
        """Writes the history at the end of an epoch.

        Args:
            event: What has just ended; a step is passed over.
        """
        if isinstance(event, EpochEnd):
            write_csv(dict(event.history), self.path)
