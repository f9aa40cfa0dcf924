"""Layers that `flaxapps.optimize` creates. They do not exist in Keras and are for inference only."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import Window, channel_count, pair
from flaxapps.graph.symbolic import Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation
from flaxapps.layers.convolution import WindowLayer
from flaxapps.ops import winograd
from flaxapps.ops.cpu_windows import at_least_float32


@dataclass(frozen=True)
class WinogradConv2D(WindowLayer):
    """Winograd convolution with stride 1; see `flaxapps.ops.winograd`.

    Its arrays are the transformed kernel: 36 matrices for 3x3, which take four times the memory. Half precision is
    computed in float32.
    """

    filters: int
    kernel_size: Window
    padding: str = "valid"
    activation: ActivationLike | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (shapes[0][0], *self.output_size(shapes[0], self.kernel_size, 1), self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        matrix = Weight((channel_count(shapes[0]), self.filters))
        return dict.fromkeys(winograd.product_names(pair(self.kernel_size)), matrix) | (
            {"bias": Weight((self.filters,), "zeros")} if self.use_bias else {}
        )

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        wide = at_least_float32(inputs[0])
        x = winograd.winograd_convolution(wide, weights, pair(self.kernel_size), self.padding)
        x = x.astype(inputs[0].dtype)
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Bfloat16Conv2D(WindowLayer):
    """1x1 convolution of bfloat16 inputs and kernel, accumulated in float32."""

    filters: int
    strides: Window = (1, 1)
    padding: str = "valid"
    activation: ActivationLike | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (shapes[0][0], *self.output_size(shapes[0], 1, self.strides), self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        kernel = Weight((1, 1, channel_count(shapes[0]), self.filters))
        return {"kernel": kernel} | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        down, across = pair(self.strides)
        x = inputs[0][:, ::down, ::across].astype(jnp.bfloat16)
        matrix = weights["kernel"][0, 0].astype(jnp.bfloat16)
        product = jax.lax.dot_general(x, matrix, (((3,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return bias_and_activation(product.astype(inputs[0].dtype), weights, self.activation)
