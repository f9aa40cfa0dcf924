"""Inputs of a model: `Input` and its layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from flaxapps.graph.symbolic import Call, Layer, Node, Shape, Weights
from flaxapps.runtime.keras_settings import floatx, standardize_data_format


@dataclass(frozen=True)
class InputLayer(Layer):
    """An input of a model. It casts arrays to `dtype`, in which the following layers compute.

    Attributes:
        batch_shape: Shape with the batch dimension (None) first, channels last.
        data_format: Layout of the images that callers pass; "channels_first" images are transposed at the boundary.
    """

    batch_shape: Shape
    data_format: str = "channels_last"

    def output_shape(self, *shapes: Shape) -> Shape:
        """The batch shape."""
        return self.batch_shape

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Casts the input."""
        return inputs[0].astype(self.dtype or "float32")


def Input(  # noqa: N802 (Keras's name)
    shape: Sequence[int | None], *, dtype: str | None = None, name: str | None = None, data_format: str | None = None
) -> Node:
    """Creates a symbolic input, on which layers can be called.

    Args:
        shape: Shape without the batch dimension, such as (224, 224, 3); None for free dimensions.
        dtype: Compute dtype of the following layers; None takes `floatx` of keras.json (float32 by default).
        name: Name of the layer; None takes the next `input_layer`.
        data_format: Layout of `shape` if it is that of an image; None takes `image_data_format` of keras.json.

    Returns:
        A node, always with the channels last.

    >>> Input((224, 224, 3)).shape
    (None, 224, 224, 3)
    """
    data_format = standardize_data_format(data_format) if len(shape) == 3 else "channels_last"
    ordered = (*shape[1:], shape[0]) if data_format == "channels_first" else tuple(shape)
    return Call(InputLayer((None, *ordered), data_format, dtype=dtype or floatx(), name=name), ()).outputs[0]
