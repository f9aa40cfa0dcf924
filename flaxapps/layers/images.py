"""Layers that prepare images: sizes, scales and statistics of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.layers.shapes import Pair, check_images
from flaxapps.recording import Layer, Shape, Weight, Weights

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos3", "lanczos5", "nearest")
EPSILON = 1e-7  # keras.config.epsilon(), which no file records
Numbers = float | tuple[Any, ...]


def check_interpolation(name: str) -> str:
    """Returns the name of an interpolation Keras has.

    Raises:
        ValueError: It is none.
    """
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation is one of {', '.join(INTERPOLATIONS)}, got {name!r}")
    return name


def resize(x: jax.Array, size: Pair, interpolation: str, antialias: bool = False) -> jax.Array:
    """Images of another size; pixels are squares, so borders stay borders (TensorFlow's half_pixel_centers)."""
    result: jax.Array = jax.image.resize(x, (x.shape[0], *size, x.shape[3]), interpolation, antialias=antialias)
    return result


def _central_part(x: jax.Array, size: Pair) -> jax.Array:
    """The largest part in the middle of the images that has the proportions of `size`; Keras rounds everything down."""
    height, width = x.shape[1:3]
    rows = max(min(height, int(float(width * size[0]) / size[1])), 1)
    columns = max(min(width, int(float(height * size[1]) / size[0])), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return x[:, top : top + rows, left : left + columns]


class _SizedLayer(Layer):
    height: int
    width: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """The size of the layer, whatever that of the input, free dimensions included."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, self.height, self.width, channels)


@dataclass(frozen=True)
class Resizing(_SizedLayer):
    """Images of one size.

    Without `antialias`, which is Keras's default, shrinking by more than two skips pixels: the result is not that of
    Pillow. Integer images come out as integers, rounded.

    Attributes:
        crop_to_aspect_ratio: Resizes the largest part in the middle that has the proportions of the result.
        pad_to_aspect_ratio: Puts the whole image in the middle of a ground of `fill_value`. An odd number of missing
            rows or columns is rounded down to an even one, so that the image is stretched a little.
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
            raise ValueError(f'fill_mode is "constant" in Keras, got {self.fill_mode!r}')
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ValueError("Only one of crop_to_aspect_ratio and pad_to_aspect_ratio can be True")

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Crops or pads, then resizes."""
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
    """The middle of the image; if the image is smaller in one direction, its largest fitting part, resized."""

    height: int
    width: int

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Crops, or crops and resizes."""
        (x,) = inputs
        size = (self.height, self.width)
        top, left = (x.shape[1] - self.height) // 2, (x.shape[2] - self.width) // 2
        if x.shape[1] < self.height or x.shape[2] < self.width:
            return resize(_central_part(x, size), size, "bilinear")
        return x[:, top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class Rescaling(Layer):
    """x * scale + offset; numbers, or one for each channel."""

    scale: Numbers
    offset: Numbers = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _numbers(self.scale))
        object.__setattr__(self, "offset", _numbers(self.offset))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Multiplies and adds."""
        x = _floating(inputs[0])
        return x * jnp.asarray(self.scale, x.dtype) + jnp.asarray(self.offset, x.dtype)


@dataclass(frozen=True)
class Normalization(Layer):
    """(x - mean) / sqrt(variance) with statistics of the data, which no training changes; `invert` undoes it.

    There is no epsilon under the root: the deviation is at least EPSILON instead. Statistics are for every index along
    `axis` (None: one for everything). They are options, or, of an adapted layer, variables in `batch_stats`: mean,
    variance, and a count of samples that Keras 3 stores but does not use.

    Attributes:
        axis: The axis or axes with statistics of their own; () or None for none.
        mean: None for an adapted layer.
        variance: None for an adapted layer.
    """

    axis: int | Sequence[int] | None = -1
    mean: Numbers | None = None
    variance: Numbers | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.variance is None):
            raise ValueError(f"Give mean and variance or none, got mean={self.mean} and variance={self.variance}")
        if self.mean is not None and self.variance is not None:
            object.__setattr__(self, "mean", _numbers(self.mean))
            object.__setattr__(self, "variance", _numbers(self.variance))

    def _kept(self, rank: int) -> list[int]:
        axes = () if self.axis is None else (self.axis,) if isinstance(self.axis, int) else self.axis
        if any(not -rank <= axis < rank for axis in axes):
            raise ValueError(f"axis={self.axis} is not in an array with {rank} dimensions")
        return sorted(axis % rank for axis in axes)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        free = [axis for axis in self._kept(len(shapes[0])) if shapes[0][axis] is None]
        if free:
            raise ValueError(f"Dimension {free[0]} has statistics of its own, so its size must be known: {shapes[0]}")
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """mean, variance and count, unless mean and variance are options."""
        if self.mean is not None:
            return {}
        shape = tuple(shapes[0][axis] or 0 for axis in self._kept(len(shapes[0])))
        return {
            "mean": Weight(shape, "zeros", "batch_stats"),
            "variance": Weight(shape, "ones", "batch_stats"),
            "count": Weight((), "zeros", "batch_stats"),
        }

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Normalizes, or undoes it."""
        x = _floating(inputs[0])
        adapted = self.mean is None
        mean = self._spread(weights["mean"] if adapted else self.mean, x)
        deviation = jnp.sqrt(self._spread(weights["variance"] if adapted else self.variance, x))
        deviation = jnp.maximum(deviation, jnp.asarray(EPSILON, x.dtype))
        return mean + x * deviation if self.invert else (x - mean) / deviation

    def _spread(self, values: Any, x: jax.Array) -> jax.Array:
        """Values along the kept axes; if they have fewer dimensions than there are axes, along the last of them."""
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
    """A number, or nested tuples of them, from what Keras allows: also lists, and arrays as it writes them in JSON."""
    if isinstance(value, tuple) and value[:1] in ((("class_name", "__numpy__"),), (("class_name", "__tensor__"),)):
        value = dict(dict(value)["config"])["value"]  # an object of JSON, made hashable by the importer
    return _tuples(np.asarray(value, np.float64).tolist())


def _tuples(value: Any) -> Numbers:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
