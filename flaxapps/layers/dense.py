"""The dense layer."""

from dataclasses import dataclass

import jax

from flaxapps import ops
from flaxapps.activations import Activation, bias_and_activation, get_activation
from flaxapps.layers.shapes import channel_count
from flaxapps.recording import Layer, Shape, Weight, Weights


@dataclass(frozen=True)
class Dense(Layer):
    """Matrix product over the last axis; kernel of shape (inputs, units)."""

    units: int
    activation: Activation | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        get_activation(self.activation or "linear")

    def output_shape(self, *shapes: Shape) -> Shape:
        """The last dimension becomes `units`."""
        return (*shapes[0][:-1], self.units)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((channel_count(shapes[0]), self.units))
        return {"kernel": kernel} | ({"bias": Weight((self.units,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Product, bias, activation."""
        return bias_and_activation(ops.dense(inputs[0], weights["kernel"]), weights, self.activation)
