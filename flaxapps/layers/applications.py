"""Layers that Keras defines within keras.applications, not in keras.layers."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.regularization import MakeKey, Noise, dropout


@dataclass(frozen=True)
class CustomScaleLayer(Layer):
    """InceptionResNetV2's residual: the first input plus `scale` times the second."""

    several_inputs = True

    keras_module: ClassVar[str] = "keras.src.applications.inception_resnet_v2"
    scale: float

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape of both inputs."""
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(f"CustomScaleLayer takes two inputs of one shape, got {list(shapes)}")
        return shapes[0]

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0] + inputs[1] * self.scale


@dataclass(frozen=True)
class LayerScale(Layer):
    """ConvNeXt's trained factor per channel.

    Attributes:
        init_values: Initial value of the factors.
        projection_dim: Number of channels.
    """

    keras_module: ClassVar[str] = "keras.src.applications.convnext"
    init_values: float
    projection_dim: int

    def output_shape(self, *shapes: Shape) -> Shape:
        if channel_count(shapes[0]) != self.projection_dim:
            raise ValueError(f"LayerScale has projection_dim={self.projection_dim}, got {shapes[0][-1]} channels")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        return {"scale": Weight((self.projection_dim,), self.init_values)}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0] * weights["scale"].astype(inputs[0].dtype)


@dataclass(frozen=True)
class StochasticDepth(Noise):
    """In training, zeroes whole images of a ConvNeXt branch and scales the others by 1 / (1 - drop_path_rate)."""

    keras_module: ClassVar[str] = "keras.src.applications.convnext"
    drop_path_rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path_rate <= 1:
            raise ValueError(f"drop_path_rate is a fraction, from 0 to 1, got {self.drop_path_rate}")

    @property
    def strength(self) -> float:
        """The fraction of images."""
        return self.drop_path_rate

    def disturb(self, x: jax.Array, make_key: MakeKey) -> jax.Array:
        """Drop images."""
        return dropout(x, self.drop_path_rate, (None, *(1,) * (x.ndim - 1)), make_key)
