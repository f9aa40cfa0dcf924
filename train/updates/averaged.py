"""An average of the parameters over the steps (EMA), which is evaluated and returned in place of the last ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

POWER = 2 / 3  # of the warm-up, as in timm's ModelEmaV3


class AveragedState(NamedTuple):
    """What `averaged` keeps.

    Attributes:
        average: The averaged parameters, a tree like those that train.
        steps: Number of steps, (), int32.
        inner_state: State of the optimizer.
    """

    average: Any
    steps: jax.Array
    inner_state: Any


def averaged(
    optimizer: optax.GradientTransformation, decay: float = 0.9999, *, warmup: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer, so that an exponential moving average of the parameters is kept beside them.

    The optimizer takes the same steps as without. `fit` evaluates the averages, keeps those of the best epoch, returns
    and saves them. After every step they become `decay * average + (1 - decay) * parameters`; in the first step they
    are the parameters, as in Keras (`use_ema`) and timm (`ModelEmaV3`). Frozen parameters need no average. Moving
    statistics of BatchNormalization, which are averages already, stay the last ones, as in Keras.

    Args:
        optimizer: From Optax. Wrap the whole of it, since the average is of the parameters after all updates.
        decay: Weight of the average in every step, from 0 to below 1. The average covers about
            the last 1 / (1 - decay) steps.
        warmup: Whether the decay grows with the number of steps n, as 1 - n^(-2/3) up to `decay`: without, a short run
            ends near its first parameters (timm's `use_warmup`). False for Keras's average.

    Returns:
        The optimizer, for `fit`, `create_state` and `train_step`.

    Raises:
        ValueError: `decay` is out of range.

    >>> optimizer = averaged(optax.sgd(1.0), decay=0.5, warmup=False)
    >>> params = {"kernel": jnp.ones(1)}
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"kernel": jnp.ones(1)}, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> float(params["kernel"][0]), float(state.average["kernel"][0])
    (-1.0, -0.5)
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay should be from 0 to below 1, got {decay}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> AveragedState:
        # A copy: steps donate the parameters and this state, and no array can be donated twice.
        average = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return AveragedState(average, jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: AveragedState, params: Any = None, **extra: Any) -> tuple[Any, AveragedState]:
        if params is None:
            raise ValueError("averaged needs the parameters: optimizer.update(gradients, state, params)")
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        count = state.steps.astype(jnp.float32)
        current = jnp.minimum(1 - (1 + count) ** -POWER, decay) if warmup else jnp.where(count > 0, decay, 0.0)

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            share = current.astype(old.dtype)
            return share * old + (1 - share) * new

        following = jax.tree.map(average, state.average, optax.apply_updates(params, updates))
        return updates, AveragedState(following, state.steps + 1, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
