"""Conversion between `TrainState` and the checkpoint layout: variables as a model takes them, other arrays by name."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flaxapps.train.step.state import TrainState, averages_params


def optimizer_leaves(state: TrainState) -> dict[str, Any]:
    """Returns the arrays of the optimizer by path."""
    leaves = jax.tree_util.tree_leaves_with_path(state.optimizer_state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def to_stored(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a state into the variables to use and its other arrays, with the parameters that train if they differ."""
    key = jax.random.key_data(state.key)
    training = {"step": state.step, "key": key, "optimizer": optimizer_leaves(state)}
    return state.evaluation_variables, training | ({"params": state.params} if averages_params(state) else {})


def from_stored(state: TrainState, variables: Mapping[str, Any], training: Mapping[str, Any]) -> TrainState:
    """Rebuilds a state from stored arrays, in the structure of `state`."""

    def pick(tree: Any, into: Any) -> Any:
        if isinstance(into, dict):
            return {name: pick(tree[name], inner) for name, inner in into.items()}
        return tree

    leaves = [training["optimizer"][path] for path in optimizer_leaves(state)]
    joined: TrainState = state.replace(
        step=training["step"],
        params=pick(training.get("params", variables["params"]), state.params),
        frozen_params=pick(variables["params"], state.frozen_params),
        batch_stats=pick(variables.get("batch_stats", {}), state.batch_stats),
        optimizer_state=jax.tree.unflatten(jax.tree.structure(state.optimizer_state), leaves),
        key=jax.random.wrap_key_data(training["key"]),
    )
    return joined


def like(leaf: Any) -> Any:
    """Returns the shape, dtype and sharding of an array."""
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=leaf.sharding)
