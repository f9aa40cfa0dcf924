"""Layers with a sliding window, and convolutions: plain, depthwise, separable and transposed."""

import dataclasses
from dataclasses import dataclass, field

import jax
from jax import lax

from flaxapps.graph.initializers import Initializer
from flaxapps.graph.shapes import Pair, Window, channel_count, check_images, pair
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation, get_activation
from flaxapps.ops import primitives as ops


class WindowLayer(Layer):
    """Base class of layers with a sliding window: expands Keras's shorthands, computes the output size."""

    padding: str

    def __post_init__(self) -> None:
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        if "pool_size" in values and values["strides"] is None:
            values["strides"] = values["pool_size"]
        for name in {"kernel_size", "pool_size", "strides", "dilation_rate"} & set(values):
            object.__setattr__(self, name, pair(values[name]))
        object.__setattr__(self, "padding", values["padding"].lower())
        if self.padding not in ("valid", "same"):
            raise ValueError(f'padding should be "valid" or "same", got {values["padding"]!r}')
        if isinstance(values.get("activation"), str):
            get_activation(values["activation"])

    def output_size(self, shape: Shape, window: Window, strides: Window, dilation: Window = 1) -> Shape:
        """Height and width of the output; None if that of the input is free."""
        result: list[int | None] = []
        for size, length, stride, rate in zip(
            check_images(shape)[1:3], pair(window), pair(strides), pair(dilation), strict=True
        ):
            if size is None:
                result.append(None)
                continue
            span = rate * (length - 1) + 1
            result.append(-(-size // stride) if self.padding == "same" else (size - span) // stride + 1)
            if (result[-1] or 0) < 1:
                raise ValueError(f"The input is too small here: {size} pixels under a window of {span}")
        return tuple(result)


@dataclass(frozen=True)
class Conv2D(WindowLayer):
    """Convolution; kernel of shape (height, width, input channels / groups, filters).

    With groups, filter f uses the input channels of group f // (filters / groups) only.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    groups: int = 1
    activation: ActivationLike | None = None
    use_bias: bool = True
    kernel_initializer: Initializer = field(default="glorot_uniform", kw_only=True, compare=False, repr=False)

    def output_shape(self, *shapes: Shape) -> Shape:
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        if self.filters % self.groups or (shapes[0][3] or 0) % self.groups:
            raise ValueError(
                f"groups must divide input channels and filters, got groups={self.groups}, {shapes[0][3]} channels, "
                f"{self.filters} filters"
            )
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        shape = (*pair(self.kernel_size), channel_count(shapes[0]) // self.groups, self.filters)
        return {"kernel": Weight(shape, self.kernel_initializer)} | bias_weight(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = ops.convolution(
            inputs[0], weights["kernel"], pair(self.strides), self.padding, pair(self.dilation_rate), self.groups
        )
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class DepthwiseConv2D(WindowLayer):
    """Convolution of each channel separately; kernel of shape (height, width, input channels, multiplier).

    Output channel c * multiplier + m is filter m of input channel c.
    """

    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Window = (1, 1)
    activation: ActivationLike | None = None
    use_bias: bool = True
    depthwise_initializer: Initializer = field(default="glorot_uniform", kw_only=True, compare=False, repr=False)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Window arithmetic; `depth_multiplier` times the channels."""
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, channel_count(shapes[0]) * self.depth_multiplier)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        channels = channel_count(shapes[0])
        kernel = Weight((*pair(self.kernel_size), channels, self.depth_multiplier), self.depthwise_initializer)
        return {"kernel": kernel} | bias_weight(channels * self.depth_multiplier, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = ops.depthwise_convolution(
            inputs[0], weights["kernel"], pair(self.strides), self.padding, pair(self.dilation_rate)
        )
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class SeparableConv2D(WindowLayer):
    """Depthwise convolution followed by a 1x1 convolution, without bias or activation between them.

    depthwise_kernel has shape (height, width, input channels, multiplier), pointwise_kernel (1, 1, input channels x
    multiplier, filters). Strides and dilation are those of the depthwise convolution.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    dilation_rate: Window = (1, 1)
    depth_multiplier: int = 1
    activation: ActivationLike | None = None
    use_bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        size = self.output_size(shapes[0], self.kernel_size, self.strides, self.dilation_rate)
        return (shapes[0][0], *size, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        channels = channel_count(shapes[0])
        kernels = {
            "depthwise_kernel": Weight((*pair(self.kernel_size), channels, self.depth_multiplier)),
            "pointwise_kernel": Weight((1, 1, channels * self.depth_multiplier, self.filters)),
        }
        return kernels | bias_weight(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = ops.depthwise_convolution(
            inputs[0], weights["depthwise_kernel"], pair(self.strides), self.padding, pair(self.dilation_rate)
        )
        x = ops.convolution(x, weights["pointwise_kernel"], (1, 1), "valid")
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Conv2DTranspose(WindowLayer):
    """Transposed convolution (the gradient of a convolution); kernel of shape (height, width, filters, channels).

    The kernel is that of the convolution whose gradient this is. Its last two axes are therefore swapped compared to
    Conv2D, and it is rotated by 180 degrees. With padding "same" and strides above 1 most of the cropping is at the
    end; see `transposed_padding`.
    """

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    output_padding: Window | None = None
    dilation_rate: Window = (1, 1)
    activation: ActivationLike | None = None
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
            raise ValueError(
                f"strides={strides} and dilation_rate={self.dilation_rate} cannot both be above 1, as in Keras"
            )

    def _paddings(self) -> tuple[Pair, Pair]:
        extra = (None, None) if self.output_padding is None else pair(self.output_padding)
        height, width = (
            transposed_padding(rate * (length - 1) + 1, stride, self.padding, more)
            for length, rate, stride, more in zip(
                pair(self.kernel_size), pair(self.dilation_rate), pair(self.strides), extra, strict=True
            )
        )
        return height, width

    def output_shape(self, *shapes: Shape) -> Shape:
        """Size of the image dilated by the strides, after padding and convolution; then the filters."""
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
                raise ValueError(f"The input is too small here: {size} pixels give an empty output")
        return (batch, *grown, self.filters)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        kernel = Weight((*pair(self.kernel_size), self.filters, channel_count(shapes[0])))
        return {"kernel": kernel} | bias_weight(self.filters, self.use_bias)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
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


def bias_weight(size: int, used: bool) -> dict[str, Weight]:
    """The bias of a layer by its leaf name; empty if it is not used."""
    return {"bias": Weight((size,), "zeros")} if used else {}


def transposed_padding(window: int, stride: int, padding: str, extra: int | None) -> Pair:
    """Padding before and after an image dilated by the strides, as Keras computes it for JAX.

    Without `extra` (output_padding), "valid" gives (size - 1) * stride + max(window, stride) pixels and "same" gives
    size * stride. With it, they give (size - 1) * stride + window + extra and (size - 1) * stride + window % 2 + extra.
    Trap: the latter depends on whether the window is even.

    Args:
        window: Length of the kernel, dilation included.
        stride: Stride of the layer.
        padding: "valid" or "same".
        extra: Keras's output_padding.
    """
    if padding == "valid":
        return window - 1, window - 1 + (max(window, stride) - window if extra is None else extra)
    total = stride + window - 2 if extra is None else window + window % 2 - 2 + extra
    before = min((total + 1) // 2, window - 1)
    return before, total - before
