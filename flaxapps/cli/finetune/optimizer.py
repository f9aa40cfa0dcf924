"""The optimizer of a phase: its rule, schedule, clipping, decays and average, from the options of the command."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import optax

from flaxapps.model import Model
from flaxapps.train.updates.averaged import averaged
from flaxapps.train.updates.layerwise import layerwise_decay
from flaxapps.train.updates.weight_decay import weight_decay_mask

MOMENTUM = 0.9
STAIR = 0.1  # factor of the rate at each of --decay-at
Schedule = Callable[[Any], Any]
Rate = float | Schedule
# Those that subtract weight decay from the parameters take it themselves; for the others it goes into the gradients.
DECOUPLED: Mapping[str, Callable[..., optax.GradientTransformation]] = MappingProxyType(
    {"adamw": optax.adamw, "lamb": optax.lamb, "lion": optax.lion}
)
COUPLED: Mapping[str, Callable[[Rate], optax.GradientTransformation]] = MappingProxyType(
    {"sgd": lambda rate: optax.sgd(rate, momentum=MOMENTUM), "rmsprop": optax.rmsprop, "adam": optax.adam}
)
OPTIMIZERS = tuple(sorted((*COUPLED, *DECOUPLED)))


def build_optimizer(
    arguments: argparse.Namespace, model: Model, default: str, rate: Rate
) -> optax.GradientTransformation:
    """Builds the optimizer of a phase.

    Args:
        arguments: The completed arguments.
        model: The model, for layer-wise rates.
        default: Name of the optimizer if none is given.
        rate: The learning rate, or a schedule of it.
    """
    name, decay = arguments.optimizer or default, arguments.weight_decay
    parts = [optax.clip_by_global_norm(arguments.clip)] if arguments.clip else []
    if name in DECOUPLED:
        parts.append(DECOUPLED[name](rate, weight_decay=decay, mask=weight_decay_mask))
    else:
        parts += [optax.add_decayed_weights(decay, mask=weight_decay_mask)] if decay else []
        parts.append(COUPLED[name](rate))
    if arguments.layer_decay != 1:
        parts.append(layerwise_decay(model, arguments.layer_decay))
    optimizer = parts[0] if len(parts) == 1 else optax.chain(*parts)
    return averaged(optimizer, arguments.ema) if arguments.ema else optimizer


def schedule_rate(arguments: argparse.Namespace, rate: float, steps: int) -> Rate:
    """Returns the learning rate over the steps of a phase: a warm-up from 0, then the schedule.

    Args:
        arguments: The completed arguments.
        rate: The largest rate.
        steps: Steps of the phase.

    Returns:
        The rate itself if it is constant.
    """
    warmup = warmup_steps(arguments, steps)
    left = max(steps - warmup, 1)
    after: Any
    if arguments.schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, left)
    elif arguments.schedule == "linear":
        after = optax.linear_schedule(rate, 0.0, left)
    elif arguments.schedule == "staircase":
        after = optax.piecewise_constant_schedule(
            rate, {round(share * steps) - warmup: STAIR for share in arguments.decay_at}
        )
    elif not warmup:
        return rate
    else:
        after = optax.constant_schedule(rate)
    if warmup:
        after = optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])
    return after  # type: ignore[no-any-return]  # Optax is not typed here


def warmup_steps(arguments: argparse.Namespace, steps: int) -> int:
    """Returns the steps of the warm-up: --warmup is their number, or below 1 a share of all."""
    warmup: float = arguments.warmup
    return round(warmup * steps if warmup < 1 else warmup)


def wrong_settings(arguments: argparse.Namespace) -> list[str]:
    """Lists what is wrong with the options of the optimizer."""
    wrong = []
    for name, low, high in (
        ("weight_decay", 0, float("inf")), ("clip", 0, float("inf")), ("warmup", 0, float("inf")), ("ema", 0, 1),
        ("label_smoothing", 0, 1), ("layer_decay", 1e-9, 1),
    ):  # fmt: skip # kept on few lines on purpose
        value = getattr(arguments, name)
        if not low <= value <= high or (name == "ema" and value == 1):
            range_of = f"from {low:g} to {high:g}" if high < float("inf") else f"at least {low:g}"
            wrong.append(f"--{name.replace('_', '-')} should be {range_of}, got {value}")
    if any(not 0 < share < 1 for share in arguments.decay_at):
        wrong.append(f"--decay-at takes shares of the steps, between 0 and 1, got {arguments.decay_at}")
    if arguments.steps is not None and arguments.steps < 1:
        wrong.append(f"--steps should be at least 1, got {arguments.steps}")
    return wrong
