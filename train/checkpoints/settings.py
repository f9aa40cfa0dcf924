"""The settings that a resumed run may change: how it is trained on, described for a warning of what is new."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flaxapps.train.checkpoints.stored_state import optimizer_leaves
from flaxapps.train.step.extra_arguments import update
from flaxapps.train.step.state import TrainState

HYPERPARAMETERS = "hyperparams"  # what Optax calls the field of the state of `inject_hyperparams`
STEPS_COMPARED = 3


def describe_settings(state: TrainState, optimizer: optax.GradientTransformation, **settings: Any) -> dict[str, Any]:
    """Describes the settings of a run as JSON values.

    Args:
        state: The state before the first step.
        optimizer: The optimizer. Optax's are closures, which do not show their rates, so the description holds what
            its first steps are for gradients of 0.1: it differs for another rate, also in a schedule's first steps.
        **settings: Other settings, by name: functions are described by their names.
    """
    rates = {path: float(leaf) for path, leaf in optimizer_leaves(state).items() if _is_rate(path)}
    described = {name: _described(value) for name, value in settings.items()}
    return described | {"hyperparameters": rates, "first steps of the optimizer": _first_steps(state, optimizer)}


def settings_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists the settings that changed, a line each."""
    return [f"{name}: was {saved[name]}, is {value}" for name, value in now.items() if saved.get(name, value) != value]


def with_new_rates(state: TrainState, saved: Mapping[str, Any], start: TrainState) -> TrainState:
    """Replaces hyperparameters of a loaded state by those that were given another value.

    `optax.inject_hyperparams` keeps them in its state, so that a new rate would be lost. One that was not changed stays
    as it was saved, since a callback may have set it.

    Args:
        state: The loaded state.
        saved: The settings of the run that wrote it.
        start: The state before the first step of the run that resumes.
    """
    before = saved.get("hyperparameters", {})
    given = optimizer_leaves(start)
    changed = {path for path in given if _is_rate(path) and before.get(path, float(given[path])) != float(given[path])}
    leaves = [given[path] if path in changed else leaf for path, leaf in optimizer_leaves(state).items()]
    optimizer_state = jax.tree.unflatten(jax.tree.structure(state.optimizer_state), leaves)
    replaced: TrainState = state.replace(optimizer_state=optimizer_state)
    return replaced


def _is_rate(path: str) -> bool:
    return HYPERPARAMETERS in path.split(".")[:-1]


def _first_steps(state: TrainState, optimizer: optax.GradientTransformation) -> list[str] | None:
    """Returns the sum of the changes of each of the first steps; None where they fail."""
    params = jax.tree.map(lambda leaf: jnp.full((1,) * leaf.ndim, 0.5, leaf.dtype), state.params)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    sums, loss = [], jnp.asarray(0.5)
    with jax.numpy_dtype_promotion("standard"):
        try:
            optimizer_state = optimizer.init(params)
            for _ in range(STEPS_COMPARED):
                changes, optimizer_state = update(
                    optimizer, gradients, optimizer_state, params, loss, lambda params: (gradients, loss)
                )
                params = optax.apply_updates(params, changes)
                sums.append(f"{float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(changes))):.5g}")
        except (TypeError, ValueError):
            return None
    return sums


def _described(value: Any) -> Any:
    """Returns a JSON value that is equal for equal settings, in this process and in another."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(value[key]) for key in sorted(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _described(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return f"{type(value).__name__}({', '.join(f'{name}={each}' for name, each in fields.items())})"
    if isinstance(value, tuple | list):
        return [_described(each) for each in value]
    if isinstance(value, functools.partial):
        return [_described(value.func), _described(value.args), _described(value.keywords)]
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
