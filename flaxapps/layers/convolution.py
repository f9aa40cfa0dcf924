"""Convolutions: plain, depthwise, separable and transposed."""

from dataclasses import dataclass

import jax
from jax import lax

from flaxapps import ops
from flaxapps.activations import Activation, bias_and_activation
from flaxapps.layers.shapes import Pair, Window, channel_count, check_images, pair
from flaxapps.layers.windows import WindowLayer
from flaxapps.recording import Shape, Weight, Weights


@dataclass(frozen=True)
class Conv2D(WindowLayer):
    """Convolution; kernel of shape (height, width, input channels / groups, filters).

    With groups, filter number f sees the input channels of group f // (filters / groups) only.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    groups: int = 1
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        if self.filters % self.groups or (shapes[0][3] or 0) % self.groups:
            raise ValueError(
                f"groups must divide input channels and filters, got groups={self.groups}, {shapes[0][3]} channels, "
                f"{self.filters} filters"
            )
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((*pair(self.kernel_size), channel_count(shapes[0]) // self.groups, self.filters))
        return {"kernel": kernel} | _bias(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Convolution, bias, activation."""
        x = ops.convolution(
            inputs[0], weights["kernel"], pair(self.strides), self.padding, pair(self.dilation_rate), self.groups
        )
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class DepthwiseConv2D(WindowLayer):
    """Convolution of every channel on its own; kernel of shape (height, width, input channels, multiplier).

    Output channel c * multiplier + m is filter m of input channel c: all filters of a channel stand together.
    """

    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Window = (1, 1)
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic; `depth_multiplier` times the channels."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, channel_count(shapes[0]) * self.depth_multiplier)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        channels = channel_count(shapes[0])
        kernel = Weight((*pair(self.kernel_size), channels, self.depth_multiplier))
        return {"kernel": kernel} | _bias(channels * self.depth_multiplier, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Depthwise convolution, bias, activation."""
        x = ops.depthwise_convolution(
            inputs[0], weights["kernel"], pair(self.strides), self.padding, pair(self.dilation_rate)
        )
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class SeparableConv2D(WindowLayer):
    """Depthwise convolution, then a 1x1 convolution, with nothing between them.

    depthwise_kernel has shape (height, width, input channels, multiplier), pointwise_kernel (1, 1, input channels x
    multiplier, filters). Strides and dilation are those of the depthwise convolution.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    depth_multiplier: int = 1
    activation: Activation | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic, then the filters."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """depthwise_kernel, pointwise_kernel, and bias where it is used."""
        channels = channel_count(shapes[0])
        kernels = {
            "depthwise_kernel": Weight((*pair(self.kernel_size), channels, self.depth_multiplier)),
            "pointwise_kernel": Weight((1, 1, channels * self.depth_multiplier, self.filters)),
        }
        return kernels | _bias(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Depthwise and pointwise convolution, bias, activation."""
        x = ops.depthwise_convolution(
            inputs[0], weights["depthwise_kernel"], pair(self.strides), self.padding, pair(self.dilation_rate)
        )
        x = ops.convolution(x, weights["pointwise_kernel"], (1, 1), "valid")
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Conv2DTranspose(WindowLayer):
    """The gradient of a convolution as a layer: strides enlarge; kernel of shape (height, width, filters, channels).

    The kernel is that of the convolution whose gradient this is, so its two last axes are the other way round than
    Conv2D's, and it is turned by half before it slides over the image. What "same" cuts off, it cuts off mostly at the
    end for strides above 1: `_transposed_padding`, which is Keras's own arithmetic.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    output_padding: Window | None = None
    dilation_rate: Window = (1, 1)
    activation: Activation | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        strides = pair(self.strides)
        if self.output_padding is not None:
            object.__setattr__(self, "output_padding", pair(self.output_padding))
            if any(extra >= stride for extra, stride in zip(pair(self.output_padding), strides, strict=True)):
                raise ValueError(
                    f"output_padding must be below the strides, got {self.output_padding} with strides {strides}"
                )
        if max(strides) > 1 and max(pair(self.dilation_rate)) > 1:
            raise ValueError(f"Keras has no strides {strides} together with dilation_rate {self.dilation_rate}")

    def _paddings(self) -> tuple[Pair, Pair]:
        extra = (None, None) if self.output_padding is None else pair(self.output_padding)
        height, width = (
            _transposed_padding(rate * (length - 1) + 1, stride, self.padding, more)
            for length, rate, stride, more in zip(
                pair(self.kernel_size), pair(self.dilation_rate), pair(self.strides), extra, strict=True
            )
        )
        return height, width

    def output_shape(self, *shapes: Shape) -> Shape:
        """What the padding leaves of the image spread by the strides, then the filters."""
        batch, *sizes, _ = check_images(shapes[0])
        grown: list[int | None] = []
        for size, length, rate, stride, padding in zip(
            sizes,
            pair(self.kernel_size),
            pair(self.dilation_rate),
            pair(self.strides),
            self._paddings(),
            strict=True,
        ):
            grown.append(None if size is None else (size - 1) * stride + 1 + sum(padding) - rate * (length - 1))
            if grown[-1] is not None and grown[-1] < 1:
                raise ValueError(f"The input is too small here: nothing is left of {size} pixels")
        return (batch, *grown, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """kernel, and bias where it is used."""
        kernel = Weight((*pair(self.kernel_size), self.filters, channel_count(shapes[0])))
        return {"kernel": kernel} | _bias(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Transposed convolution, bias, activation."""
        x = lax.conv_transpose(
            inputs[0],
            weights["kernel"].astype(inputs[0].dtype),
            pair(self.strides),
            self._paddings(),
            rhs_dilation=pair(self.dilation_rate),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            transpose_kernel=True,
        )
        return bias_and_activation(x, weights, self.activation)


def _bias(size: int, used: bool) -> dict[str, Weight]:
    return {"bias": Weight((size,), "zeros")} if used else {}


def _transposed_padding(window: int, stride: int, padding: str, extra: int | None) -> Pair:
    """Zeros before and after an image that its strides have spread, as Keras reckons them for JAX.

    Without `extra` (output_padding), "valid" gives (size - 1) * stride + max(window, stride) pixels and "same" gives
    size * stride. With it, (size - 1) * stride + window + extra, and (size - 1) * stride + window % 2 + extra: for an
    even window one less than one would think.

    Args:
        window: Length of the kernel, dilation included.
        stride: How far the pixels are spread.
        padding: "valid" or "same".
        extra: Keras's output_padding.
    """
    if padding == "valid":
        return window - 1, window - 1 + (max(window, stride) - window if extra is None else extra)
    total = stride + window - 2 if extra is None else window + window % 2 - 2 + extra
    before = min((total + 1) // 2, window - 1)
    return before, total - before
