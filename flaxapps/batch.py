"""The batch that a layer in training mode takes statistics of: which examples count, and who holds the others."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True, eq=False)
class Batch:
    """What the examples at hand are a part of.

    Under jit with a sharded batch an array is the whole batch already; under pmap it is one device's part.

    Attributes:
        mask: (examples,), bool; False where an example only fills the batch. None counts all.
        axis_name: The mapped axis whose devices hold the other parts; None where there are none.
    """

    mask: jax.Array | None = None
    axis_name: str | None = None

    def mean(self, x: jax.Array) -> jax.Array:
        """The mean over all axes but the last, of the examples that count, on all devices; 0 where none counts.

        Args:
            x: (examples, ..., channels), floating.

        Returns:
            (channels,).
        """
        axes = tuple(range(x.ndim - 1))
        if self.mask is None:  # every device holds as many
            mean = jnp.mean(x, axes)
            return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)
        counted = self.mask.reshape(-1, *(1,) * (x.ndim - 1))
        total = jnp.sum(jnp.where(counted, x, jnp.zeros_like(x)), axes)
        examples = jnp.sum(self.mask, dtype=jnp.int32)
        if self.axis_name is not None:
            total, examples = jax.lax.psum((total, examples), self.axis_name)
        return total / jnp.maximum(examples * math.prod(x.shape[1:-1]), 1).astype(x.dtype)
