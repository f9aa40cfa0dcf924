"""Optimization of networks for inference."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, get_args

import jax
import jax.numpy as jnp

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.shapes import pair
from flaxapps.graph.symbolic import Layer, Node, Weights
from flaxapps.model import Model, Network
from flaxapps.ops import winograd
from flaxapps.transforms.dtype import with_dtype
from flaxapps.transforms.fold import fold_batch_norm
from flaxapps.transforms.image_by_image import split_image_by_image
from flaxapps.transforms.rewrite import Replacement, on_host, rewrite

Mode = Literal["default", "fast"]
Precision = Literal["float32", "bfloat16"]
WINOGRAD_KERNELS = {(3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (7, 1)}
LEAST_CHANNELS = 32  # below, Winograd's transforms cost more than its products save
LEAST_CHANNELS_OF_WINDOWS, LEAST_CHANNELS_1X1 = 96, 16  # of a kernel, from which bfloat16 is faster
MANY_PIXELS, MANY_CHANNELS = 784, 256  # of a convolution for which bfloat16 is slower than Winograd in float32
# Activation size per image (bytes) above which the first layers run image by image. Above it a batch does not fit into
# the cache; below it, re-reading the kernels costs more.
LARGE_TENSOR = 2 * 2**20


def optimize(
    model: Model,
    variables: Mapping[str, Any],
    mode: Mode = "default",
    *,
    precision: Precision = "float32",
    bfloat16_pointwise: bool | None = None,
    platform: str | None = None,
) -> Network:
    """Rewrites a model for faster inference. The given model and variables are not modified.

    Both modes fold BatchNormalization (`fold_batch_norm`). On CPUs, the first layers run image by image while their
    activations are large. Convolutions of stride 1 with at least 32 channels, and kernels of 3x3, 5x5, or 3 or 7
    pixels in one direction, become Winograd convolutions: all of them in "fast", those on large images in "default".
    The transformed kernels take up to four times the memory. Compiling takes longer, in "fast" several times.

    Args:
        model: The network. If image sizes are free, no layer runs image by image.
        variables: Its arrays.
        mode: "default" changes outputs by at most 1e-5 of the largest, "fast" by at most 1e-4.
        precision: "bfloat16", in either mode, changes outputs by up to a few percent of the largest on CPUs.
            Convolutions and Dense layers multiply in bfloat16 and add in float32, except where float32 is faster:
            Winograd convolutions on large images or with many channels, kernels of few channels, and classifiers. The
            rest stays float32. On other platforms all kernels and activations are bfloat16. For CPUs with bfloat16
            instructions (AVX-512 BF16, AMX), GPUs and TPUs.
        bfloat16_pointwise: The older name of `precision="bfloat16"`.
        platform: Platform to optimize for: "cpu", "gpu", "tpu"; None takes JAX's default. The result runs on
            any platform, but is fast on this one only.

    Returns:
        The optimized model and its variables, for inference only; it cannot be saved to Keras files. Variables of
        layers moved into the nested model `image_by_image` are under its name.

    Raises:
        ValueError: The mode is unknown, or the variables do not fit the model.

    >>> from flaxapps.vgg16 import VGG16
    >>> model, variables = VGG16(weights=None, include_top=False, input_shape=(96, 96, 3))
    >>> faster, its_variables = optimize(model, variables, "fast")
    >>> [layer.class_name for layer in faster.layers][:4]
    ['InputLayer', 'ImageByImage', 'WinogradConv2D', 'WinogradConv2D']
    """
    platform = platform or jax.default_backend()
    if bfloat16_pointwise is not None:
        warnings.warn('bfloat16_pointwise is now precision="bfloat16"', DeprecationWarning, stacklevel=2)
        precision = "bfloat16" if bfloat16_pointwise else precision
    network = optimize_layers(model, variables, mode, platform, precision)
    return run_image_by_image(network, platform)


def run_image_by_image(network: Network, platform: str) -> Network:
    """Runs the first layers of a network image by image on CPUs, while their activations are large.

    Int8 networks have small activations: for them a loop over images costs more than it saves.
    """
    if platform != "cpu" or is_quantized(network.model.graph):
        return network
    return split_image_by_image(*network, LARGE_TENSOR)


def optimize_layers(
    model: Model,
    variables: Mapping[str, Any],
    mode: Mode,
    platform: str,
    precision: Precision = "float32",
) -> Network:
    """Does what `optimize` does with single layers, and runs none image by image."""
    mode = checked_mode(mode)
    check_precision(precision, mode)
    network = fold_batch_norm(model, variables)
    if platform == "cpu":
        rule = use_winograd if mode == "fast" else use_winograd_on_large_images
        network = rewrite(*network, use_winograd_beside_bfloat16 if precision == "bfloat16" else rule)
    if precision == "float32":
        return network
    if platform == "cpu":
        return rewrite(*network, multiply_in_bfloat16)
    return rewrite(with_dtype(network.model, precision), network.variables, store_in_bfloat16)


def is_quantized(graph: Graph) -> bool:
    """Whether a graph, or one nested in it, has layers of `flaxapps.quantize`."""
    return any(
        isinstance(step.layer, layers.Quantize)
        or (isinstance(step.layer, layers.Functional) and is_quantized(step.layer.graph))
        for step in graph.steps
    )


def checked_mode(mode: str, argument: str = "mode") -> Mode:
    """Checks a mode of `optimize`, and replaces its older name.

    Args:
        mode: "default" or "fast"; "exact" becomes "default", with a warning.
        argument: Name of the caller's argument, for messages.

    Raises:
        ValueError: The mode is unknown.
    """
    if mode == "exact":  # the name until 0.1; outputs differ by up to 1e-5
        warnings.warn(f'{argument}="exact" is now called "default"', DeprecationWarning, stacklevel=3)
        return "default"
    if mode not in get_args(Mode):
        raise ValueError(f"{argument} should be {' or '.join(map(repr, get_args(Mode)))}, got {mode!r}")
    known: Mode = mode  # type: ignore[assignment]  # checked above
    return known


def check_precision(precision: str, mode: str | None) -> None:
    """Checks a precision of `optimize`.

    Args:
        precision: "float32" or "bfloat16".
        mode: The mode of `optimize`, or None.

    Raises:
        ValueError: The precision is unknown, or needs a mode.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision should be {' or '.join(map(repr, get_args(Precision)))}, got {precision!r}")
    if precision != "float32" and mode is None:
        raise ValueError(f'precision={precision!r} needs optimize="default" or "fast"')


def use_winograd(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """Rewriting rule: convolutions of stride 1 with enough channels become Winograd convolutions."""
    if not _suits_winograd(layer, weights):
        return None
    arrays: dict[str, Any] = jax.device_put(winograd.transform_kernel(on_host(weights)["kernel"]))
    result = _conv(layers.WinogradConv2D, layer, kernel_size=layer.kernel_size)(inputs)
    return result, {layer.name or "": arrays | _bias(weights)}


def use_winograd_on_large_images(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """Rewriting rule: `use_winograd`, if the transformed kernel is not larger than the layer's output per image."""
    if not _suits_winograd(layer, weights):
        return None
    (output,) = layer.output_shapes(inputs[0].shape)
    matrices = len(winograd.product_names(pair(layer.kernel_size))) * math.prod(weights["kernel"].shape[2:])
    if matrices > math.prod(size or 0 for size in output[1:]):  # free sizes count as 0
        return None
    return use_winograd(layer, inputs, weights)


def use_winograd_beside_bfloat16(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """Rewriting rule: `use_winograd`, on large images and where many pixels meet many channels.

    There its float32 products are faster than those of bfloat16 windows, of which there are four times as many.
    """
    if not _suits_winograd(layer, weights):
        return None
    (output,) = layer.output_shapes(inputs[0].shape)
    many = math.prod(size or 0 for size in output[1:3]) >= MANY_PIXELS
    if many and min(weights["kernel"].shape[2:]) >= MANY_CHANNELS:
        return use_winograd(layer, inputs, weights)
    return use_winograd_on_large_images(layer, inputs, weights)


def multiply_in_bfloat16(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """Rewriting rule: convolutions and Dense layers multiply in bfloat16 and add in float32, where that is faster.

    It is not on a single row, for which XLA has no fast product in bfloat16 (VGG's first Dense layer would take 136 ms;
    in float32, 17), and not for kernels with few channels, where copying the windows takes as long as the product.
    """
    if type(layer) is layers.SeparableConv2D:
        return split_separable(layer, inputs, weights, layers.Bfloat16Conv2D)
    if type(layer) is layers.Dense and len(inputs[0].shape) > 2:
        return _as_kind(layers.Bfloat16Dense, layer)(inputs), {layer.name or "": _rounded(weights)}
    if type(layer) is not layers.Conv2D or layer.groups > 1:
        return None
    (output,) = layer.output_shapes(inputs[0].shape)
    least = LEAST_CHANNELS_1X1 if pair(layer.kernel_size) == (1, 1) else LEAST_CHANNELS_OF_WINDOWS
    if output[1:3] == (1, 1) or weights["kernel"].shape[2] < least:
        return None
    return _as_kind(layers.Bfloat16Conv2D, layer)(inputs), {layer.name or "": _rounded(weights)}


def store_in_bfloat16(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """Rewriting rule: kernels become bfloat16, except where float32 is faster: in Dense layers on single vectors.

    XLA has no fast product of one row in bfloat16: VGG's first Dense layer takes 136 ms, in float32 17.
    """
    if type(layer) is layers.Dense and len(inputs[0].shape) == 2:
        return dataclasses.replace(layer, dtype="float32")(inputs)
    if type(layer) in (layers.Conv2D, layers.SeparableConv2D, layers.Dense):
        return layer(inputs), {layer.name or "": _rounded(weights)}
    return None


def split_separable(layer: Layer, inputs: list[Node], weights: Weights, pointwise: Any = None) -> Replacement:
    """Rewriting rule: separable convolutions become a depthwise convolution, `NAME_depthwise`, and a 1x1 one.

    Args:
        layer: The layer.
        inputs: Its inputs.
        weights: Its arrays.
        pointwise: Kind of the 1x1 convolution; None for Conv2D.
    """
    if type(layer) is not layers.SeparableConv2D:
        return None
    name = f"{layer.name}_depthwise"
    kept = {
        field: getattr(layer, field) for field in ("strides", "padding", "dilation_rate", "depth_multiplier", "dtype")
    }
    x = layers.DepthwiseConv2D(layer.kernel_size, use_bias=False, name=name, **kept)(inputs)
    arrays = {"kernel": weights["pointwise_kernel"], **_bias(weights)}
    if pointwise:
        arrays = _rounded(arrays)
    last = _conv(pointwise or layers.Conv2D, layer, kernel_size=1)
    return last(x), {name: {"kernel": weights["depthwise_kernel"]}, layer.name or "": arrays}


def _suits_winograd(layer: Layer, weights: Weights) -> TypeGuard[layers.Conv2D]:
    if type(layer) is not layers.Conv2D or layer.groups > 1 or pair(layer.kernel_size) not in WINOGRAD_KERNELS:
        return False
    steps = {*pair(layer.strides), *pair(layer.dilation_rate)}
    return steps == {1} and min(weights["kernel"].shape[2:]) >= LEAST_CHANNELS


def _conv(kind: Any, layer: Layer, **options: Any) -> Layer:
    """Creates a layer of another class from the config fields that the two share."""
    common = {
        field: getattr(layer, field) for field in ("filters", "activation", "use_bias", "padding", "name", "dtype")
    }
    result: Layer = kind(**common, **options)
    return result


def _as_kind(kind: type[Layer], layer: Layer) -> Layer:
    """Creates a layer of a subclass with the fields of the layer."""
    return kind(**{field.name: getattr(layer, field.name) for field in dataclasses.fields(layer) if field.init})


def _rounded(weights: Weights) -> dict[str, Any]:
    return {leaf: array.astype(jnp.bfloat16) if "kernel" in leaf else array for leaf, array in weights.items()}


def _bias(weights: Weights) -> dict[str, Any]:
    return {leaf: array for leaf, array in weights.items() if leaf == "bias"}
