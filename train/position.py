"""How far a run has come: with the state, all that is needed to go on."""

from typing import Any, NamedTuple

from train.history import History, Sums, sums_from_json, sums_to_json


class Position(NamedTuple):
    """Where a run stands; the next batch is number `batch` of epoch `epoch`, both from 0 on.

    Attributes:
        step: Steps of the run so far.
        epoch: Epochs that are complete.
        batch: Batches of the next epoch that are done.
        sums: Of loss and metrics over those.
        history: The values of the epochs that are complete.
        epoch_steps: The step that each of them ended with.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    sums: Sums = {}  # noqa: RUF012  (never changed)
    history: History = {}  # noqa: RUF012  (never changed)
    epoch_steps: tuple[int, ...] = ()

    def after_step(self) -> "Position":
        """One batch further."""
        return self._replace(step=self.step + 1, batch=self.batch + 1)

    def after_empty_batch(self) -> "Position":
        """One batch further, which had nothing to train on."""
        return self._replace(batch=self.batch + 1)

    def after_epoch(self, history: History) -> "Position":
        """At the start of the next epoch."""
        steps = (*self.epoch_steps, self.step)
        return Position(self.step, self.epoch + 1, history=history, epoch_steps=steps)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it, to the last bit."""
        return self._asdict() | {"sums": sums_to_json(self.sums), "epoch_steps": list(self.epoch_steps)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Position":
        """The way back from `to_json`."""
        return cls(**stored | {"sums": sums_from_json(stored["sums"]), "epoch_steps": tuple(stored["epoch_steps"])})
