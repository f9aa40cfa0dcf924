"""Optax's lookahead in `fit`: steps at the fast parameters, results at the slow ones."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class SlowState(NamedTuple):
    """What `keep_slow` keeps.

    Attributes:
        slow: The slow parameters, a tree like those that train, which are the fast ones.
        inner_state: State of `optax.lookahead`.
    """

    slow: Any
    inner_state: Any


@functools.lru_cache(maxsize=8)  # the same optimizer gives the same one, whose steps are compiled already
def keep_slow(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wraps what `optax.lookahead` returns, so that it takes plain parameters, and keeps the slow ones in its state.

    `fit` does so by itself, and evaluates, returns and saves the slow parameters. For your own loop with `create_state`
    and `train_step`, wrap it yourself.

    Args:
        optimizer: From `optax.lookahead`.

    Returns:
        An optimizer of the fast parameters.

    Raises:
        ValueError: The optimizer is updated without parameters.

    >>> optimizer = keep_slow(optax.lookahead(optax.sgd(1.0), sync_period=2, slow_step_size=0.5))
    >>> params = {"kernel": jnp.zeros(1)}
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"kernel": -jnp.ones(1)}, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> float(params["kernel"][0]), float(state.slow["kernel"][0])
    (1.0, 1.0)
    """

    def init(params: Any) -> SlowState:
        # A copy: steps donate the parameters and this state, and no array can be donated twice.
        slow = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return SlowState(slow, optimizer.init(optax.LookaheadParams(params, slow)))

    def update(updates: Any, state: SlowState, params: Any = None) -> tuple[Any, SlowState]:
        if params is None:
            raise ValueError("lookahead needs the parameters: optimizer.update(gradients, state, params)")
        both: Any = optax.LookaheadParams(params, state.slow)
        changes: Any
        with jax.numpy_dtype_promotion("standard"):  # Optax multiplies floats by a bool
            changes, inner_state = optimizer.update(updates, state.inner_state, both)
        return changes.fast, SlowState(optax.apply_updates(state.slow, changes.slow), inner_state)

    return optax.GradientTransformation(init, update)


def is_lookahead(optimizer: Any) -> bool:
    """Whether an optimizer is what `optax.lookahead` returns: its functions are of that module."""
    return bool(getattr(optimizer.init, "__module__", None) == optax.lookahead.__module__)


def check_outermost(optimizer_state: Any) -> None:
    """Checks that there is no lookahead inside another optimizer, which would change its updates.

    Args:
        optimizer_state: The state of any optimizer.

    Raises:
        ValueError: There is.
    """

    def stops(node: Any) -> bool:
        return isinstance(node, SlowState | optax.LookaheadState)

    if any(isinstance(node, optax.LookaheadState) for node in jax.tree.leaves(optimizer_state, is_leaf=stops)):
        raise ValueError(
            "optax.lookahead should be around the other optimizers, as in optax.lookahead(optax.chain(...), 5, 0.5)"
        )
