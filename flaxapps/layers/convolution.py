"""Convolutions, depthwise and separable ones among them."""

from dataclasses import dataclass

import jax

from flaxapps import ops
from flaxapps.activations import Activation, bias_and_activation
from flaxapps.graph import Shape, Weight, Weights
from flaxapps.layers.shapes import Window, channel_count, pair
from flaxapps.layers.windows import WindowLayer


@dataclass(frozen=True)
class Conv2D(WindowLayer):
    """Convolution; kernel of shape (height, width, input channels / groups, filters)."""

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    groups: int = 1
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((*pair(self.kernel_size), channel_count(shapes[0]) // self.groups, self.filters))
        return {"kernel": kernel} | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convolution, bias, activation."""
        x = ops.convolution(
            inputs[0], weights["kernel"], pair(self.strides), self.padding, pair(self.dilation_rate), self.groups
        )
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class SeparableConv2D(WindowLayer):
    """Depthwise convolution, then a 1x1 convolution, with nothing between them.

    depthwise_kernel has shape (height, width, input channels, multiplier), pointwise_kernel (1, 1, input channels x
    multiplier, filters).
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    depth_multiplier: int = 1
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """depthwise_kernel, pointwise_kernel, and bias where it is used."""
        channels = channel_count(shapes[0])
        kernels = {
            "depthwise_kernel": Weight((*pair(self.kernel_size), channels, self.depth_multiplier)),
            "pointwise_kernel": Weight((1, 1, channels * self.depth_multiplier, self.filters)),
        }
        return kernels | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Depthwise and pointwise convolution, bias, activation."""
        x = ops.depthwise_convolution(
            inputs[0], weights["depthwise_kernel"], pair(self.strides), self.padding, pair(self.dilation_rate)
        )
        x = ops.convolution(x, weights["pointwise_kernel"], (1, 1), "valid")
        return bias_and_activation(x, weights, self.activation)
