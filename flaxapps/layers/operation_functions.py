"""Functions that compute Keras operations without a direct JAX equivalent."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.layers.image_preprocessing import resize


def get_item(x: jax.Array, key: Any) -> jax.Array:
    """`x[key]`."""
    found: jax.Array = x[tuple(key) if isinstance(key, list) else key]
    return found


def pad(x: jax.Array, pad_width: Any, mode: str = "constant", constant_values: float | None = None) -> jax.Array:
    """keras.ops.pad."""
    options = {} if constant_values is None else {"constant_values": constant_values}
    return jnp.pad(x, pad_width, mode, **options)


def normalize(x: jax.Array, axis: Any = -1, order: int = 2, epsilon: float = 1e-12) -> jax.Array:
    """keras.ops.normalize with the Euclidean norm."""
    if order != 2:
        raise ValueError(f"keras.ops.normalize is imported with order=2 (the Euclidean norm) only, got {order}")
    squared = jnp.sum(jnp.square(x), axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, jnp.asarray(epsilon**2, x.dtype)))


def resized(images: jax.Array, size: Any, interpolation: str = "bilinear", antialias: bool = False, **rest: Any) -> Any:
    """keras.ops.image.resize of channels_last images."""
    unknown = {key: value for key, value in rest.items() if value not in (False, None, "constant", 0, "channels_last")}
    if unknown:
        raise ValueError(f"keras.ops.image.resize is imported without the options {unknown}")
    return resize(images, (int(size[0]), int(size[1])), interpolation, antialias)


def depth_to_space(x: jax.Array, block_size: int, data_format: str = "channels_last") -> jax.Array:
    """Rearrange channels into blocks of pixels."""
    if data_format != "channels_last":
        raise ValueError("depth_to_space is imported for channels_last images")
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, block_size, block_size, channels // block_size**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block_size, width * block_size, -1)


def space_to_depth(x: jax.Array, block_size: int, data_format: str = "channels_last") -> jax.Array:
    """Rearrange blocks of pixels into channels."""
    if data_format != "channels_last":
        raise ValueError("space_to_depth is imported for channels_last images")
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // block_size, block_size, width // block_size, block_size, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block_size, width // block_size, -1)


def pool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adapt a Flax pooling function to the signature of keras.ops, for any rank."""

    def pool(
        x: jax.Array, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
    ) -> Any:
        if data_format not in (None, "channels_last"):
            raise ValueError("pooling operations are imported for channels_last images")
        rank = x.ndim - 2
        window = (pool_size,) * rank if isinstance(pool_size, int) else tuple(pool_size)
        steps = window if strides is None else (strides,) * rank if isinstance(strides, int) else tuple(strides)
        return function(x, window, steps, padding.upper())

    return pool


def gray(images: jax.Array, data_format: str | None = None) -> jax.Array:
    """keras.ops.image.rgb_to_grayscale."""
    if data_format not in (None, "channels_last"):
        raise ValueError("rgb_to_grayscale is imported for channels_last images")
    shares = jnp.asarray((0.2989, 0.5870, 0.1140), images.dtype)
    return jnp.sum(images * shares, -1, keepdims=True)


def norm(x: jax.Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> jax.Array:
    """keras.ops.norm."""
    length: jax.Array = jnp.linalg.norm(x, ord, axis, keepdims)
    return length


def one_hot(x: jax.Array, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> jax.Array:
    """keras.ops.one_hot, as a dense array."""
    if sparse:
        raise ValueError("keras.ops.one_hot is imported for dense arrays, got sparse=True")
    return jax.nn.one_hot(x.astype(jnp.int32), num_classes, axis=axis, dtype=dtype or "float32")


def take(x: jax.Array, indices: Any, axis: int | None = None) -> jax.Array:
    """keras.ops.take."""
    return jnp.take(x, jnp.asarray(indices), axis)


def divide_no_nan(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Quotients; 0 where the divisor is 0."""
    # The second `where` keeps the division, and so its gradient, finite where the divisor is 0.
    return jnp.where(jnp.equal(x2, 0), jnp.zeros((), jnp.result_type(x1, x2)), x1 / jnp.where(jnp.equal(x2, 0), 1, x2))


def saturated(x: jax.Array, dtype: str) -> jax.Array:
    """keras.ops.saturate_cast."""
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.integer):
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    return jnp.clip(x, float(limits.min), float(limits.max)).astype(dtype)
