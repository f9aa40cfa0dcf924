"""Random augmentation that combines operations, or images of a batch, and Equalization, which draws nothing."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.symbolic import Layer
from flaxapps.layers.augmentation.affine import RandomRotation, RandomShear, RandomTranslation
from flaxapps.layers.augmentation.base import Augmentation, Factor, MakeKey, bounds, check_pair, per_image, uniform
from flaxapps.layers.augmentation.color import RandomBrightness, RandomColorDegeneration, RandomContrast, in_range
from flaxapps.layers.augmentation.effects import RandomPosterization, RandomSharpness, Solarization, between
from flaxapps.layers.encoding import AutoContrast

FREE_KEYS = 3  # no operation below draws more


@dataclass(frozen=True)
class Equalization(Augmentation):
    """In training, equalizes the histogram of every channel, taken over all images of the batch, as in Keras.

    Attributes:
        value_range: Range of the images.
        bins: Number of bins of the histogram.
    """

    random_in_training = False
    uses_mask = True
    value_range: Sequence[float] = (0, 255)
    bins: int = 256

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw nothing."""
        return ()

    def augment(self, x: jax.Array, drawn: Any, mask: jax.Array | None = None) -> jax.Array:
        """Equalize; images of padding do not count."""
        limits = sorted(self.value_range)
        counted = jnp.ones(x.shape[:3], jnp.int32)
        if mask is not None:
            counted = counted * mask.astype(jnp.int32)[:, None, None]
        scaled = in_range(x.astype(jnp.float32), limits, (0, 255))
        equalized = jax.vmap(self._equalize, (-1, None), -1)(scaled, counted)
        return in_range(equalized, (0, 255), limits).astype(x.dtype)

    def _equalize(self, channel: jax.Array, counted: jax.Array) -> jax.Array:
        """Equalize values from 0 to 255, (batch, height, width)."""
        bins = jnp.clip((channel * (self.bins - 1) / 255.0).astype(jnp.int32), 0, self.bins - 1)
        histogram = jnp.zeros(self.bins, jnp.int32).at[bins].add(counted)
        below = jnp.cumsum(histogram, dtype=jnp.int32)
        least = below[jnp.argmax(below > 0)]
        table = (below - least).astype(jnp.float32) * 255 / jnp.maximum(below[-1] - least, 1).astype(jnp.float32)
        places = jnp.clip(channel / 255.0 * (self.bins - 1), 0, self.bins - 1).astype(jnp.int32)
        equalized = jnp.clip(jnp.round(table), 0, 255)[places]
        return jnp.where(jnp.count_nonzero(histogram) <= 1, channel, equalized)


class _Operations(Augmentation):
    """Base class of layers that choose among operations."""

    makes_floats = True
    uses_mask = True
    value_range: Sequence[float]
    factor: Factor
    interpolation: str

    def __post_init__(self) -> None:
        check_pair("factor", self.factor)
        self._all()  # raises if it cannot be built

    def _all(self) -> dict[str, Layer]:
        """The operations by the names of Keras."""
        lower, upper = bounds(self.factor, 0.0)
        factor, limits = (lower, upper), self.value_range
        return {
            "random_shear": RandomShear(factor, factor, self.interpolation),
            "random_translation": RandomTranslation(factor, factor, interpolation=self.interpolation),
            "random_rotation": RandomRotation(factor, interpolation=self.interpolation),
            "random_brightness": RandomBrightness(factor, limits),
            "random_color_degeneration": RandomColorDegeneration(factor, limits),
            "random_contrast": RandomContrast(factor, limits),
            "random_sharpness": RandomSharpness(factor, limits),
            "random_posterization": RandomPosterization(max(1, int(8 * upper)), limits),
            "solarization": Solarization(factor, factor, limits),
            "auto_contrast": AutoContrast(limits),
            "equalization": Equalization(limits),
        }


def _draw(layer: Layer, x: jax.Array, make_key: MakeKey) -> Any:
    return layer.draw(x, make_key) if isinstance(layer, Augmentation) else ()


def _apply(layer: Layer, x: jax.Array, drawn: Any, mask: jax.Array | None) -> jax.Array:
    if isinstance(layer, Equalization):
        return layer.augment(x, drawn, mask)
    changed = layer.augment(x, drawn) if isinstance(layer, Augmentation) else layer.call({}, x)
    return changed.astype(x.dtype)


@dataclass(frozen=True)
class RandAugment(_Operations):
    """In training, applies randomly chosen operations, the same to all images of a batch, each with its own strength.

    Attributes:
        value_range: Range of the images.
        num_ops: Number of operations; one may be chosen more than once.
        factor: Range of the strength of all operations; a number f stands for (0, f).
        interpolation: "bilinear" or "nearest".
    """

    value_range: Sequence[float] = (0, 255)
    num_ops: int = 2
    factor: Factor = 0.5
    interpolation: str = "bilinear"

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the numbers of the operations, (num_ops,), and the parameters of all operations."""
        layers = self._all().values()
        numbers = jax.random.randint(make_key(), (self.num_ops,), 0, len(layers), jnp.int32)
        return numbers, [_draw(layer, x, make_key) for layer in layers]

    def augment(self, x: jax.Array, drawn: Any, mask: jax.Array | None = None) -> jax.Array:
        """Apply the chosen operations one after the other."""
        numbers, parameters = drawn
        branches = [
            functools.partial(_apply, layer, drawn=given, mask=mask)
            for layer, given in zip(self._all().values(), parameters, strict=True)
        ]
        changed, _ = jax.lax.scan(lambda x, number: (jax.lax.switch(number, branches, x), None), x, numbers)
        return changed


@dataclass(frozen=True)
class AugMix(_Operations):
    """In training, blends images with a mixture of several chains of randomly chosen operations.

    Keras chooses the operations in Python, so that a compiled model repeats one choice. Here every step chooses.

    Attributes:
        value_range: Range of the images; results are clipped to it.
        num_chains: Number of chains.
        chain_depth: Number of operations in a chain.
        factor: Range of the strength of all operations; a number f stands for (0, f).
        alpha: Parameter of the distributions of the weights.
        all_ops: Whether to use brightness, colour, contrast and sharpness too.
        interpolation: "bilinear" or "nearest".
    """

    value_range: Sequence[float] = (0, 255)
    num_chains: int = 3
    chain_depth: int = 3
    factor: Factor = 0.3
    alpha: float = 1.0
    all_ops: bool = True
    interpolation: str = "bilinear"

    def operations(self) -> list[Layer]:
        """The operations to choose from, in Keras's order."""
        found = self._all()
        names = ["random_shear", "random_translation", "random_rotation", "random_posterization", "solarization"]
        names += ["auto_contrast", "equalization"]
        if self.all_ops:
            names += ["random_brightness", "random_color_degeneration", "random_contrast", "random_sharpness"]
        return [found[name] for name in names]

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the weights of the chains and of the mixture, the operations of each chain, and their keys.

        The number after the last operation stands for none.
        """
        chains = jax.random.gamma(make_key(), self.alpha, (self.num_chains,), jnp.float32)
        weight = jax.random.beta(make_key(), self.alpha, self.alpha, (), jnp.float32)
        shape = (self.num_chains, self.chain_depth)
        numbers = jax.random.randint(make_key(), shape, 0, len(self.operations()) + 1, jnp.int32)
        key = make_key()
        keys = jnp.reshape(jax.random.split(key, (*shape, FREE_KEYS)), (*shape, FREE_KEYS, *key.shape))
        return chains / jnp.sum(chains), weight, numbers, keys

    def augment(self, x: jax.Array, drawn: Any, mask: jax.Array | None = None) -> jax.Array:
        """Apply the chains, and blend."""
        chains, weight, numbers, keys = drawn

        def branch(layer: Layer) -> Callable[[jax.Array, jax.Array], jax.Array]:
            return lambda x, keys: _apply(layer, x, _draw(layer, x, iter(keys).__next__), mask)

        branches = [*(branch(layer) for layer in self.operations()), lambda x, keys: x]

        def operate(x: jax.Array, given: Any) -> Any:
            number, keys = given
            return jax.lax.switch(number, branches, x, keys), None

        def add_chain(total: jax.Array, given: Any) -> Any:
            share, numbers, keys = given
            chained, _ = jax.lax.scan(operate, x, (numbers, keys))
            return total + chained * share.astype(x.dtype), None

        mixed, _ = jax.lax.scan(add_chain, jnp.zeros_like(x), (chains, numbers, keys))
        weight = weight.astype(x.dtype)
        return jnp.clip(weight * x + (1 - weight) * mixed, *self.value_range)


def _order(count: int, make_key: MakeKey) -> jax.Array:
    """A random order of the images, (count,), int32."""
    return jax.random.permutation(make_key(), jnp.arange(count, dtype=jnp.int32), independent=True)


def _partners(x: jax.Array, order: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The image that each image is mixed with; an image that is not padding gets one that is not."""
    if mask is not None:
        order = order[jnp.argsort(~mask[order], stable=True)]
        order = order[jnp.maximum(jnp.cumsum(mask, dtype=jnp.int32) - 1, 0)]
    return x[order]


@dataclass(frozen=True)
class MixUp(Augmentation):
    """In training, blends every image with another of the batch. As in a Keras model, labels stay.

    Attributes:
        alpha: Both parameters of the beta distribution of the share.
    """

    uses_mask = True
    alpha: float = 0.2

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the order of the other images, and shares, (batch,)."""
        return _order(len(x), make_key), jax.random.beta(make_key(), self.alpha, self.alpha, (len(x),), jnp.float32)

    def augment(self, x: jax.Array, drawn: Any, mask: jax.Array | None = None) -> jax.Array:
        """Blend."""
        order, shares = drawn
        share = per_image(shares, x)
        return share * x + (1.0 - share) * _partners(x, order, mask)


@dataclass(frozen=True)
class CutMix(Augmentation):
    """In training, replaces a rectangle of every image by that of another. As in a Keras model, labels stay.

    Attributes:
        factor: Range of both parameters of the beta distribution of the share; a number f stands for (0, f).
    """

    makes_floats = True
    uses_mask = True
    factor: Factor = 1.0

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the rectangles, (batch, height, width, 1), and the order of the other images."""
        alpha = uniform(make_key, (), bounds(self.factor, 0.0), x.dtype) + 1e-6
        sides = jnp.sqrt(1.0 - jax.random.beta(make_key(), alpha, alpha, (len(x),), x.dtype))
        across = between(make_key, x.shape[2], sides)
        down = between(make_key, x.shape[1], sides)
        return down[:, :, None, None] & across[:, None, :, None], _order(len(x), make_key)

    def augment(self, x: jax.Array, drawn: Any, mask: jax.Array | None = None) -> jax.Array:
        """Replace the rectangles."""
        inside, order = drawn
        return jnp.where(inside, _partners(x, order, mask), x)
