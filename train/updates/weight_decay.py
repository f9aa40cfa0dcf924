"""The parameters that weight decay applies to."""

from collections.abc import Mapping
from typing import Any

import jax


def weight_decay_mask(params: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the mask of the parameters to decay: kernels, but no biases and nothing of a normalization.

    The rule is timm's: arrays of at least two axes, but no biases (which have several in an attention layer). Optax
    takes the function itself.

    Args:
        params: `variables["params"]`, or the trainable part of it.

    Returns:
        A tree of bools with the structure of `params`.

    >>> import optax
    >>> optimizer = optax.adamw(1e-3, weight_decay=0.05, mask=weight_decay_mask)
    >>> import jax.numpy as jnp
    >>> weight_decay_mask({"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}})
    {'conv': {'bias': False, 'kernel': True}}
    """
    mask: dict[str, Any] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and not path[-1].key.endswith(("bias", "scale")), params
    )
    return mask
