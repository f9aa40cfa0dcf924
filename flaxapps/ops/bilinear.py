"""Products of images and kernels with gradients of our own."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Compute = Callable[..., jax.Array]


def bilinear(name: str, compute: Compute, gradient_of_x: Compute, gradient_of_kernel: Compute) -> Compute:
    """Returns `compute` with other gradients.

    It is a primitive of JAX, because `custom_vjp` would exclude forward-mode derivatives, and `linear_call` exclude
    `vmap`. Under `shard_map`, and with sharding in types, the result is `compute` itself, with its own gradients.

    Args:
        name: Name of the primitive.
        compute: Function of (x, kernel, **options), linear in both arrays. The first axis of x is a batch. Options are
            hashable.
        gradient_of_x: Function of (gradient of the result, shape of x, kernel, **options).
        gradient_of_kernel: Function of (gradient of the result, x, shape of the kernel, **options).
    """
    primitive = Primitive(name)
    primitive.def_impl(compute)
    primitive.def_abstract_eval(functools.partial(_result_type, compute))
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    ad.defbilinear(
        primitive,
        lambda change, x, kernel, **options: gradient_of_x(change, x.aval.shape, kernel, **options),
        lambda change, x, kernel, **options: gradient_of_kernel(change, x, kernel.aval.shape, **options),
    )

    def batched(factors: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
        if axes[1] is None:
            # One kernel for all: the axis of vmap becomes part of the batch axis. With a call for each of its entries,
            # the gradient of the kernel would be rounded once for each.
            x = jnp.moveaxis(factors[0], axes[0], 0)
            merged = primitive.bind(x.reshape(-1, *x.shape[2:]), factors[1], **options)
            return merged.reshape(*x.shape[:2], *merged.shape[1:]), 0
        return jax.vmap(functools.partial(compute, **options), in_axes=tuple(axes))(*factors), 0

    batching.primitive_batchers[primitive] = batched

    def multiply(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
        if not all(_is_plain(each) for each in (x, kernel)):
            return compute(x, kernel, **options)
        result: jax.Array = primitive.bind(x, kernel, **options)
        return result

    return multiply


def _is_plain(x: jax.Array) -> bool:
    """Whether shape and dtype are all that JAX knows of an array at this point."""
    return bool(jax.typeof(x) == jax.core.ShapedArray(x.shape, x.dtype))


def _result_type(compute: Compute, *factors: Any, **options: Any) -> Any:
    result = jax.eval_shape(functools.partial(compute, **options), *factors)
    return jax.core.ShapedArray(result.shape, result.dtype)
