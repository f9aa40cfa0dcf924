"""What BatchNormalization must know about the batch: the padding mask and the mapped axis over which it is sharded."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True, eq=False)
class Batch:
    """The global batch that the local examples belong to.

    Under jit a sharded array is the global batch already; under pmap an array is one device's shard.

    Attributes:
        mask: (examples,), bool; False for padding. None if there is no padding.
        axis_name: The mapped axis over which the batch is sharded; None if it is not.
    """

    mask: jax.Array | None = None
    axis_name: str | None = None

    def mean(self, x: jax.Array) -> jax.Array:
        """Computes the mean over all axes but the last and over all devices, without padding; 0 if all is padding.

        Args:
            x: (examples, ..., channels), floating.

        Returns:
            (channels,).
        """
        axes = tuple(range(x.ndim - 1))
        if self.mask is None:  # shards have equal sizes, so that the mean of means is exact
            mean = jnp.mean(x, axes)
            return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)
        counted = self.mask.reshape(-1, *(1,) * (x.ndim - 1))
        total = jnp.sum(jnp.where(counted, x, jnp.zeros_like(x)), axes)
        examples = jnp.sum(self.mask, dtype=jnp.int32)
        if self.axis_name is not None:
            total, examples = jax.lax.psum((total, examples), self.axis_name)
        return total / jnp.maximum(examples * math.prod(x.shape[1:-1]), 1).astype(x.dtype)
