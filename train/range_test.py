"""Learning-rate range test: a short run with a growing rate, to choose the rate of the real one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from flaxapps.model import Model
from flaxapps.train.callbacks import Event, StepEnd
from flaxapps.train.errors import DivergenceError
from flaxapps.train.loop import fit

SMOOTHING = 0.98  # of the running mean of the loss; this and the next two are fastai's
DIVERGED = 4.0  # times the smallest loss
SAFETY = 10.0  # between the rate of the smallest loss, where the training is about to diverge, and the one suggested


class RangeTest(NamedTuple):
    """The result of a range test.

    Attributes:
        rates: Learning rate of every step.
        losses: Loss of every step.
        smoothed: Running mean of the losses.
        suggested: A tenth of the rate at the smallest of these.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float


class _Ended(Exception):  # noqa: N818  (it ends the run, and is no error)
    """The test has seen enough."""


class _Watch:
    """Collects the loss of every step until it has diverged."""

    def __init__(self, steps: int):
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._steps = steps
        self._mean = 0.0

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepEnd):
            return
        self.losses.append(event.values["loss"])
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * self.losses[-1]
        self.smoothed.append(self._mean / (1 - SMOOTHING ** len(self.losses)))
        if len(self.losses) == self._steps or self.smoothed[-1] > DIVERGED * min(self.smoothed):
            raise _Ended


def find_rate(
    model: Model,
    variables: Mapping[str, Any],
    data: Any,
    *,
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation],
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    **options: Any,
) -> RangeTest:
    """Trains with a rate that grows exponentially from step to step, until the loss diverges; then discards the result.

    The test is Smith's (https://arxiv.org/abs/1506.01186), with fastai's smoothing and its rule for a suggestion. Look
    at the losses, too (`flaxapps.train.figures.write_range_test`): a good rate is where they fall, well before the
    smallest.

    Args:
        model: As `fit` takes it.
        variables: As `fit` takes them.
        data: As `fit` takes it; read again if it has fewer batches than `steps`.
        optimizer: A function of a learning rate, such as `optax.adam`.
        lowest: First rate.
        highest: Last rate.
        steps: Number of steps.
        **options: Further arguments of `fit`, such as `frozen`, `preprocess` and `batch_size`.

    Returns:
        The rates, the losses and a suggestion.

    Raises:
        ValueError: The range, the number of steps or `optimizer` is not valid, or as for `fit`.
        TrainingError: The first loss is NaN or infinite, or there is no data, or an image or label is NaN or infinite.
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(f"rates should be 0 < lowest < highest, steps at least 2: got {lowest}, {highest} and {steps}")
    given: Any = optimizer
    if not callable(given):
        wanted = "a function of a learning rate, such as optax.adam"
        raise ValueError(f"optimizer should be {wanted}, got {given!r:.80}")
    growth = (highest / lowest) ** (1 / (steps - 1))
    watch = _Watch(steps)
    callbacks = options.get("callbacks") or ()
    callbacks = [callbacks] if callable(callbacks) else list(callbacks)
    options = {"verbose": False, **options, "callbacks": [*callbacks, watch]}
    try:
        # Data has at least one batch, so that as many epochs are enough.
        fit(
            model, variables, data, optimizer=optimizer(optax.exponential_decay(lowest, 1, growth)), epochs=steps,
            **options,
        )  # fmt: skip # kept on few lines on purpose
    except _Ended:
        pass
    except DivergenceError:
        if not watch.losses:
            raise
    rates = tuple(lowest * growth**step for step in range(len(watch.losses)))
    best = min(range(len(rates)), key=lambda step: watch.smoothed[step])
    return RangeTest(rates, tuple(watch.losses), tuple(watch.smoothed), rates[best] / SAFETY)


def rounded(rate: float) -> float:
    """Rounds a rate to one digit, as one would write it.

    >>> rounded(0.00316)
    0.003
    """
    return round(rate, -math.floor(math.log10(rate)))
