"""What callbacks are told: a callback is any callable that takes these two kinds of events."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class StepEnd(NamedTuple):
    """A step whose values are known; that is while the next one is computed already.

    Attributes:
        step: Steps of the run so far, from 1 on.
        epoch: The epoch, from 0 on.
        batch: Batches of the epoch so far, from 1 on.
        examples: Examples in this batch.
        values: Loss and metrics of this batch.
    """

    step: int
    epoch: int
    batch: int
    examples: int
    values: Mapping[str, Any]


class EpochEnd(NamedTuple):
    """An epoch, with its validation.

    Attributes:
        step: Steps of the run so far.
        epoch: The epoch, from 0 on.
        values: Loss and metrics over the epoch, and `val_...` where there is validation data.
        history: The values of all epochs so far.
        variables: Of the model. The next step uses these arrays up: copy what you want to keep.
    """

    step: int
    epoch: int
    values: Mapping[str, Any]
    history: Mapping[str, list[Any]]
    variables: Mapping[str, Any]


Event = StepEnd | EpochEnd
Callback = Callable[[Event], Any]
