"""Activation functions by Keras's names, and activation layers."""

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers import activations
from flaxapps.layers.masks import masked_softmax
from flaxapps.ops import primitives as ops
from flaxapps.ops.primitives import float32_at_least

ActivationLike = str | Callable[[jax.Array], jax.Array] | Layer
Axes = int | tuple[int, ...]


def softmax(x: jax.Array, axis: Axes = -1) -> jax.Array:
    """Softmax over one axis or several; half precision is computed and returned in float32."""
    return jax.nn.softmax(ops.float32_at_least(x), axis=axis)


def log_softmax(x: jax.Array) -> jax.Array:
    """Logarithm of the softmax over the last axis, computed in float32 at least."""
    return _narrowed(jax.nn.log_softmax(ops.float32_at_least(x), axis=-1), x)


def _narrowed(result: jax.Array, x: jax.Array) -> jax.Array:
    """The result in the dtype of `x`, unless that is an integer dtype."""
    return result.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else result


def sparsemax(x: jax.Array) -> jax.Array:
    """Keras's sparsemax over the last axis, computed in float32 at least.

    Trap: this is not the projection onto the simplex of Martins and Astudillo (2016). Keras 3.15 adds up all partial
    sums of the support; the paper takes the last one. Rows with a larger support therefore do not sum to 1.
    """
    values = ops.float32_at_least(x)
    descending = -jnp.sort(-values, axis=-1)
    partial_sums = jnp.cumsum(descending, -1)
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=values.dtype)
    support = descending - (partial_sums - 1) / rank > 0
    size = jnp.sum(support, -1, keepdims=True, dtype=values.dtype)
    threshold = (jnp.sum(jnp.where(support, partial_sums, 0.0), -1, keepdims=True) - 1) / size
    return _narrowed(jnp.maximum(values - threshold, 0.0), x)


def relu(
    x: jax.Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> jax.Array:
    """`x` above the threshold, capped at `max_value`; negative_slope * (x - threshold) elsewhere.

    The common cases are jax.nn's functions, which agree with Keras on infinities and on the gradient at zero.
    """
    if threshold == 0 and max_value is None:
        return jax.nn.leaky_relu(x, negative_slope) if negative_slope else jax.nn.relu(x)
    if threshold == 0 and not negative_slope:
        return jax.nn.relu6(x) if max_value == 6 else jnp.clip(jax.nn.relu(x), 0.0, max_value)
    above = x if max_value is None else jnp.minimum(x, max_value)
    below = negative_slope * (x - threshold) if negative_slope else 0.0
    return jnp.where(x > threshold, above, below)


def hard_shrink(x: jax.Array) -> jax.Array:
    """Zero between -0.5 and 0.5, the identity elsewhere."""
    return jnp.where(jnp.abs(x) > 0.5, x, 0.0)


def soft_shrink(x: jax.Array) -> jax.Array:
    """Zero between -0.5 and 0.5, the identity moved by 0.5 towards zero elsewhere."""
    return jnp.where(x > 0.5, x - 0.5, jnp.where(x < -0.5, x + 0.5, 0.0))


def keras2_hard_sigmoid(x: jax.Array) -> jax.Array:
    """The "hard_sigmoid" of Keras 1 and 2: x / 5 + 0.5, clipped to [0, 1]. That of Keras 3 divides by 6."""
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


# "threshold" is omitted: in Keras it has required arguments, so it cannot be given by name.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "softmax": softmax,
        "tanh": jnp.tanh,
        "celu": jax.nn.celu,
        "elu": jax.nn.elu,
        "exponential": jnp.exp,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
        "glu": jax.nn.glu,
        "hard_shrink": hard_shrink,
        "hard_sigmoid": jax.nn.hard_sigmoid,
        "hard_silu": jax.nn.hard_silu,
        "hard_swish": jax.nn.hard_silu,
        "hard_tanh": jax.nn.hard_tanh,
        "leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
        "log_sigmoid": jax.nn.log_sigmoid,
        "log_softmax": log_softmax,
        "mish": jax.nn.mish,
        "relu6": jax.nn.relu6,
        "selu": jax.nn.selu,
        "silu": jax.nn.silu,
        "soft_shrink": soft_shrink,
        "softplus": jax.nn.softplus,
        "softsign": jax.nn.soft_sign,
        "sparse_plus": jax.nn.sparse_plus,
        "sparse_sigmoid": jax.nn.sparse_sigmoid,
        "sparsemax": sparsemax,
        "squareplus": jax.nn.squareplus,
        "swish": jax.nn.silu,
        "tanh_shrink": lambda x: x - jnp.tanh(x),
    }
)


REGISTERED_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {}  # filled by layers.register_activation


def get_activation(activation: ActivationLike) -> Callable[[jax.Array], jax.Array]:
    """Resolve a Keras activation name, or a layer without weights, to a function; return other callables unchanged.

    Raises:
        ValueError: `activation` is a name that is neither Keras's nor registered.
    """
    if isinstance(activation, Layer):
        return functools.partial(activation.call, {})
    if callable(activation):
        return activation
    _, prefix, own = activation.rpartition(">")  # "Custom>relu" is a user's function, not Keras's
    if own in REGISTERED_ACTIVATIONS:
        return REGISTERED_ACTIVATIONS[own]
    if prefix:
        raise ValueError(
            f"The activation {own!r} is a custom function, which is not in the file: define it with "
            f"flaxapps.layers.register_activation({own!r})"
        )
    if activation not in ACTIVATIONS:
        close = difflib.get_close_matches(activation, ACTIVATIONS)
        meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(
            f"Unknown activation {activation!r}. {meant}Give a function. For files, define it with "
            f"flaxapps.layers.register_activation({activation!r})."
        )
    return ACTIVATIONS[activation]


def bias_and_activation(x: jax.Array, weights: Weights, activation: ActivationLike | None) -> jax.Array:
    """Add the bias, if there is one, and apply the activation."""
    x = ops.fusion_barrier(x)
    if "bias" in weights:
        x = x + weights["bias"].astype(x.dtype)
    return get_activation(activation or "linear")(x)


@dataclass(frozen=True)
class Activation(Layer):
    """Applies an activation function, given by Keras's name or as a function of an array; None is the identity."""

    activation: ActivationLike | None

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged, except that "glu" halves the last dimension (Keras declares it unchanged)."""
        get_activation(self.activation or "linear")
        if self.activation != "glu" or shapes[0][-1] is None:
            return shapes[0]
        if shapes[0][-1] % 2:
            raise ValueError(f'"glu" splits the last dimension in two, so it must be even, got shape {shapes[0]}')
        return (*shapes[0][:-1], shapes[0][-1] // 2)

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return get_activation(self.activation or "linear")(inputs[0])


@dataclass(frozen=True)
class Identity(Layer):
    """The input, unchanged."""

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0]


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0), with options that can be combined.

    Attributes:
        max_value: Upper bound of the output; None for no bound.
        negative_slope: Factor of (x - threshold) where x is not above the threshold.
        threshold: Values up to here count as negative. Those above pass unchanged, so the function is not continuous.
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return activations.relu(inputs[0], self.negative_slope, self.max_value, self.threshold)


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """negative_slope * x below zero. Trap: the slope of the layer is 0.3 by default, of the name "leaky_relu" 0.2."""

    negative_slope: float = 0.3

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jax.nn.leaky_relu(inputs[0], self.negative_slope)


@dataclass(frozen=True)
class PReLU(Layer):
    """alpha * x below zero, with a trained alpha for every position of the input.

    Attributes:
        shared_axes: Dimensions, counted from 1 after the batch, along which there is one alpha: (1, 2) gives one per
            channel of an image. Without them the size of the input is fixed.
    """

    takes_integers = True
    shared_axes: Sequence[int] | int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared_axes", self._shared())

    def _shared(self) -> tuple[int, ...]:
        return (self.shared_axes,) if isinstance(self.shared_axes, int) else tuple(self.shared_axes or ())

    def output_shape(self, *shapes: Shape) -> Shape:
        self.weights(*shapes)  # raises if the slopes depend on a free size
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The slopes, without a batch dimension."""
        sizes = [1 if axis in self._shared() else size for axis, size in enumerate(shapes[0][1:], start=1)]
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise ValueError(
                f"PReLU has a slope for every position, so its input needs a fixed size, got shape {shapes[0]}; "
                "give the size, or shared_axes"
            )
        return {"alpha": Weight(known, "zeros")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Apply the function, as a difference of two relu, which determines the gradient at zero."""
        (x,) = inputs
        above, below = jax.nn.relu(x), jax.nn.relu(-x)
        if not jnp.issubdtype(x.dtype, jnp.floating):  # Keras negates before it casts integers
            above, below = above.astype(jnp.float32), below.astype(jnp.float32)
        return above - weights["alpha"].astype(above.dtype) * below


@dataclass(frozen=True)
class ELU(Layer):
    """alpha * (exp(x) - 1) below zero."""

    alpha: float = 1.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return jax.nn.elu(inputs[0], self.alpha)


@dataclass(frozen=True)
class Softmax(Layer):
    """Softmax over one axis or several together, computed in float32.

    Trap: the result of half precision is half precision here; the activation "softmax", which ends classifiers, returns
    float32. A second input is a mask: True keeps a value.
    """

    call_fields = ("given",)
    axis: int | Sequence[int] = -1
    given: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", self._axes())

    def _axes(self) -> int | tuple[int, ...]:
        return self.axis if isinstance(self.axis, int) else tuple(self.axis)

    def output_shape(self, *shapes: Shape) -> Shape:
        rank, axes = len(shapes[0]), self._axes()
        axes = (axes,) if isinstance(axes, int) else axes
        if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) < len(axes):
            raise ValueError(f"axis={self.axis} is repeated or not among the {rank} dimensions of {shapes[0]}")
        return shapes[0]

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x, *masks = inputs
        if not masks:
            result = activations.softmax(x, self._axes())
            return result.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else result
        mask = masks[0] if masks[0].dtype == bool else masks[0] > 0.5
        return masked_softmax(float32_at_least(x), mask, self._axes(), zero=True).astype(x.dtype)
