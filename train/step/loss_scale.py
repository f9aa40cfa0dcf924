"""Dynamic loss scaling: float16 gradients below 6e-8 would be zero, so the loss is multiplied before them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

INITIAL_SCALE = 2.0**15  # these two are Keras's (keras/src/optimizers/loss_scale_optimizer.py)
GROWTH_STEPS = 2000


class LossScaleState(NamedTuple):
    """What `dynamic_loss_scale` keeps.

    Attributes:
        scale: Factor of the loss, (), float32.
        finite_steps: Steps with finite gradients since the scale changed, (), int32.
        inner_state: State of the optimizer.
    """

    scale: jax.Array
    finite_steps: jax.Array
    inner_state: Any


@functools.lru_cache(maxsize=8)  # the same optimizer gives the same one, whose steps are compiled already
def dynamic_loss_scale(
    optimizer: optax.GradientTransformation,
    initial_scale: float = INITIAL_SCALE,
    growth_steps: int = GROWTH_STEPS,
) -> optax.GradientTransformation:
    """Wraps an optimizer, so that `train_step` scales the loss and skips steps with NaN or infinite gradients.

    As in Keras's LossScaleOptimizer, such a step halves the scale and changes nothing else; it is doubled after
    `growth_steps` steps without one. `fit` wraps the optimizer of models that compute in float16. bfloat16 needs no
    scaling, as it has the exponents of float32.

    Args:
        optimizer: From Optax. It gets gradients of the loss itself.
        initial_scale: First factor of the loss.
        growth_steps: Steps with finite gradients after which the scale is doubled.

    Returns:
        The optimizer, for `create_state`, `train_step` and `fit`.

    >>> optimizer = dynamic_loss_scale(optax.sgd(0.1))
    >>> float(optimizer.init({"kernel": jnp.ones(2)}).scale)
    32768.0
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> LossScaleState:
        return LossScaleState(jnp.asarray(initial_scale, jnp.float32), jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: LossScaleState, params: Any = None, **extra: Any) -> tuple[Any, LossScaleState]:
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(updates)]))

        def if_finite(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda one, other: jnp.where(finite, one, other), new, old)

        changes, inner_state = inner.update(updates, state.inner_state, params, **extra)
        steps = jnp.where(finite, state.finite_steps + 1, 0)
        grows = steps == growth_steps
        scale = jnp.where(finite, jnp.where(grows, 2 * state.scale, state.scale), state.scale / 2)
        following = LossScaleState(scale, jnp.where(grows, 0, steps), if_finite(inner_state, state.inner_state))
        return if_finite(changes, jax.tree.map(jnp.zeros_like, changes)), following

    return optax.GradientTransformationExtraArgs(init, update)


def scale_of_loss(optimizer_state: Any) -> jax.Array | None:
    """Returns the factor of the loss that an optimizer asks for; None if it asks for none."""
    return optimizer_state.scale if isinstance(optimizer_state, LossScaleState) else None
