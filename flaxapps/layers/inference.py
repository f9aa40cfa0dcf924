"""Layers of networks that `flaxapps.optimize` has made. Keras has no such kinds, and none of them is for training."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps import winograd
from flaxapps.activations import Activation, bias_and_activation
from flaxapps.cpu import at_least_float32
from flaxapps.layers.nested import Functional
from flaxapps.layers.shapes import Window, channel_count, pair
from flaxapps.layers.windows import WindowLayer
from flaxapps.recording import Shape, Weight, Weights


@dataclass(frozen=True)
class ImageByImage(Functional):
    """A model that computes one image of a batch after the other, so that what it works on stays in the cache."""


@dataclass(frozen=True)
class WinogradConv2D(WindowLayer):
    """Conv2D of stride 1 by Winograd's products; see `flaxapps.winograd`.

    Instead of the kernel it has the matrices it is transformed to: for 3x3 there are 36, which take four times its
    memory. Half precision is computed in float32.
    """

    filters: int
    kernel_size: Window
    padding: str = "valid"
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """As for Conv2D."""
        return (shapes[0][0], *self.output_size(shapes[0], self.kernel_size, 1), self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The matrices, and bias where it is used."""
        matrix = Weight((channel_count(shapes[0]), self.filters))
        return dict.fromkeys(winograd.product_names(pair(self.kernel_size)), matrix) | (
            {"bias": Weight((self.filters,), "zeros")} if self.use_bias else {}
        )

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convolution, bias, activation."""
        wide = at_least_float32(inputs[0])
        x = winograd.winograd_convolution(wide, weights, pair(self.kernel_size), self.padding)
        x = x.astype(inputs[0].dtype)
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Bfloat16Conv2D(WindowLayer):
    """Conv2D of kernel 1x1 whose factors are rounded to bfloat16; products are added up in float32."""

    filters: int
    strides: Window = (1, 1)
    padding: str = "valid"
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """As for Conv2D."""
        return (shapes[0][0], *self.output_size(shapes[0], 1, self.strides), self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((1, 1, channel_count(shapes[0]), self.filters))
        return {"kernel": kernel} | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Product, bias, activation."""
        down, across = pair(self.strides)
        x = inputs[0][:, ::down, ::across].astype(jnp.bfloat16)
        matrix = weights["kernel"][0, 0].astype(jnp.bfloat16)
        product = jax.lax.dot_general(x, matrix, (((3,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return bias_and_activation(product.astype(inputs[0].dtype), weights, self.activation)
