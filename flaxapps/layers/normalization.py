"""Normalization layers."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph import Layer, Shape, Weight, Weights
from flaxapps.layers.shapes import channel_count


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """Normalization over all axes but the last, with the biased variance, in float32.

    Inference and frozen layers use the moving statistics; training uses those of the batch (under jit with a sharded
    batch: of the global batch) and moves the others by 1 - momentum towards them.
    """

    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        if self.axis not in (-1, len(shapes[0]) - 1):
            raise ValueError(f"Only the last axis can be normalized, got axis={self.axis} for shape {shapes[0]}")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias, and the moving mean and var."""
        shape = (channel_count(shapes[0]),)
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        trained |= {"bias": Weight(shape, "zeros")} if self.center else {}
        return trained | {"mean": Weight(shape, "zeros", "batch_stats"), "var": Weight(shape, "ones", "batch_stats")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes with the moving statistics."""
        return self._normalize(inputs[0], weights, weights["mean"], weights["var"])

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = inputs[0].astype(weights["mean"].dtype)
        axes = tuple(range(x.ndim - 1))
        batch = {"mean": jnp.mean(x, axes), "var": jnp.var(x, axes)}
        moved = {leaf: weights[leaf] * self.momentum + batch[leaf] * (1 - self.momentum) for leaf in batch}
        return self._normalize(inputs[0], weights, batch["mean"], batch["var"]), moved

    def _normalize(self, x: jax.Array, weights: Weights, mean: jax.Array, var: jax.Array) -> jax.Array:
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.scale:
            factor = factor * weights["scale"]
        offset = -mean * factor
        if self.center:
            offset = offset + weights["bias"]
        return (x.astype(factor.dtype) * factor + offset).astype(x.dtype)
