"""Layers and calls as the Keras that wrote a file means them."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flaxapps import layers
from flaxapps.graph.shapes import in_layout
from flaxapps.graph.symbolic import Call, Layer, Node, Shape
from flaxapps.saving.dialects.keras1 import WANTED_SHAPE
from flaxapps.saving.dialects.structure import shortened, stored_shape
from flaxapps.saving.dialects.version import Version
from flaxapps.saving.entries import layer_name
from flaxapps.saving.from_config import KINDS, default_mode, hashable
from flaxapps.saving.layouts import channels_last
from flaxapps.saving.older_inputs import as_in_version
from flaxapps.saving.transposed import with_output_padding

Entry = Mapping[str, Any]


class UnknownInputShape(ValueError):  # noqa: N818 (a condition that the caller can resolve, not an error of the file)
    """A Sequential model does not store the shape of its input."""


class Conventions:
    """What depends on the version of Keras and on its image layout.

    Attributes:
        channels_first: Whether the Keras model takes channels_first images.
        version: The Keras that wrote it.
        legacy: Whether the version is before Keras 3.
        whole: Whether an input has an integer dtype.
        lacks_output_padding: Whether the version does not store output_padding of transposed convolutions.
    """

    def __init__(self, channels_first: bool, version: Version, whole: bool = False):
        self.whole = whole
        self.channels_first = channels_first
        self.version = version
        self.legacy = version.major < 3
        self.lacks_output_padding = version.known and (3, 0, 0) <= version.numbers < (3, 15, 0)

    def padded(self, layer: Layer, nodes: Sequence[Node], wanted: Sequence[int | None] | None) -> Layer:
        """Add output_padding, which Keras 3.0 to 3.14 did not store, from the output shape in the file."""
        if not (nodes and self.lacks_output_padding):
            return layer
        if wanted and self.channels_first and len(wanted) == 4:
            wanted = [wanted[axis] for axis in (0, 2, 3, 1)]
        return with_output_padding(layer, nodes[0].shape, tuple(wanted) if wanted else None)

    def turned(self, layer: Layer, nodes: Sequence[Node], entry: Entry) -> Layer:
        """Convert the layer to channels_last images if the Keras model has channels_first ones."""
        if self.channels_first and nodes:
            layer = channels_last(
                layer, [node.shape for node in nodes], entry["config"].get("data_format"), self.legacy
            )
        elif type(layer) is layers.Rescaling and nodes and not self.legacy:
            layer = _over_channels(layer, nodes[0].shape)
        if type(layer) is layers.BatchNormalization and nodes and layer.axis == len(nodes[0].shape) - 1:
            return dataclasses.replace(layer, axis=-1)  # tf.keras counts from the front; folding expects -1
        return layer

    def check_wanted_shape(self, entry: Entry, call: Call) -> None:
        """Check that the output shape is the one stored by Keras 1.

        Raises:
            ValueError: The shapes differ.
        """
        wanted = entry["config"].get(WANTED_SHAPE)
        if wanted is None:
            return
        batch, *sizes = stored_shape(wanted, "output_shape") or [None]
        found = in_layout(call.output_shapes[0], self.channels_first)
        if len(sizes) != len(found) - 1 or any(
            None not in pair and pair[0] != pair[1] for pair in zip(sizes, found[1:], strict=True)
        ):
            raise ValueError(f"output_shape is {(batch, *sizes)}, but later versions of Keras give {found}")

    def taken(self, layer: Layer, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """The inputs of the layer, adapted for its version; see `as_in_version`."""
        return tuple(as_in_version(layer, nodes, self.version)) if nodes else nodes

    def mode(self, layer: Layer, options: Mapping[str, Any]) -> bool | None:
        """The fixed `training` mode of a call, or None. Recorded defaults do not fix the mode.

        Trap: in Keras 3 the mode of the model overrides `training=True` of a call, so `predict` is deterministic.
        Before, such a call was always in training mode: BatchNormalization used batch statistics and Dropout dropped
        values, also in `predict`.
        """
        given = {
            key: value for key, value in options.items() if key not in layer.call_fields and not _says_nothing(value)
        }
        training = given.pop("training", None)
        if masks := [name for name in given.pop("given", ()) if name.endswith("mask")]:
            raise ValueError(
                f"Layer {layer.name!r} of kind {layer.class_name} is called with {masks}, which is not imported"
            )
        if given:
            raise ValueError(f"Layer {layer.name!r} is called with options that are not known: {given}")
        if training == default_mode(layer) or training is None:
            return None
        if not training:
            return False
        if not self.legacy:
            return None
        if any(isinstance(each, layers.Noise | layers.Augmentation) for each in _layers_in(layer)):
            warnings.warn(
                f"Layer {layer.name!r} of kind {layer.class_name} is called with training=True. In the Keras version "
                "that wrote the file it is random in predict too; here it is random in training only",
                stacklevel=2,
            )
        return None if isinstance(layer, layers.Noise | layers.Augmentation) else True


def recorded_call(layer: Layer, nodes: tuple[Node, ...], training: bool | None = None) -> Call:
    """Record a call, checking early that the layer takes this number of inputs and has weights for their shapes.

    Raises:
        ValueError: The layer takes one input and gets several, or their shapes do not fit.
    """
    inner = layer.layer if isinstance(layer, layers.ChannelsFirst) else layer
    takes_several = inner.several_inputs or inner.call_fields or inner.class_name not in KINDS
    if len(nodes) > 1 and not takes_several:  # the layer would ignore all but the first; Keras refuses
        raise ValueError(f"takes one input, and is called on {len(nodes)}")
    call = Call(layer, nodes, training)
    if not isinstance(layer, layers.Functional):  # the calls inside a model have been checked already
        layer.weights(*(node.shape for node in nodes))
    return call


@contextmanager
def layer_named(entry: Entry, nodes: Sequence[Node]) -> Iterator[None]:
    """Convert errors of a layer with its inputs to a ValueError that names the layer.

    The types of options have been checked; whether they fit each other and the shapes is checked by the layer and JAX.
    """
    try:
        yield
    except UnknownInputShape:
        raise
    except Exception as error:
        name = layer_name(entry)
        if isinstance(error, ValueError) and repr(name) in str(error):
            raise
        on = ", ".join(str(node.shape) for node in nodes) or "nothing"
        text = shortened(str(error))
        raise ValueError(f"Layer {name!r} of kind {entry['class_name']}, on {on}: {text}") from error


def _over_channels(layer: layers.Rescaling, shape: Shape) -> layers.Rescaling:
    """Apply the numbers of a Rescaling to axis 1 if they fit it and not the last axis.

    Keras 3 applies a list along the channels of the session's `image_data_format`, which files do not record. The
    images can therefore be channels_first although no layer of the model is.
    """
    if len(shape) != 4:
        return layer
    changed: dict[str, Any] = {
        field: tuple(((number,),) for number in value)
        for field, value in (("scale", layer.scale), ("offset", layer.offset))
        if not isinstance(value, int | float)
        and all(isinstance(number, int | float) for number in value)
        and len(value) not in (1, shape[-1])
        and len(value) == shape[1]
    }
    return dataclasses.replace(layer, **changed)


def as_called(layer: Layer, options: Mapping[str, Any]) -> Layer:
    """The layer with the call options that affect its result.

    Raises:
        ValueError: The layer does not support the options.
    """
    fields = {name: getattr(layer, name) for name in layer.call_fields}
    if not fields:
        return layer
    given = {name: options.get(name) for name in fields}
    known: dict[str, Any] = {
        name: default if value is None else bool(value) if isinstance(default, bool) else hashable(value)
        for (name, default), value in zip(fields.items(), given.values(), strict=True)
    }
    try:
        return dataclasses.replace(layer, **known)
    except ValueError as error:
        raise ValueError(f"Layer {layer.name!r}: {error}") from error


def _layers_in(layer: Layer) -> Iterator[Layer]:
    """Yield the layer and, if it is a model, all layers inside it."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _layers_in(inner.layer)


def _says_nothing(value: Any) -> bool:
    parts = list(value.values()) if isinstance(value, Mapping) else value
    return value is None or (isinstance(parts, list) and all(map(_says_nothing, parts)))
