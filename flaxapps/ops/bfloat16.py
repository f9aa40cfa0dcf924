"""Products of bfloat16 factors with float32 sums.

On CPUs with AVX-512 BF16 or AMX, a product of bfloat16 matrices is twice as fast as one in float32, but a bfloat16
convolution is slower. Convolutions therefore multiply a matrix of all windows there.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from flaxapps.ops import cpu_windows as cpu

Pair = tuple[int, int]


def convolution(x: jax.Array, kernel: jax.Array, strides: Pair, padding: str, dilation: Pair = (1, 1)) -> jax.Array:
    """Convolves images and a kernel, both rounded to bfloat16.

    Args:
        x: (batch, height, width, channels).
        kernel: (height, width, channels, filters).
        strides: As for `primitives.convolution`.
        padding: As for `primitives.convolution`.
        dilation: As for `primitives.convolution`.

    Returns:
        (batch, height, width, filters), float32.
    """
    height, width, _, filters = kernel.shape
    default = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )

    def windows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pixels = cpu.joined_windows(x, (height, width), strides, padding, dilation)
        return dense(pixels, kernel.reshape(-1, filters))

    result: jax.Array = lax.platform_dependent(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), cpu=windows, default=default
    )
    return result


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product of (..., inputs) and (inputs, units), both rounded to bfloat16; float32."""
    contracted = (((x.ndim - 1,), (0,)), ((), ()))
    factors = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return lax.dot_general(*factors, contracted, preferred_element_type=jnp.float32)
