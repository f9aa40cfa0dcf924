"""Layers that `flaxapps.optimize` creates. They do not exist in Keras and are for inference only."""

from dataclasses import dataclass

import jax

from flaxapps.graph.shapes import Window, channel_count, pair
from flaxapps.graph.symbolic import Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation
from flaxapps.layers.convolution import Conv2D, WindowLayer
from flaxapps.layers.dense import Dense
from flaxapps.ops import bfloat16, winograd
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
class Bfloat16Conv2D(Conv2D):
    """Convolution without groups of bfloat16 images and kernel, accumulated in float32."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        steps = pair(self.strides), self.padding, pair(self.dilation_rate)
        x = bfloat16.convolution(inputs[0], weights["kernel"], *steps)
        return bias_and_activation(x.astype(inputs[0].dtype), weights, self.activation)


@dataclass(frozen=True)
class Bfloat16Dense(Dense):
    """Dense layer of bfloat16 inputs and kernel, accumulated in float32."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = bfloat16.dense(inputs[0], weights["kernel"])
        return bias_and_activation(x.astype(inputs[0].dtype), weights, self.activation)
