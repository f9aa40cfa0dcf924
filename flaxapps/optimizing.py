"""Rewrites of a network for inference."""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, get_args

import jax

from flaxapps import layers, winograd
from flaxapps.folding import fold_batch_norm
from flaxapps.imagewise import split_image_by_image
from flaxapps.layers.shapes import pair
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.recording import Layer, Node, Weights
from flaxapps.rewriting import Replacement, on_host, rewrite

Mode = Literal["exact", "fast"]
WINOGRAD_KERNELS = {(3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (7, 1)}
LEAST_CHANNELS = 32  # below, what Winograd's transforms cost is more than its products save
# Bytes a layer makes of one image from which on images go one by one: a batch of these does not fit into a cache, and
# below, reading the kernels once for every image costs more.
LARGE_TENSOR = 2 * 2**20


def optimize(
    model: Model,
    variables: Mapping[str, Any],
    mode: Mode = "exact",
    *,
    bfloat16_pointwise: bool = False,
    platform: str | None = None,
) -> Network:
    """A model that computes the same faster, and its variables. The given ones stay as they are.

    Both modes fold BatchNormalization (`fold_batch_norm`). On CPUs the first layers, as long as their tensors are
    large, go image by image, and convolutions of stride 1 with at least 32 channels and kernels 3x3, 5x5, or of 3 or 7
    pixels in one direction are Winograd's products: in "fast" all of them, in "exact" those on large images. The
    matrices that replace a kernel take up to four times its memory; compiling takes longer, in "fast" several times.

    Args:
        model: The network. Where image sizes are free, nothing goes image by image.
        variables: Its arrays.
        mode: "exact" moves outputs by at most 1e-5 of the largest, "fast" by at most 1e-4.
        bfloat16_pointwise: Whether 1x1 convolutions multiply in bfloat16 and add in float32. It moves outputs by about
            1e-2 of the largest, and is for CPUs with instructions for it (AVX-512 BF16, AMX).
        platform: What the model will run on: "cpu", "gpu", "tpu"; None for JAX's default. The result runs anywhere, but
            fast there only.

    Returns:
        The optimized model and its variables: for inference only, and not for files of Keras. Layers moved into a
        nested model `image_by_image` have their variables there.

    Raises:
        ValueError: There is no such mode, or the variables are not the model's.

    >>> from flaxapps.vgg16 import VGG16
    >>> model, variables = VGG16(weights=None, include_top=False, input_shape=(96, 96, 3))
    >>> faster, its_variables = optimize(model, variables, "fast")
    >>> [layer.class_name for layer in faster.layers][:4]
    ['InputLayer', 'ImageByImage', 'WinogradConv2D', 'WinogradConv2D']
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {' or '.join(map(repr, get_args(Mode)))}, got {mode!r}")
    network = fold_batch_norm(model, variables)
    if bfloat16_pointwise:
        network = rewrite(*network, multiply_in_bfloat16)
    if (platform or jax.default_backend()) != "cpu":
        return network
    network = rewrite(*network, use_winograd if mode == "fast" else use_winograd_on_large_images)
    return split_image_by_image(*network, LARGE_TENSOR)


def use_winograd(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """A rule: convolutions of stride 1 with enough channels in and out become Winograd's products."""
    if not _suits_winograd(layer, weights):
        return None
    arrays: dict[str, Any] = jax.device_put(winograd.transform_kernel(on_host(weights)["kernel"]))
    result = _conv(layers.WinogradConv2D, layer, kernel_size=layer.kernel_size)(inputs)
    return result, {layer.name or "": arrays | _bias(weights)}


def use_winograd_on_large_images(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """A rule: as `use_winograd`, where the matrices take no more memory than what the layer makes of one image."""
    if not _suits_winograd(layer, weights):
        return None
    (output,) = layer.output_shapes(inputs[0].shape)
    matrices = len(winograd.product_names(pair(layer.kernel_size))) * math.prod(weights["kernel"].shape[2:])
    if matrices > math.prod(size or 0 for size in output[1:]):  # 0 where a size is free: nobody knows
        return None
    return use_winograd(layer, inputs, weights)


def multiply_in_bfloat16(layer: Layer, inputs: list[Node], weights: Weights) -> Replacement:
    """A rule: 1x1 convolutions multiply in bfloat16, those that end separable convolutions included."""
    if type(layer) is layers.Conv2D and pair(layer.kernel_size) == (1, 1) and layer.groups == 1:
        return _conv(layers.Bfloat16Conv2D, layer, strides=layer.strides)(inputs)
    if type(layer) is not layers.SeparableConv2D:
        return None
    name = f"{layer.name}_depthwise"
    kept = {
        field: getattr(layer, field) for field in ("strides", "padding", "dilation_rate", "depth_multiplier", "dtype")
    }
    x = layers.DepthwiseConv2D(layer.kernel_size, use_bias=False, name=name, **kept)(inputs)
    arrays = {"kernel": weights["pointwise_kernel"], **_bias(weights)}
    result = _conv(layers.Bfloat16Conv2D, layer)(x)
    return result, {name: {"kernel": weights["depthwise_kernel"]}, layer.name or "": arrays}


def _suits_winograd(layer: Layer, weights: Weights) -> TypeGuard[layers.Conv2D]:
    if type(layer) is not layers.Conv2D or layer.groups > 1 or pair(layer.kernel_size) not in WINOGRAD_KERNELS:
        return False
    steps = {*pair(layer.strides), *pair(layer.dilation_rate)}
    return steps == {1} and min(weights["kernel"].shape[2:]) >= LEAST_CHANNELS


def _conv(kind: Any, layer: Layer, **options: Any) -> Layer:
    """A layer of another kind with what the two have in common."""
    common = {
        field: getattr(layer, field) for field in ("filters", "activation", "use_bias", "padding", "name", "dtype")
    }
    result: Layer = kind(**common, **options)
    return result


def _bias(weights: Weights) -> dict[str, Any]:
    return {leaf: array for leaf, array in weights.items() if leaf == "bias"}
