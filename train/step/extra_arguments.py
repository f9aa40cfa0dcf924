"""What optimizers of Optax can ask for beside gradients: the loss, and functions that compute it elsewhere."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def update(
    optimizer: optax.GradientTransformation,
    gradients: Any,
    optimizer_state: Any,
    params: Any,
    value: jax.Array,
    differentiate: Callable[[Any], tuple[Any, jax.Array]],
) -> tuple[Any, Any]:
    """Calls `update` of an optimizer with whatever it takes beside gradients; the rest is not computed.

    These are "value" (for Polyak's rule, MoMo and `reduce_on_plateau`), "grad" and "value_fn" (line searches and
    L-BFGS), "grad_fn" (SAM with `opaque_mode=True`) and "obj_fn" (Sophia).

    Args:
        optimizer: From Optax.
        gradients: The gradients at `params`.
        optimizer_state: Its state.
        params: The trainable parameters.
        value: The mean loss of the batch at `params`, ().
        differentiate: Computes gradients and loss of the batch at other parameters.

    Returns:
        The changes of the parameters, and the next state.
    """

    @jax.custom_jvp  # under pmap, JAX would differentiate the sum over devices once for each of them
    def loss(params: Any) -> jax.Array:
        return differentiate(params)[1]

    @loss.defjvp
    def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        slopes, there = differentiate(primals[0])
        products = jax.tree.map(lambda slope, tangent: jnp.sum(slope * tangent), slopes, tangents[0])
        return there, jnp.asarray(sum(jax.tree.leaves(products)), there.dtype)

    def value_fn(params: Any, grad_fn: Any = None, obj_fn: Any = None) -> jax.Array:
        del grad_fn, obj_fn  # line searches refuse arguments that neither they nor this function take
        there: jax.Array = loss(params)
        return there

    extra = {"value": value, "grad": gradients, "value_fn": value_fn, "obj_fn": loss}
    grad_fn = {"grad_fn": lambda params, _: differentiate(params)[0]}
    call: Any = optax.with_extra_args_support(optimizer).update
    try:
        changes, following = call(gradients, optimizer_state, params, **extra, **grad_fn)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        changes, following = call(gradients, optimizer_state, params, **grad_fn)  # SAM takes no other, nor in a chain
    return changes, following
