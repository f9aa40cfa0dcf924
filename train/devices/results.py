"""Where the arrays of a result are: where the variables were given, or where the caller asks."""

from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.train.step.state import TrainState


def place_result(state: TrainState, given: Any, place: Any = None) -> TrainState:
    """Places a state after a run, so that its variables can be used with what those before the run were used with.

    Args:
        state: The state, on the devices of the run.
        given: The variables or the state that the run started from. NumPy arrays stand for the default device.
        place: A device or sharding to use instead; None for those of `given`.

    Returns:
        The state with each of its variables where the given one was. Where these were all on one device, or replicated
        alike, so are the optimizer's arrays.
    """
    variables = given.variables if isinstance(given, TrainState) else given
    homes = {_key(path): _home(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    common = set(homes.values())
    if place is None and len(common) == 1 and all(map(_is_whole, jax.tree.leaves(variables))):
        (place,) = common
    if place is not None:
        return jax.device_put(state, place)  # type: ignore[no-any-return, unused-ignore]  # JAX does not type it

    def at_home(collection: str, tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(leaf, homes[f"{collection}/{_key(path)}"]), tree
        )

    placed: TrainState = state.replace(
        params=at_home("params", state.params),
        frozen_params=at_home("params", state.frozen_params),
        batch_stats=at_home("batch_stats", state.batch_stats),
    )
    return placed


def _key(path: Any) -> str:
    return "/".join(str(part.key) for part in path)


def _home(leaf: Any) -> Any:
    return leaf.sharding if isinstance(leaf, jax.Array) else jnp.zeros(()).sharding


def _is_whole(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_replicated
