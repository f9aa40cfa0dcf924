"""Encoding of categories and ranges, masking, and layers that act mainly in training."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import check_images
from flaxapps.graph.symbolic import Layer, Shape, Weights

OUTPUT_MODES = ("int", "one_hot", "multi_hot", "count")


class _Encoding(Layer):
    output_mode: str
    sparse: bool
    autocast = False  # a cast to the layer's dtype, int64, would truncate values before they are compared to ranges

    def __post_init__(self) -> None:
        if self.output_mode not in OUTPUT_MODES or self.sparse:
            raise ValueError(f"{self.class_name} has output_mode {self.output_mode!r}, sparse={self.sparse}")

    @property
    def depth(self) -> int:
        """Number of categories."""
        raise NotImplementedError

    def output_shape(self, *shapes: Shape) -> Shape:
        """Add a last dimension for the categories, or replace it if it is 1."""
        shape = shapes[0]
        if self.output_mode == "int":
            return shape
        if self.output_mode == "one_hot":
            return (*(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape), self.depth)
        return (
            (*shape[:1], *shape[2:], self.depth) if len(shape) > 1 else (self.depth,)
        )  # summed over axis 1, as in Keras

    def encode(self, indices: jax.Array, factors: jax.Array | None = None) -> jax.Array:
        """Encode the indices according to `output_mode`, in the dtype of the layer.

        Args:
            indices: The categories.
            factors: Weights of the indices in a count; None for 1.
        """
        dtype = jax.dtypes.canonicalize_dtype(self.dtype or "float32")  # int64 only if jax_enable_x64 is set
        if self.output_mode == "int":
            return indices.astype(jnp.int32)
        if self.output_mode == "one_hot":
            if indices.ndim > 1 and indices.shape[-1] == 1:
                indices = indices[..., 0]
            return jax.nn.one_hot(indices, self.depth, dtype=dtype)
        each = jax.nn.one_hot(indices, self.depth, dtype=dtype)
        if factors is not None:
            each = each * factors.astype(dtype)[..., None]
        counts = jnp.sum(each, 1 if indices.ndim > 1 else 0)
        return jnp.minimum(counts, 1) if self.output_mode == "multi_hot" else counts


@dataclass(frozen=True)
class CategoryEncoding(_Encoding):
    """Encodes integers as vectors of categories; in mode "count" a second input holds their weights."""

    call_fields = ("given",)
    num_tokens: int
    output_mode: str = "multi_hot"
    sparse: bool = False
    given: Sequence[str] = ()

    @property
    def depth(self) -> int:
        """The number of tokens."""
        return self.num_tokens

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return self.encode(inputs[0].astype(jnp.int32), *inputs[1:])


@dataclass(frozen=True)
class Discretization(_Encoding):
    """Index of the range that contains a value; ranges are closed on the left.

    Trap: in tf.keras the dtype of the layer is that of its result, int64; inputs are not cast to it.
    """

    bin_boundaries: Sequence[float]
    num_bins: int | None = None
    epsilon: float = 0.01
    output_mode: str = "int"
    sparse: bool = False

    @property
    def depth(self) -> int:
        """The number of boundaries plus one."""
        return len(self.bin_boundaries) + 1

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Find the ranges and encode their indices."""
        (x,) = inputs
        if jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(self.dtype or x.dtype, jnp.floating):
            x = x.astype(self.dtype or x.dtype)
        return self.encode(jnp.digitize(x, jnp.asarray(self.bin_boundaries, jnp.float32)))


@dataclass(frozen=True)
class ActivityRegularization(Layer):
    """The identity; a penalty on its input is added to the loss in training.

    Attributes:
        l1: Factor of the absolute values.
        l2: Factor of the squares.
    """

    l1: float = 0.0
    l2: float = 0.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0]


@dataclass(frozen=True)
class Masking(Layer):
    """Zeros steps whose values all equal `mask_value`.

    Keras also passes a mask to later layers. The importer refuses models in which a later layer uses it.
    """

    mask_value: float = 0.0

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Set masked steps to zero."""
        (x,) = inputs
        return jnp.where(jnp.any(x != self.mask_value, -1, keepdims=True), x, jnp.zeros((), x.dtype))


@dataclass(frozen=True)
class AutoContrast(Layer):
    """Stretches the values of every image channel over the whole range, also outside training."""

    makes_floats = True
    value_range: Sequence[float] = (0, 255)

    def output_shape(self, *shapes: Shape) -> Shape:
        return check_images(shapes[0])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Stretch the values; constant channels (0 / 0 below) stay as they are."""
        (x,) = inputs
        low, high = self.value_range
        scaled = (x - low) / (high - low) * 255.0
        smallest, largest = (reduce(scaled, (1, 2), keepdims=True) for reduce in (jnp.min, jnp.max))
        factor = 255.0 / (largest - smallest)
        stretched = jnp.clip(scaled * factor - smallest * factor, 0.0, 255.0) / 255.0 * (high - low) + low
        return jnp.where(jnp.isnan(stretched), x, stretched).astype(x.dtype)
