"""Keras's layer kinds: configuration, output shape and computation of each. All numeric traps live here.

Fields are the Keras config keys, with Keras's defaults. Images are (batch, height, width, channels) throughout;
`Model` transposes at its boundary for channels_first. Arrays keep Keras's shapes, so that weights load unchanged.
Formulas are those of Keras 3 on the JAX backend (keras/src/layers, keras/src/backend/jax/nn.py).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps import ops
from flaxapps.activations import Activation as ActivationName
from flaxapps.activations import get_activation
from flaxapps.config import floatx, standardize_data_format
from flaxapps.graph import Call, Graph, Layer, LayerInGraph, Node, Shape, Weight, Weights

Pair = tuple[int, int]
Window = int | Sequence[int]


def _pair(value: Window) -> Pair:
    """Keras's shorthand: 3 stands for (3, 3)."""
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _images(shape: Shape) -> Shape:
    if len(shape) != 4:
        raise ValueError(f"Expected images (batch, height, width, channels), got shape {shape}")
    return shape


def _channels(shape: Shape) -> int:
    if shape[-1] is None:
        raise ValueError(f"The last dimension must be known, got shape {shape}; give the input a fixed size")
    return shape[-1]


def _product(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


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


class _Window(Layer):
    """What layers with a sliding window share: Keras's shorthands, and the size of the output."""

    def __post_init__(self) -> None:
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        if "pool_size" in values and values["strides"] is None:
            values["strides"] = values["pool_size"]
        for name in {"kernel_size", "pool_size", "strides", "dilation_rate"} & set(values):
            object.__setattr__(self, name, _pair(values[name]))
        object.__setattr__(self, "padding", values["padding"].lower())
        if self.__dict__["padding"] not in ("valid", "same"):
            raise ValueError(f'padding is "valid" or "same", got {values["padding"]!r}')

    def _output_size(self, shape: Shape, window: Window, strides: Window, dilation: Window = 1) -> Shape:
        """Height and width of the output; None where the input's is free."""
        result: list[int | None] = []
        for size, length, stride, rate in zip(
            _images(shape)[1:3], _pair(window), _pair(strides), _pair(dilation), strict=True
        ):
            if size is None:
                result.append(None)
                continue
            span = rate * (length - 1) + 1
            result.append(-(-size // stride) if self.__dict__["padding"] == "same" else (size - span) // stride + 1)
            if (result[-1] or 0) < 1:
                raise ValueError(f"The input is too small here: {size} pixels under a window of {span}")
        return tuple(result)


@dataclass(frozen=True)
class Conv2D(_Window):
    """Convolution; kernel of shape (height, width, input channels / groups, filters)."""

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    groups: int = 1
    activation: ActivationName | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self._output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((*_pair(self.kernel_size), _channels(shapes[0]) // self.groups, self.filters))
        return {"kernel": kernel} | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convolution, bias, activation."""
        x = ops.convolution(
            inputs[0], weights["kernel"], _pair(self.strides), self.padding, _pair(self.dilation_rate), self.groups
        )
        return _bias_and_activation(x, weights, self.activation)


def _bias_and_activation(x: jax.Array, weights: Weights, activation: ActivationName | None) -> jax.Array:
    if "bias" in weights:
        x = x + weights["bias"].astype(x.dtype)
    return get_activation(activation or "linear")(x)


@dataclass(frozen=True)
class SeparableConv2D(_Window):
    """Depthwise convolution, then a 1x1 convolution, with nothing between them.

    depthwise_kernel has shape (height, width, input channels, multiplier), pointwise_kernel (1, 1, input channels x
    multiplier, filters).
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    depth_multiplier: int = 1
    activation: ActivationName | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self._output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """depthwise_kernel, pointwise_kernel, and bias where it is used."""
        channels = _channels(shapes[0])
        kernels = {
            "depthwise_kernel": Weight((*_pair(self.kernel_size), channels, self.depth_multiplier)),
            "pointwise_kernel": Weight((1, 1, channels * self.depth_multiplier, self.filters)),
        }
        return kernels | ({"bias": Weight((self.filters,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Depthwise and pointwise convolution, bias, activation."""
        x = ops.depthwise_convolution(
            inputs[0], weights["depthwise_kernel"], _pair(self.strides), self.padding, _pair(self.dilation_rate)
        )
        x = ops.convolution(x, weights["pointwise_kernel"], (1, 1), "valid")
        return _bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Dense(Layer):
    """Matrix product over the last axis; kernel of shape (inputs, units)."""

    units: int
    activation: ActivationName | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """The last dimension becomes `units`."""
        return (*shapes[0][:-1], self.units)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((_channels(shapes[0]), self.units))
        return {"kernel": kernel} | ({"bias": Weight((self.units,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Product, bias, activation."""
        return _bias_and_activation(ops.dense(inputs[0], weights["kernel"]), weights, self.activation)


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """Normalization over all axes but the last, with the biased variance, in float32.

    Inference and frozen layers use the moving statistics; training uses those of the batch (under jit with a sharded
    batch: of the global batch) and moves the others by 1 - momentum towards them.
    """

    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        if self.axis not in (-1, len(shapes[0]) - 1):
            raise ValueError(f"Only the last axis can be normalized, got axis={self.axis} for shape {shapes[0]}")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Gamma as scale, beta as bias, and the moving mean and var."""
        shape = (_channels(shapes[0]),)
        trained = {"scale": Weight(shape, "ones")} if self.scale else {}
        trained |= {"bias": Weight(shape, "zeros")} if self.center else {}
        return trained | {"mean": Weight(shape, "zeros", "batch_stats"), "var": Weight(shape, "ones", "batch_stats")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes with the moving statistics."""
        return self._normalize(inputs[0], weights, weights["mean"], weights["var"])

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = inputs[0].astype(weights["mean"].dtype)
        axes = tuple(range(x.ndim - 1))
        batch = {"mean": jnp.mean(x, axes), "var": jnp.var(x, axes)}
        moved = {leaf: weights[leaf] * self.momentum + batch[leaf] * (1 - self.momentum) for leaf in batch}
        return self._normalize(inputs[0], weights, batch["mean"], batch["var"]), moved

    def _normalize(self, x: jax.Array, weights: Weights, mean: jax.Array, var: jax.Array) -> jax.Array:
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.scale:
            factor = factor * weights["scale"]
        offset = -mean * factor
        if self.center:
            offset = offset + weights["bias"]
        return (x.astype(factor.dtype) * factor + offset).astype(x.dtype)


@dataclass(frozen=True)
class Activation(Layer):
    """An activation function, by Keras's name or as a function of an array."""

    activation: ActivationName

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Applies the function."""
        return get_activation(self.activation)(inputs[0])


@dataclass(frozen=True)
class _Pooling(_Window):
    pool_size: Window = (2, 2)
    strides: Window | None = None
    padding: str = "valid"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic; strides default to the window."""
        size = self._output_size(shapes[0], self.pool_size, self.strides or self.pool_size)
        return (shapes[0][0], *size, shapes[0][3])


@dataclass(frozen=True)
class MaxPooling2D(_Pooling):
    """Maximum over windows; padding never wins."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pools."""
        return ops.max_pool(inputs[0], _pair(self.pool_size), _pair(self.strides or self.pool_size), self.padding)


@dataclass(frozen=True)
class AveragePooling2D(_Pooling):
    """Mean over windows; with padding "same" the mean of the pixels inside the image, as in TensorFlow."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pools."""
        return ops.average_pool(inputs[0], _pair(self.pool_size), _pair(self.strides or self.pool_size), self.padding)


@dataclass(frozen=True)
class GlobalAveragePooling2D(Layer):
    """Mean over height and width."""

    keepdims: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, channels), or (batch, 1, 1, channels) with keepdims."""
        batch, _, _, channels = _images(shapes[0])
        return (batch, 1, 1, channels) if self.keepdims else (batch, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pools."""
        return jnp.mean(inputs[0], (1, 2), keepdims=self.keepdims)


@dataclass(frozen=True)
class GlobalMaxPooling2D(GlobalAveragePooling2D):
    """Maximum over height and width."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pools."""
        return jnp.max(inputs[0], (1, 2), keepdims=self.keepdims)


@dataclass(frozen=True)
class ZeroPadding2D(Layer):
    """Zeros around the image: ((top, bottom), (left, right)), or Keras's shorthands for it."""

    padding: int | Sequence[Window] = ((1, 1), (1, 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", self._sides())

    def _sides(self) -> tuple[Pair, Pair]:
        height, width = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        return _pair(height), _pair(width)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Height and width grow by the padding."""
        batch, *sizes, channels = _images(shapes[0])
        grown = [None if size is None else size + sum(pad) for size, pad in zip(sizes, self._sides(), strict=True)]
        return (batch, *grown, channels)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Pads."""
        return jnp.pad(inputs[0], ((0, 0), *self._sides(), (0, 0)))


@dataclass(frozen=True)
class Flatten(Layer):
    """All dimensions but the first in one, (height, width, channels) row by row."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """(batch, product of the rest)."""
        return (shapes[0][0], _product(shapes[0][1:]))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Reshapes."""
        return inputs[0].reshape(inputs[0].shape[0], -1)


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeroes a fraction `rate` of the values and scales the others by 1 / (1 - rate)."""

    rate: float
    noise_shape: tuple[int | None, ...] | None = None

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """The identity."""
        return inputs[0]

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        (x,) = inputs
        if self.rate == 0:
            return x, {}
        noise = self.noise_shape or x.shape
        shape = tuple(size if given is None else given for given, size in zip(noise, x.shape, strict=True))
        kept = jax.random.bernoulli(make_key(), 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x)), {}


@dataclass(frozen=True)
class Add(Layer):
    """Sum of the inputs, which must have one shape."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """The common shape."""
        if len(shapes) < 2 or any(not _compatible(shape, shapes[0]) for shape in shapes):
            raise ValueError(f"Add takes two or more inputs of one shape, got {list(shapes)}")
        return tuple(next((size for size in sizes if size is not None), None) for sizes in zip(*shapes, strict=True))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Adds in the order of the inputs."""
        return sum(inputs[1:], start=inputs[0])


@dataclass(frozen=True)
class Concatenate(Layer):
    """The inputs one after the other along `axis`."""

    axis: int = -1

    def output_shape(self, *shapes: Shape) -> Shape:
        """The sizes along the axis add up."""
        axis = self.axis % len(shapes[0])
        cut = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
        if any(not _compatible(shape, cut[0]) for shape in cut):
            raise ValueError(f"Concatenate takes inputs that differ along axis {self.axis} only, got {list(shapes)}")
        sizes = [shape[axis] for shape in shapes]
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Concatenates."""
        return jnp.concatenate(inputs, self.axis)


def _compatible(shape: Shape, other: Shape) -> bool:
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


@dataclass(frozen=True)
class Functional(Layer):
    """A whole model as one layer: its variables are a subtree under its name."""

    graph: Graph

    def __call__(self, inputs: Node | Sequence[Node], *, training: bool | None = None) -> Any:
        """Records a call of the model: a node, or a list of nodes where it has several outputs."""
        outputs = self.record(inputs, training).outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    @property
    def layers(self) -> tuple[LayerInGraph, ...]:
        """The layers inside, in Keras's order."""
        return self.graph.layers

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Shapes of all outputs, inferred layer by layer."""
        expected = [node.shape for node in self.graph.inputs]
        if len(shapes) != len(expected) or not all(map(_compatible, shapes, expected)):
            raise ValueError(f"The model takes inputs of shapes {expected}, got {list(shapes)}")
        values = list(shapes)
        for step in self.graph.steps:
            values += step.layer.output_shapes(*(values[index] for index in step.inputs))
        return tuple(values[index] for index in self.graph.results)
