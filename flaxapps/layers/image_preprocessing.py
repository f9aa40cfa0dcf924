"""Image preprocessing: resizing, cropping, rescaling and normalization."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.graph.shapes import Pair, check_images
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.resampling import METHODS, resample

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos3", "lanczos5", "nearest")
EPSILON = 1e-7  # the default of keras.config.epsilon(), which files do not record
Numbers = float | tuple[Any, ...]


def check_interpolation(name: str) -> str:
    """Return `name` if it is an interpolation of Keras.

    Raises:
        ValueError: `name` is neither an interpolation of Keras 3 nor one of TensorFlow's in `METHODS`.
    """
    if name not in INTERPOLATIONS and name not in METHODS:
        raise ValueError(f"interpolation is one of {', '.join(INTERPOLATIONS)}, got {name!r}")
    return name


def resize(x: jax.Array, size: Pair, interpolation: str, antialias: bool = False) -> jax.Array:
    """Resize images, with pixel centres at half-integers (TensorFlow's half_pixel_centers)."""
    if interpolation in METHODS:
        return resample(x, size, interpolation)
    result: jax.Array = jax.image.resize(x, (x.shape[0], *size, x.shape[3]), interpolation, antialias=antialias)
    return result


def resize_any(x: jax.Array, size: Pair, interpolation: str, antialias: bool = False) -> jax.Array:
    """`resize`, also for integers: computed in float32, rounded and clipped to their range, as in Keras."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return resize(x, size, interpolation, antialias)
    limits = np.iinfo(x.dtype)
    resized = resize(x.astype(jnp.float32), size, interpolation, antialias)
    return jnp.clip(jnp.round(resized), int(limits.min), int(limits.max)).astype(x.dtype)


def _central_part(x: jax.Array, size: Pair) -> jax.Array:
    """The largest central crop with the aspect ratio of `size`. All sizes are rounded down, as in Keras."""
    height, width = x.shape[1:3]
    rows = max(min(height, int(float(width * size[0]) / size[1])), 1)
    columns = max(min(width, int(float(height * size[1]) / size[0])), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return x[:, top : top + rows, left : left + columns]


class _SizedLayer(Layer):
    height: int
    width: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """The size of the layer, for inputs of any size."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, self.height, self.width, channels)


@dataclass(frozen=True)
class Resizing(_SizedLayer):
    """Resizes images.

    Without `antialias` (Keras's default), shrinking by more than two skips pixels, so the result differs from Pillow's.
    Integer images stay integers; values are rounded.

    Attributes:
        crop_to_aspect_ratio: Whether to crop to the aspect ratio of the result first (central crop).
        pad_to_aspect_ratio: Whether to pad to the aspect ratio of the result first, with `fill_value`. The padding is
            the same on both sides, so an odd number of pixels is rounded down and the image is stretched a little.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    fill_mode: str = "constant"
    fill_value: float = 0.0
    antialias: bool = False

    def __post_init__(self) -> None:
        check_interpolation(self.interpolation)
        if self.fill_mode != "constant":
            raise ValueError(f'fill_mode can only be "constant", as in Keras, got {self.fill_mode!r}')
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ValueError("Only one of crop_to_aspect_ratio and pad_to_aspect_ratio can be True")

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        dtype = inputs[0].dtype
        whole = jnp.issubdtype(dtype, jnp.integer)
        x = inputs[0].astype(jnp.float32) if whole else inputs[0]
        size = (self.height, self.width)
        if self.crop_to_aspect_ratio:
            x = _central_part(x, size)
        if self.pad_to_aspect_ratio:
            height, width = x.shape[1:3]
            above = (max(height, int(float(width * self.height) / self.width)) - height) // 2
            before = (max(width, int(float(height * self.width) / self.height)) - width) // 2
            x = jnp.pad(x, ((0, 0), (above, above), (before, before), (0, 0)), constant_values=self.fill_value)
        x = resize(x, size, self.interpolation, self.antialias)
        if whole:
            limits = np.iinfo(dtype)
            x = jnp.clip(jnp.round(x), int(limits.min), int(limits.max))
        return x.astype(dtype)


@dataclass(frozen=True)
class CenterCrop(_SizedLayer):
    """Central crop. If the image is smaller in a dimension, its largest crop of this aspect ratio, resized."""

    makes_floats = True
    height: int
    width: int

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        (x,) = inputs
        size = (self.height, self.width)
        top, left = (x.shape[1] - self.height) // 2, (x.shape[2] - self.width) // 2
        if x.shape[1] < self.height or x.shape[2] < self.width:
            return resize(_central_part(x, size), size, "bilinear")
        return x[:, top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class Rescaling(Layer):
    """x * scale + offset; each a number, or one number per channel."""

    scale: Numbers
    offset: Numbers = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _numbers(self.scale))
        object.__setattr__(self, "offset", _numbers(self.offset))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        for values in (self.scale, self.offset):
            pairs = zip(reversed(np.shape(values)), reversed(shape), strict=False)
            if np.ndim(values) > len(shape) or any(size not in (1, None, count) for count, size in pairs if count != 1):
                raise ValueError(f"scale or offset of shape {np.shape(values)} does not fit an input of shape {shape}")
        return shape

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = _floating(inputs[0])
        return x * jnp.asarray(self.scale, x.dtype) + jnp.asarray(self.offset, x.dtype)


@dataclass(frozen=True)
class Normalization(Layer):
    """(x - mean) / sqrt(variance) with fixed statistics of the data; `invert` applies the inverse.

    No epsilon is added under the root; instead the deviation is at least EPSILON. There are statistics for every index
    along `axis`. They are options or, for an adapted layer, variables in `batch_stats`: mean, variance, and the sample
    count, which Keras 3 stores but does not use.

    Attributes:
        axis: The axis or axes with separate statistics; () or None for scalars.
        mean: None for an adapted layer.
        variance: None for an adapted layer.
    """

    axis: int | Sequence[int] | None = -1
    mean: Numbers | None = None
    variance: Numbers | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.variance is None):
            raise ValueError(f"Give both mean and variance or neither, got mean={self.mean}, variance={self.variance}")
        if self.mean is not None and self.variance is not None:
            object.__setattr__(self, "mean", _numbers(self.mean))
            object.__setattr__(self, "variance", _numbers(self.variance))

    def _kept(self, rank: int) -> list[int]:
        axes = () if self.axis is None else (self.axis,) if isinstance(self.axis, int) else self.axis
        if any(not -rank <= axis < rank for axis in axes):
            raise ValueError(f"axis={self.axis} is not in an array with {rank} dimensions")
        return sorted(axis % rank for axis in axes)

    def output_shape(self, *shapes: Shape) -> Shape:
        free = [axis for axis in self._kept(len(shapes[0])) if shapes[0][axis] is None]
        if free:
            raise ValueError(f"Axis {free[0]} has statistics, so its size must be known, got shape {shapes[0]}")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Mean, variance and count, unless mean and variance are options."""
        if self.mean is not None:
            return {}
        shape = tuple(shapes[0][axis] or 0 for axis in self._kept(len(shapes[0])))
        return {
            "mean": Weight(shape, "zeros", "batch_stats"),
            "variance": Weight(shape, "ones", "batch_stats"),
            "count": Weight((), "zeros", "batch_stats"),
        }

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = _floating(inputs[0])
        adapted = self.mean is None
        mean = self._spread(weights["mean"] if adapted else self.mean, x)
        deviation = jnp.sqrt(self._spread(weights["variance"] if adapted else self.variance, x))
        deviation = jnp.maximum(deviation, jnp.asarray(EPSILON, x.dtype))
        return mean + x * deviation if self.invert else (x - mean) / deviation

    def _spread(self, values: Any, x: jax.Array) -> jax.Array:
        """Broadcast values along the kept axes; along the last of them if there are fewer dimensions than axes."""
        array = jnp.asarray(values).astype(x.dtype)
        shape = [1] * x.ndim
        for axis, size in zip(reversed(self._kept(x.ndim)), reversed(array.shape), strict=False):
            shape[axis] = size
        if math.prod(shape) != array.size:
            raise ValueError(f"Statistics of shape {array.shape} do not fit axis={self.axis}")
        return array.reshape(shape)


def _floating(x: jax.Array) -> jax.Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _numbers(value: Any) -> Numbers:
    """Convert what Keras allows (numbers, lists, arrays in its JSON form) to a number or nested tuples."""
    if isinstance(value, tuple) and value[:1] in ((("class_name", "__numpy__"),), (("class_name", "__tensor__"),)):
        value = dict(dict(value)["config"])["value"]  # a JSON object, which the importer made hashable
    return _tuples(np.asarray(value, np.float64).tolist())


def _tuples(value: Any) -> Numbers:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
