"""Activations as layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from flaxapps import activations
from flaxapps.activations import Activation as ActivationName
from flaxapps.activations import get_activation
from flaxapps.recording import Layer, Shape, Weight, Weights


@dataclass(frozen=True)
class Activation(Layer):
    """An activation function, by Keras's name or as a function of an array."""

    activation: ActivationName

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged, but for "glu", which halves the last dimension (Keras declares it unchanged all the same)."""
        get_activation(self.activation)
        if self.activation != "glu" or shapes[0][-1] is None:
            return shapes[0]
        if shapes[0][-1] % 2:
            raise ValueError(f'"glu" splits the last dimension in two, which must be even, got shape {shapes[0]}')
        return (*shapes[0][:-1], shapes[0][-1] // 2)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return get_activation(self.activation)(inputs[0])


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0) with options, which combine.

    Attributes:
        max_value: Cap of the output; None for none.
        negative_slope: Factor of (x - threshold) where x is not above the threshold.
        threshold: Values up to here count as negative; those above pass unchanged, so that the function jumps here.
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return activations.relu(inputs[0], self.negative_slope, self.max_value, self.threshold)


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """negative_slope * x below zero. Trap: the layer's default slope is 0.3, that of the name "leaky_relu" is 0.2."""

    negative_slope: float = 0.3

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return jax.nn.leaky_relu(inputs[0], self.negative_slope)


@dataclass(frozen=True)
class PReLU(Layer):
    """alpha * x below zero, with a trained alpha for every position of the input.

    Attributes:
        shared_axes: Dimensions, counted from 1 after the batch, along which there is one alpha: (1, 2) gives one per
            channel of an image. Without them the size of the input is fixed.
    """

    shared_axes: Sequence[int] | int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared_axes", self._shared())

    def _shared(self) -> tuple[int, ...]:
        return (self.shared_axes,) if isinstance(self.shared_axes, int) else tuple(self.shared_axes or ())

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        self.weights(*shapes)  # raises where the slopes depend on a free size
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The slopes, without a batch dimension."""
        sizes = [1 if axis in self._shared() else size for axis, size in enumerate(shapes[0][1:], start=1)]
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise ValueError(f"PReLU has a slope for every position of its input, whose size is free: {shapes[0]}")
        return {"alpha": Weight(known, "zeros")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function, as the difference of two relu, which fixes the gradient at zero."""
        (x,) = inputs
        return jax.nn.relu(x) - weights["alpha"].astype(x.dtype) * jax.nn.relu(-x)


@dataclass(frozen=True)
class ELU(Layer):
    """alpha * (exp(x) - 1) below zero."""

    alpha: float = 1.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return jax.nn.elu(inputs[0], self.alpha)


@dataclass(frozen=True)
class Softmax(Layer):
    """Softmax over an axis, or over several together; float32 inside.

    Trap: half precision comes back as half precision, as suits the middle of a network; the name "softmax", which ends
    classifiers, returns float32.
    """

    axis: int | Sequence[int] = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", self._axes())

    def _axes(self) -> int | tuple[int, ...]:
        return self.axis if isinstance(self.axis, int) else tuple(self.axis)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return activations.softmax(inputs[0], self._axes()).astype(inputs[0].dtype)
