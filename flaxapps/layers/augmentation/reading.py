"""Images read at fractional positions, and smoothed."""

import functools
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
ORDERS = MappingProxyType({"nearest": 0, "bilinear": 1})


def check_reading(interpolation: str, fill_mode: str) -> None:
    """Check how pixels are read.

    Raises:
        ValueError: Keras has no such interpolation or fill mode.
    """
    for name, value, known in (("interpolation", interpolation, ORDERS), ("fill_mode", fill_mode, FILL_MODES)):
        if value not in known:
            raise ValueError(f"{name} should be one of {', '.join(known)}; got {value!r}")


def sample(
    x: jax.Array, rows: jax.Array, columns: jax.Array, interpolation: str, fill_mode: str, fill_value: float
) -> jax.Array:
    """Read images at fractional positions.

    Args:
        x: (batch, height, width, channels), floating.
        rows: (batch, new height, new width), float32, in pixels from the centre of the first row.
        columns: As `rows`.
        interpolation: One of `ORDERS`.
        fill_mode: One of `FILL_MODES`, for positions outside the image.
        fill_value: Value outside the image, for "constant".

    Returns:
        (batch, new height, new width, channels), in the dtype of `x`.
    """

    def one_channel(channel: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        read: jax.Array = map_coordinates(channel, [rows, columns], ORDERS[interpolation], fill_mode, fill_value)
        return read

    one_image = jax.vmap(one_channel, (-1, None, None), -1)
    # JAX mixes int32 indices and float weights inside.
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = jax.vmap(one_image)(x, rows, columns).astype(x.dtype)
    return found


def grid(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Row numbers (1, height, 1) and column numbers (1, 1, width), float32."""
    height, width = x.shape[1:3]
    return jnp.arange(height, dtype=jnp.float32)[None, :, None], jnp.arange(width, dtype=jnp.float32)[None, None, :]


def smooth(x: jax.Array, down: jax.Array, across: jax.Array) -> jax.Array:
    """Convolve every channel with the outer product of two kernels, (height,) and (width,); zeros outside.

    Args:
        x: (batch, height, width, channels).
        down: Kernel along the height, in the dtype of `x`.
        across: Kernel along the width.
    """
    channels = x.shape[-1]
    kernel = jnp.broadcast_to(jnp.outer(down, across)[:, :, None, None], (len(down), len(across), 1, channels))
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", feature_group_count=channels
    )
    smoothed: jax.Array = convolve(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return smoothed
