"""Layers that Keras defines inside single networks of keras.applications, not in keras.layers."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from flaxapps.layers.regularization import MakeKey, Noise, dropout
from flaxapps.layers.shapes import channel_count
from flaxapps.recording import Layer, Shape, Weight, Weights


@dataclass(frozen=True)
class CustomScaleLayer(Layer):
    """InceptionResNetV2's residual: the first input plus `scale` times the second."""

    keras_module: ClassVar[str] = "keras.src.applications.inception_resnet_v2"
    scale: float

    def output_shape(self, *shapes: Shape) -> Shape:
        """That of both inputs."""
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(f"CustomScaleLayer takes two inputs of one shape, got {list(shapes)}")
        return shapes[0]

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """The scaled sum."""
        return inputs[0] + inputs[1] * self.scale


@dataclass(frozen=True)
class LayerScale(Layer):
    """ConvNeXt's factor for each channel, trained.

    Attributes:
        init_values: Keras's initial value of the factors; `Model.init_variables` starts at 1.
        projection_dim: Number of channels.
    """

    keras_module: ClassVar[str] = "keras.src.applications.convnext"
    init_values: float
    projection_dim: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        if channel_count(shapes[0]) != self.projection_dim:
            raise ValueError(f"LayerScale has projection_dim={self.projection_dim}, got {shapes[0][-1]} channels")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The factors."""
        return {"scale": Weight((self.projection_dim,), "ones")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Multiplies every channel."""
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
        """Drops images."""
        return dropout(x, self.drop_path_rate, (None, *(1,) * (x.ndim - 1)), make_key)
