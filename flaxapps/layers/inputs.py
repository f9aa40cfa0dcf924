"""Where arrays enter a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from flaxapps.config import floatx, standardize_data_format
from flaxapps.recording import Call, Layer, Node, Shape, Weights


@dataclass(frozen=True)
class InputLayer(Layer):
    """Where arrays enter a model; they are brought to `dtype`, in which the layers after it compute.

    Attributes:
        batch_shape: Shape with the batch dimension (None) first, channels last.
        data_format: How callers of the model lay out images here; "channels_first" is transposed on entering.
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
    """An input of a model to be.

    Args:
        shape: Shape without the batch dimension, such as (224, 224, 3); None where a dimension is free.
        dtype: Dtype the network computes in from here on; None takes `floatx` of keras.json (float32).
        name: Name of the layer; None takes the next `input_layer`.
        data_format: Layout of `shape` when it is an image; None takes `image_data_format` of keras.json.

    Returns:
        A node, channels last whatever `data_format`.

    >>> Input((224, 224, 3)).shape
    (None, 224, 224, 3)
    """
    data_format = standardize_data_format(data_format) if len(shape) == 3 else "channels_last"
    ordered = (*shape[1:], shape[0]) if data_format == "channels_first" else tuple(shape)
    return Call(InputLayer((None, *ordered), data_format, dtype=dtype or floatx(), name=name), ()).outputs[0]
