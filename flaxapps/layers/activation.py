"""Activations as layers."""

from dataclasses import dataclass

import jax

from flaxapps.activations import Activation as ActivationName
from flaxapps.activations import get_activation
from flaxapps.graph import Layer, Weights


@dataclass(frozen=True)
class Activation(Layer):
    """An activation function, by Keras's name or as a function of an array."""

    activation: ActivationName

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return get_activation(self.activation)(inputs[0])
