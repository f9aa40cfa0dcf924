"""Hyperparameters in the state of an optimizer, where `optax.inject_hyperparams` keeps them: read and set."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def learning_rate(optimizer_state: Any) -> dict[str, float]:
    """Returns the current learning rate if the optimizer stores one, as `optax.inject_hyperparams` does."""
    rates = [leaf for path, leaf in _named(optimizer_state) if f".{path}".endswith(".hyperparams.learning_rate")]
    return {"learning_rate": float(rates[0])} if len(rates) == 1 else {}


def with_hyperparameters(optimizer_state: Any, values: Mapping[str, float]) -> Any:
    """Returns the state of an optimizer with other hyperparameters.

    Args:
        optimizer_state: The state.
        values: New values by name, such as {"learning_rate": 1e-4}. One that occurs in several parts of an optimizer is
            set in each.

    Raises:
        ValueError: The optimizer does not store a hyperparameter, or computes it by a schedule.
    """
    named = _named(optimizer_state)
    for name, value in values.items():
        places = [index for index, (path, _) in enumerate(named) if f".{path}".endswith(f".hyperparams.{name}")]
        if not places or any(f".hyperparams_states.{name}." in f".{path}." for path, _ in named):
            why = "is a schedule" if places else "is not stored"
            raise ValueError(
                f"A callback sets {name!r}, which {why} in the optimizer: create it with numbers, as in "
                f"optax.inject_hyperparams(optax.adam)({name}={value})"
            )
        for index in places:
            path, leaf = named[index]
            named[index] = path, jax.device_put(jnp.asarray(value, leaf.dtype), leaf.sharding)
    return jax.tree.unflatten(jax.tree.structure(optimizer_state), [leaf for _, leaf in named])


def _named(optimizer_state: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(optimizer_state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
