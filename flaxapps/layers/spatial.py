"""Convolutions over one or three spatial dimensions, and the base class of layers of any rank.

Two-dimensional layers are separate classes, which are tuned for CPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation, get_activation
from flaxapps.layers.convolution import bias_weight, transposed_padding

Sizes = int | Sequence[int]


def spread(value: Any, rank: int) -> tuple[Any, ...]:
    """Expand Keras's shorthand of one value for all dimensions."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * rank


class Spatial(Layer):
    """Base class of layers over `rank` spatial dimensions, channels last or first.

    Attributes:
        rank: Number of spatial dimensions.
        data_format: "channels_first" for arrays (batch, channels, ...); otherwise (batch, ..., channels).
    """

    rank: ClassVar[int]
    data_format: str | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):  # every subclass is a dataclass
            if entry.name in {"kernel_size", "pool_size", "strides", "dilation_rate", "size", "output_size"}:
                value = getattr(self, entry.name)
                if value is None and entry.name == "strides":
                    value = getattr(self, "pool_size", 1)
                object.__setattr__(self, entry.name, spread(value, self.rank))
        padding = getattr(self, "padding", "valid")
        if isinstance(padding, str):
            allowed = ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")
            if padding.lower() not in allowed:
                raise ValueError(f"padding is one of {', '.join(allowed)}, got {padding!r}")
            if hasattr(self, "padding"):
                object.__setattr__(self, "padding", padding.lower())
        if isinstance(getattr(self, "activation", None), str):
            get_activation(getattr(self, "activation", None) or "linear")

    @property
    def _first(self) -> bool:
        return self.data_format == "channels_first"

    def _last(self, shape: Shape) -> Shape:
        """The shape with the channels last."""
        if len(shape) != self.rank + 2:
            raise ValueError(f"{self.class_name} takes arrays of {self.rank + 2} dimensions, got shape {shape}")
        return (shape[0], *shape[2:], shape[1]) if self._first else shape

    def output_shape(self, *shapes: Shape) -> Shape:
        """The batch, and the results of `sizes` and `channels`."""
        batch, *sizes, channels = self._last(shapes[0])
        grown = self.sizes(tuple(sizes))
        if any(size is not None and size < 1 for size in grown):
            raise ValueError(f"The input is too small here: sizes {tuple(sizes)} give an empty output")
        ends = self.channels(channels)
        return (batch, ends, *grown) if self._first else (batch, *grown, ends)

    def sizes(self, sizes: Shape) -> Shape:
        """Spatial sizes of the output for those of the input."""
        return sizes

    def channels(self, channels: int | None) -> int | None:
        """Number of output channels for that of the input."""
        return channels

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Compute with channels last, transposing if they are first."""
        x = jnp.moveaxis(inputs[0], 1, -1) if self._first else inputs[0]
        x = self.compute(weights, x)
        return jnp.moveaxis(x, -1, 1) if self._first and x.ndim > 2 else x

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        """The output for an array (batch, ..., channels)."""
        raise NotImplementedError

    def _windows(self, sizes: Shape, window: Sizes, strides: Sizes, dilation: Sizes = 1) -> Shape:
        """Number of window positions per dimension."""
        padding = getattr(self, "padding", "valid")
        found: list[int | None] = []
        for size, length, stride, rate in zip(
            sizes, spread(window, self.rank), spread(strides, self.rank), spread(dilation, self.rank), strict=True
        ):
            covered = rate * (length - 1) + 1 if padding == "valid" else 1
            found.append(None if size is None else (size - covered) // stride + 1)
        return tuple(found)

    @property
    def _letters(self) -> tuple[str, str, str]:
        """Dimension numbers of input, kernel and output for jax.lax."""
        letters = "DHW"[3 - self.rank :]
        return f"N{letters}C", f"{letters}IO", f"N{letters}C"


class _Sliding(Spatial):
    """Base class of convolutions whose output has one place for each position of the kernel."""

    kernel_size: Any
    strides: Any
    dilation_rate: Any

    def sizes(self, sizes: Shape) -> Shape:
        return self._windows(sizes, self.kernel_size, self.strides, self.dilation_rate)


@dataclass(frozen=True)
class Convolution(_Sliding):
    """Convolution; kernel of shape (..., input channels / groups, filters). Padding "causal" is at the front only."""

    filters: int
    kernel_size: Sizes
    strides: Sizes = 1
    padding: str = "valid"
    dilation_rate: Sizes = 1
    groups: int = 1
    activation: ActivationLike | None = None
    use_bias: bool = True
    data_format: str | None = None

    def channels(self, channels: int | None) -> int | None:
        if self.filters % self.groups or (channels or 0) % self.groups:
            raise ValueError(f"groups={self.groups} must divide {channels} channels and {self.filters} filters")
        return self.filters

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        channels = channel_count(self._last(shapes[0]))
        kernel = Weight((*spread(self.kernel_size, self.rank), channels // self.groups, self.filters))
        return {"kernel": kernel} | bias_weight(self.filters, self.use_bias)

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return bias_and_activation(self.convolve(x, weights["kernel"], self.groups), weights, self.activation)

    def convolve(self, x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
        """The convolution alone."""
        rates = spread(self.dilation_rate, self.rank)
        padding: Any = self.padding.upper()
        if self.padding == "causal":
            padding = [(rates[0] * (kernel.shape[0] - 1), 0)]
        result: jax.Array = lax.conv_general_dilated(
            x, kernel.astype(x.dtype), spread(self.strides, self.rank), padding, rhs_dilation=rates,
            dimension_numbers=self._letters, feature_group_count=groups,
        )  # fmt: skip # kept on few lines on purpose
        return result


class Conv1D(Convolution):
    """Convolution of sequences (batch, steps, channels)."""

    rank = 1


class Conv3D(Convolution):
    """Convolution of volumes (batch, depth, height, width, channels)."""

    rank = 3


@dataclass(frozen=True)
class DepthwiseConv1D(_Sliding):
    """Convolution of each channel separately; kernel of shape (steps, channels, multiplier)."""

    rank = 1
    kernel_size: Sizes
    strides: Sizes = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Sizes = 1
    activation: ActivationLike | None = None
    use_bias: bool = True
    data_format: str | None = None

    def channels(self, channels: int | None) -> int | None:
        """`depth_multiplier` times the channels."""
        return None if channels is None else channels * self.depth_multiplier

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        channels = channel_count(self._last(shapes[0]))
        kernel = Weight((*spread(self.kernel_size, 1), channels, self.depth_multiplier))
        return {"kernel": kernel} | bias_weight(channels * self.depth_multiplier, self.use_bias)

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        return bias_and_activation(_depthwise(self, x, weights["kernel"]), weights, self.activation)


@dataclass(frozen=True)
class SeparableConv1D(_Sliding):
    """Depthwise convolution of sequences followed by a pointwise one."""

    rank = 1
    filters: int
    kernel_size: Sizes
    strides: Sizes = 1
    padding: str = "valid"
    dilation_rate: Sizes = 1
    depth_multiplier: int = 1
    activation: ActivationLike | None = None
    use_bias: bool = True
    data_format: str | None = None

    def channels(self, channels: int | None) -> int | None:
        return self.filters

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        channels = channel_count(self._last(shapes[0]))
        kernels = {
            "depthwise_kernel": Weight((*spread(self.kernel_size, 1), channels, self.depth_multiplier)),
            "pointwise_kernel": Weight((1, channels * self.depth_multiplier, self.filters)),
        }
        return kernels | bias_weight(self.filters, self.use_bias)

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        x = _depthwise(self, x, weights["depthwise_kernel"])
        x = jnp.matmul(x, weights["pointwise_kernel"][0].astype(x.dtype))
        return bias_and_activation(x, weights, self.activation)


def _depthwise(layer: DepthwiseConv1D | SeparableConv1D, x: jax.Array, kernel: jax.Array) -> jax.Array:
    length, channels, multiplier = kernel.shape
    convolution = Conv1D(
        channels * multiplier, length, layer.strides, layer.padding, layer.dilation_rate, groups=channels
    )
    return convolution.convolve(x, kernel.reshape(length, 1, channels * multiplier), channels)


@dataclass(frozen=True)
class TransposedConvolution(Spatial):
    """Transposed convolution; kernel of shape (..., filters, channels)."""

    filters: int
    kernel_size: Sizes
    strides: Sizes = 1
    padding: str = "valid"
    output_padding: Sizes | None = None
    dilation_rate: Sizes = 1
    activation: ActivationLike | None = None
    use_bias: bool = True
    data_format: str | None = None

    def _paddings(self) -> list[tuple[int, int]]:
        extra = spread(self.output_padding, self.rank)
        dimensions = (self.kernel_size, self.dilation_rate, self.strides)
        return [
            transposed_padding(rate * (length - 1) + 1, stride, self.padding, more)
            for length, rate, stride, more in zip(*(spread(each, self.rank) for each in dimensions), extra, strict=True)
        ]

    def sizes(self, sizes: Shape) -> Shape:
        """Sizes of the input dilated by the strides, after padding and convolution."""
        dimensions = (self.kernel_size, self.dilation_rate, self.strides)
        return tuple(
            None if size is None else (size - 1) * stride + 1 + sum(padding) - rate * (length - 1)
            for size, length, rate, stride, padding in zip(
                sizes, *(spread(each, self.rank) for each in dimensions), self._paddings(), strict=True
            )
        )

    def channels(self, channels: int | None) -> int | None:
        return self.filters

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        kernel = Weight((*spread(self.kernel_size, self.rank), self.filters, channel_count(self._last(shapes[0]))))
        return {"kernel": kernel} | bias_weight(self.filters, self.use_bias)

    def compute(self, weights: Weights, x: jax.Array) -> jax.Array:
        x = lax.conv_transpose(
            x, weights["kernel"].astype(x.dtype), spread(self.strides, self.rank), self._paddings(),
            rhs_dilation=spread(self.dilation_rate, self.rank), transpose_kernel=True,
            dimension_numbers=self._letters,
        )  # fmt: skip # kept on few lines on purpose
        return bias_and_activation(x, weights, self.activation)


class Conv1DTranspose(TransposedConvolution):
    """Transposed convolution of sequences."""

    rank = 1


class Conv3DTranspose(TransposedConvolution):
    """Transposed convolution of volumes."""

    rank = 3
