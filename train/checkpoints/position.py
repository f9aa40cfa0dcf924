"""Progress of a run: step, epoch, batch and history."""

from typing import Any, NamedTuple

from flaxapps.train.history import History, Sums, sums_from_json, sums_to_json


class Position(NamedTuple):
    """Progress of a run. The next batch is number `batch` of epoch `epoch`, both counted from 0.

    Attributes:
        step: Steps of the run so far.
        epoch: Completed epochs.
        batch: Completed batches of the current epoch.
        sums: Sums of loss and metrics over those batches.
        history: Values of the completed epochs.
        epoch_steps: Step at the end of each completed epoch.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    sums: Sums = {}  # noqa: RUF012  (never mutated)
    history: History = {}  # noqa: RUF012  (never mutated)
    epoch_steps: tuple[int, ...] = ()

    def after_step(self) -> "Position":
        """Returns the position after one more step."""
        return self._replace(step=self.step + 1, batch=self.batch + 1)

    def after_empty_batch(self) -> "Position":
        """Returns the position after a batch without examples, which takes no step."""
        return self._replace(batch=self.batch + 1)

    def after_epoch(self, history: History) -> "Position":
        """Returns the position at the start of the next epoch."""
        steps = (*self.epoch_steps, self.step)
        return Position(self.step, self.epoch + 1, history=history, epoch_steps=steps)

    def to_json(self) -> dict[str, Any]:
        """Converts to JSON values, without loss of precision."""
        return self._asdict() | {"sums": sums_to_json(self.sums), "epoch_steps": list(self.epoch_steps)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Position":
        """Inverse of `to_json`."""
        return cls(**stored | {"sums": sums_from_json(stored["sums"]), "epoch_steps": tuple(stored["epoch_steps"])})
