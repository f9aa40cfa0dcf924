"""Wrapper layers: they hold other layers and apply them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.batch import Batch
from flaxapps.graph.casting import cast_floats, cast_whole
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights


def _given(layer: Layer, weights: Weights, x: jax.Array) -> jax.Array:
    """Cast the input of a wrapped layer as the layer requires."""
    return cast_whole(layer, bool(weights), cast_floats(layer, (x,)))[0]


@dataclass(frozen=True)
class TimeDistributed(Layer):
    """Applies a layer to every step of a sequence (batch, steps, ...).

    Attributes:
        layer: The layer. The weights of the wrapper are those of the layer.
    """

    takes_integers = True  # passed to the layer, which casts them if it needs floats
    layer: Layer

    def output_shape(self, *shapes: Shape) -> Shape:
        """The layer's output shape for one step, with the steps after the batch."""
        batch, steps, *rest = shapes[0]
        _, *found = self.layer.output_shapes((batch, *rest))[0]
        return (batch, steps, *found)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        return self.layer.weights((shapes[0][0], *shapes[0][2:]))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Merge steps into the batch and apply the layer."""
        x = _given(self.layer, weights, inputs[0])
        result = self.layer.call(weights, x.reshape(-1, *x.shape[2:]))
        return result.reshape(*x.shape[:2], *result.shape[1:])

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = _given(self.layer, weights, inputs[0])
        mask = None if batch.mask is None else jnp.repeat(batch.mask, x.shape[1])
        steps = Batch(mask, batch.axis_name)
        result, changed = self.layer.call_training(weights, x.reshape(-1, *x.shape[2:]), make_key=make_key, batch=steps)
        return result.reshape(*x.shape[:2], *result.shape[1:]), changed


@dataclass(frozen=True)
class SpectralNormalization(Layer):
    """Wraps a layer whose kernel Keras divides by its largest singular value in training. Inference only.

    Attributes:
        layer: A layer with a kernel.
        power_iterations: Number of power iterations in Keras's training, at least 1.
    """

    takes_integers = True  # then the result has the same integer dtype
    layer: Layer
    power_iterations: int = 1

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.layer.output_shapes(*shapes)[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The layer's weights, and vector_u, the state of the power iteration."""
        inside = self.layer.weights(*shapes)
        size = next(weight for leaf, weight in inside.items() if leaf in ("kernel", "embeddings")).shape[-1]
        return inside | {"vector_u": Weight((1, size), "ones", "batch_stats")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Apply the layer with the stored kernel, which training has normalized.

        Trap: the result has the dtype of the input, so vectors of an Embedding are truncated to integers, as in Keras.
        """
        (x,) = inputs
        return self.layer.call(weights, _given(self.layer, weights, x)).astype(x.dtype)

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        raise ValueError(f"Layer {self.name!r} of kind SpectralNormalization does not train: freeze the layer")


@dataclass(frozen=True)
class Pipeline(Layer):
    """Applies preprocessing layers in sequence.

    Attributes:
        layers_in_order: Keras's `layers`; they have no weights.
    """

    layers_in_order: Sequence[Layer]

    def output_shape(self, *shapes: Shape) -> Shape:
        shape = shapes[0]
        for layer in self.layers_in_order:
            shape = layer.output_shapes(shape)[0]
        return shape

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = inputs[0]
        for layer in self.layers_in_order:
            x = layer.call({}, _given(layer, {}, x))
        return x

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = inputs[0]
        for layer in self.layers_in_order:
            x, _ = layer.call_training({}, _given(layer, {}, x), make_key=make_key, batch=batch)
        return x, {}


@dataclass(frozen=True)
class ChannelsFirst(Layer):
    """Runs a layer of a channels_first model on channels_first images, between two transpositions.

    Models here are channels last, and most layers of channels_first models can be converted. This wraps those that
    cannot, such as a softmax over the last stored axis. Only four-dimensional arrays are images.

    Attributes:
        layer: The layer as in the Keras model.
    """

    layer: Layer

    @property
    def class_name(self) -> str:
        """The class name of the wrapped layer."""
        return self.layer.class_name

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """The wrapped layer's output shapes, channels last."""
        return tuple(_last(shape) for shape in self.layer.output_shapes(*map(_first, shapes)))

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The wrapped layer's weights, in their stored shapes."""
        return self.layer.weights(*map(_first, shapes))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Transpose to channels first, apply the layer, and transpose back."""
        return _turned_last(self.layer.call(weights, *map(_turned_first, inputs)))

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        stored = map(_turned_first, inputs)
        output, changed = self.layer.call_training(weights, *stored, make_key=make_key, batch=batch)
        return _turned_last(output), changed


def _first(shape: Shape) -> Shape:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _last(shape: Shape) -> Shape:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _turned_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x


def _turned_last(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 1, -1) if x.ndim == 4 else x
