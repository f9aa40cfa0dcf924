"""Layers of channels_first models, as layers for channels_last images."""

import dataclasses
import warnings
from typing import Any

from flaxapps import layers
from flaxapps.graph.symbolic import Layer, Shape

# Classes that do not depend on the image layout: elementwise or per channel.
FOR_ANY_LAYOUT = (
    "Activation", "Add", "AlphaDropout", "Average", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise",
    "Identity", "CustomScaleLayer", "LeakyReLU", "Maximum", "Minimum", "Multiply", "ReLU", "Rescaling",
    "StochasticDepth", "Subtract",
)  # fmt: skip # kept on few lines on purpose
# Activations over the last axis. In Keras that is the width of channels_first images.
OVER_CHANNELS = ("softmax", "log_softmax", "sparsemax", "glu")
LAST_TO_FIRST = (0, 2, 3, 1)  # positions of the channels_last dimensions in a channels_first image


def is_image_preprocessing(layer: Layer) -> bool:
    """Whether the layer is an image preprocessing layer in Keras."""
    return isinstance(layer, layers.Resizing | layers.CenterCrop | layers.Augmentation)


def channels_last(layer: Layer, shapes: list[Shape], data_format: str | None, legacy: bool = False) -> Layer:
    """Convert a layer of a channels_first model to an equivalent one for channels_last images.

    Args:
        layer: A layer of a channels_first model.
        shapes: Shapes of its inputs, already channels_last.
        data_format: The data_format in its configuration.
        legacy: Whether a version before Keras 3 wrote it.

    Raises:
        ValueError: The layer takes channels_first images and has no channels_last equivalent.
    """
    if isinstance(layer, layers.Functional):  # its layers are converted individually
        return layer
    changed: dict[str, Any] = {"name": layer.name, "dtype": layer.dtype, "stored_class": layer.stored_class}
    stored = layers.ChannelsFirst(layer, trainable=layer.trainable, training_options=layer.training_options, **changed)
    if all(len(shape) != 4 for shape in shapes) and all(len(shape) != 4 for shape in layer.output_shapes(*shapes)):
        return layer
    if isinstance(layer, layers.Flatten):
        # Since 2.1.6, Keras moves channels last before it flattens if data_format is channels_first.
        return dataclasses.replace(layer, data_format=None) if data_format == "channels_first" else stored
    if data_format == "channels_last":
        return stored
    if isinstance(layer, layers.Rescaling):
        return layer if _is_per_channel(layer, shapes[0], legacy) else stored
    if _depends_on_layout(layer, shapes):
        if data_format is not None:
            raise _not_turned(layer)
        return stored
    axis = getattr(layer, "axis", None)
    if axis is None:
        return layer
    axes = [LAST_TO_FIRST.index(each % 4) for each in ((axis,) if isinstance(axis, int) else axis)]
    turned: Any = axes[0] if isinstance(axis, int) else tuple(sorted(axes))
    return dataclasses.replace(layer, axis=-1 if turned == 3 else turned)  # type: ignore[call-arg]  # these layers have an axis, which mypy does not see


def _is_per_channel(layer: layers.Rescaling, shape: Shape, legacy: bool) -> bool:
    """Whether a Rescaling has one number, or one per channel, rather than one per stored column.

    Keras 3 applies a list along the channels if the session's `image_data_format` was channels_first, which files do
    not record, else along the last stored axis, as tf.keras always does. The lengths decide, unless they are equal.
    """
    lists = [values for values in (layer.scale, layer.offset) if not isinstance(values, int | float)]
    if not lists:
        return True
    if legacy or any(not isinstance(value, int | float) for values in lists for value in values):
        return False
    channels, columns = shape[3], shape[2]
    fits = all(len(values) in (1, channels) for values in lists)
    if fits and columns == channels:
        warnings.warn(
            f"Layer {layer.name!r} of kind Rescaling has {channels} numbers for channels_first images of {channels} "
            f"channels and {columns} columns: they are applied to the channels",
            stacklevel=2,
        )
    return fits


def _depends_on_layout(layer: Layer, shapes: list[Shape]) -> bool:
    """Whether a layer depends on the stored layout in a way that changing its axis cannot express."""
    if {len(shape) for shape in shapes} != {4} or isinstance(layer, layers.Normalization):
        return True
    axis = getattr(layer, "axis", None)
    if getattr(layer, "activation", None) in OVER_CHANNELS or getattr(layer, "noise_shape", None) is not None:
        return True
    if axis is not None:
        return isinstance(axis, tuple) and len(axis) > 1
    return not (layer.class_name in FOR_ANY_LAYOUT or "2D" in layer.class_name or is_image_preprocessing(layer))


def _not_turned(layer: Layer) -> ValueError:
    return ValueError(f"Layer {layer.name!r} of kind {layer.class_name} cannot be turned from channels_first images")
