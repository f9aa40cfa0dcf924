"""Layers that `flaxapps.quantize` creates. They do not exist in Keras and are for inference only.

An int8 tensor holds values q that stand for the real numbers (q - zero_point) * scale. Zero points are part of the
description of the network, because images are padded with them; scales are arrays. Convolutions and dense layers take
int8 and return real numbers, in float32; XLA fuses what follows them, up to the next `Quantize`, into one pass.
"""

from dataclasses import dataclass

import jax

from flaxapps.graph.shapes import Window, channel_count, pair
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation
from flaxapps.layers.convolution import WindowLayer
from flaxapps.layers.pooling import AveragePooling2D
from flaxapps.layers.reshaping import ZeroPadding2D, sides
from flaxapps.ops import int8

SCALE = Weight((), "ones")


@dataclass(frozen=True)
class Quantize(Layer):
    """Rounding of real numbers to int8.

    Attributes:
        zero_point: The int8 value of 0; -128 if there are no negative numbers.
    """

    zero_point: int = 0

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The scale."""
        return {"scale": SCALE}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Round."""
        return int8.quantize(inputs[0], weights["scale"], self.zero_point)


@dataclass(frozen=True)
class Dequantize(Layer):
    """Real numbers, in float32, of an int8 tensor."""

    takes_integers = True

    zero_point: int = 0

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The scale."""
        return {"scale": SCALE}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convert."""
        return int8.dequantize(inputs[0], weights["scale"], self.zero_point)


@dataclass(frozen=True)
class QuantizedConv2D(WindowLayer):
    """Convolution of int8 images with an int8 kernel; the result is float32.

    The scale, one per filter, is that of the images times that of the kernel. The bias contains the correction for the
    zero point of the images.
    """

    takes_integers = True

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    activation: ActivationLike | None = None
    zero_point: int = 0

    def output_shape(self, *shapes: Shape) -> Shape:
        """As for Conv2D."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The kernel, the scale and the bias."""
        return _product_weights((*pair(self.kernel_size), channel_count(shapes[0]), self.filters))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convolution, scale, bias, activation."""
        window = pair(self.strides), self.padding, pair(self.dilation_rate)
        x = int8.convolution(inputs[0], weights["kernel"], *window, self.zero_point)
        return bias_and_activation(x * weights["scale"], weights, self.activation)


@dataclass(frozen=True)
class QuantizedDense(Layer):
    """Product of int8 vectors and an int8 kernel; scale and bias as for QuantizedConv2D, the result is float32."""

    takes_integers = True

    units: int
    activation: ActivationLike | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """The last dimension becomes `units`."""
        return (*shapes[0][:-1], self.units)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The kernel, the scale and the bias."""
        return _product_weights((channel_count(shapes[0]), self.units))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Product, scale, bias, activation."""
        x = int8.multiply(inputs[0], weights["kernel"]) * weights["scale"]
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class QuantizedDepthwiseConv2D(WindowLayer):
    """Depthwise convolution of int8 images; the kernel and the result are float32.

    The kernel contains the scale of the images, and the bias the correction for their zero point.
    """

    takes_integers = True

    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Window = (1, 1)
    activation: ActivationLike | None = None
    zero_point: int = 0

    def output_shape(self, *shapes: Shape) -> Shape:
        """As for DepthwiseConv2D."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, channel_count(shapes[0]) * self.depth_multiplier)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The kernel and the bias."""
        channels = channel_count(shapes[0])
        kernel = Weight((*pair(self.kernel_size), channels, self.depth_multiplier))
        return {"kernel": kernel, "bias": Weight((channels * self.depth_multiplier,), "zeros")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Depthwise convolution, bias, activation."""
        window = pair(self.strides), self.padding, pair(self.dilation_rate)
        x = int8.depthwise_convolution(inputs[0], weights["kernel"], *window, self.zero_point)
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class QuantizedAveragePooling2D(AveragePooling2D):
    """Mean over windows of int8 images, in int8 of the same scale."""

    zero_point: int = 0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pool."""
        window = pair(self.pool_size), pair(self.strides or self.pool_size), self.padding
        return int8.average_pool(inputs[0], *window, self.zero_point)


@dataclass(frozen=True)
class QuantizedZeroPadding2D(ZeroPadding2D):
    """Padding of int8 images with their zero point."""

    zero_point: int = 0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pad."""
        return int8.pad(inputs[0], sides(self.padding), self.zero_point)


def _product_weights(kernel: tuple[int, ...]) -> dict[str, Weight]:
    return {
        "kernel": Weight(kernel, "zeros", dtype="int8"),
        "scale": Weight(kernel[-1:], "ones"),
        "bias": Weight(kernel[-1:], "zeros"),
    }
