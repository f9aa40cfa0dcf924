"""Pooling over windows and over whole images."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import Window, check_images, pair
from flaxapps.graph.symbolic import Layer, Shape, Weights
from flaxapps.layers.convolution import WindowLayer
from flaxapps.ops import primitives as ops


@dataclass(frozen=True)
class _Pooling(WindowLayer):
    pool_size: Window = (2, 2)
    strides: Window | None = None
    padding: str = "valid"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic; strides default to the window."""
        size = self.output_size(shapes[0], self.pool_size, self.strides or self.pool_size)
        return (shapes[0][0], *size, shapes[0][3])


@dataclass(frozen=True)
class MaxPooling2D(_Pooling):
    """Maximum over windows; padding is ignored."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return ops.max_pool(inputs[0], pair(self.pool_size), pair(self.strides or self.pool_size), self.padding)


@dataclass(frozen=True)
class AveragePooling2D(_Pooling):
    """Mean over windows. With padding "same" it is over the pixels inside the image only, as in TensorFlow."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return ops.average_pool(inputs[0], pair(self.pool_size), pair(self.strides or self.pool_size), self.padding)


@dataclass(frozen=True)
class GlobalAveragePooling2D(Layer):
    """Mean over height and width."""

    keepdims: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, channels), or (batch, 1, 1, channels) with keepdims."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, 1, 1, channels) if self.keepdims else (batch, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.mean(inputs[0], (1, 2), keepdims=self.keepdims)


@dataclass(frozen=True)
class GlobalMaxPooling2D(GlobalAveragePooling2D):
    """Maximum over height and width."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jnp.max(inputs[0], (1, 2), keepdims=self.keepdims)
