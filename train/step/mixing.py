"""Mixup and cutmix: examples of a batch and their labels are mixed in pairs, inside the jitted step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.train.step.augmentation import Augmentation
from flaxapps.train.step.losses import Objective
from flaxapps.train.step.objectives import AnyObjective

LOSSES_OF_MIXTURES = ("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy")
Mix = Callable[[jax.Array, Any, jax.Array, "jax.Array | None"], tuple[Any, jax.Array]]


@dataclass(frozen=True)
class Mixing:
    """Mixes every example with another of its batch. Hashable, as the `mix` of `train_step` has to be.

    As in timm, the first example is mixed with the last, the second with the one before, and so on, all in one
    proportion, which is drawn for every batch; with both, each is used for half of the batches. Padding has no effect,
    so that the result does not depend on the number of devices under "jit".

    Attributes:
        mixup: Parameter of the Beta distribution of the proportion (https://arxiv.org/abs/1710.09412); 0 for none.
        cutmix: That of the area of a box that is cut out of the other image (https://arxiv.org/abs/1905.04899).
        classes: Number of classes, for labels that are class indices; None keeps labels as they are.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int | None = None

    def __call__(
        self, key: jax.Array, images: jax.Array, labels: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Mixes a batch.

        Args:
            key: A key of `jax.random`, another one for every step.
            images: (batch, height, width, channels), as the model takes them.
            labels: (batch,) or (batch, 1), class indices; or (batch, values), from 0 to 1.
            mask: (batch,), bool; False for padding. None for a batch without.

        Returns:
            The images, float32 at least, and the labels as distributions: (batch, classes), float32.
        """
        partner = _partners(jnp.ones(len(labels), jnp.bool_) if mask is None else mask)
        labels = self._distributions(labels)
        for_choice, for_mixup, for_cutmix, for_place = jax.random.split(key, 4)
        if images.dtype not in (jnp.bfloat16, jnp.float16):
            images = images.astype(jnp.float32)
        share, kept = jnp.ones((), jnp.float32), jnp.ones((*images.shape[1:3], 1), jnp.bool_)
        if self.mixup:
            share = _proportion(for_mixup, self.mixup)
        if self.cutmix:
            area = 1 - _proportion(for_cutmix, self.cutmix)
            box = _outside_of_box(jax.random.uniform(for_place, (2,)), jnp.sqrt(area), images.shape[1:3])
            cuts = jax.random.bernoulli(for_choice) if self.mixup else jnp.ones((), jnp.bool_)
            share, kept = jnp.where(cuts, 1.0, share), box | ~cuts
        own = jnp.where(kept, share, 0.0).astype(images.dtype)[None]
        share = jnp.mean(kept.astype(jnp.float32)) * share  # of the label: what is left of the image
        mixed = own * images + (1 - own) * images[partner]
        return mixed, share * labels + (1 - share) * labels[partner]

    def _distributions(self, labels: jax.Array) -> jax.Array:
        if self.classes is None or labels.shape[1:] == (self.classes,):
            return labels.astype(jnp.float32)
        return jax.nn.one_hot(labels.reshape(len(labels)).astype(jnp.int32), self.classes, dtype=jnp.float32)


def mixing_for(augmentation: Any, objective: AnyObjective) -> Mixing | None:
    """Returns what the mixup and cutmix of an augmentation do to the labels of an objective; None without.

    Args:
        augmentation: The `augmentation` of `fit`.
        objective: What steps minimize.

    Raises:
        ValueError: The labels of the loss cannot be mixed, or the model is not a classifier of whole images.
    """
    if not isinstance(augmentation, Augmentation) or not (augmentation.mixup or augmentation.cutmix):
        return None
    names = " and ".join(name for name in ("mixup", "cutmix") if getattr(augmentation, name))
    loss, shape = objective.loss, objective.model.output_shape
    if loss not in LOSSES_OF_MIXTURES:
        shown = loss if isinstance(loss, str) else f"the function {getattr(loss, '__name__', loss)}"
        raise ValueError(
            f"{names} mix the labels of two examples, which {', '.join(LOSSES_OF_MIXTURES)} can take, but the loss is "
            f"{shown}: leave {names} out"
        )
    if not isinstance(shape, tuple) or len(shape) != 2 or len(objective.model.input_shape) != 4:
        raise ValueError(
            f"{names} are for models of one image with outputs (batch, classes), got inputs "
            f"{objective.model.input_shape} and outputs {shape}: leave {names} out"
        )
    classes = None if loss == "binary_crossentropy" else shape[-1]
    return Mixing(augmentation.mixup, augmentation.cutmix, classes)


def of_distributions(objective: AnyObjective) -> AnyObjective:
    """Returns an objective as it is, or with the loss that takes distributions in place of class indices."""
    if not isinstance(objective, Objective) or objective.loss != "sparse_categorical_crossentropy":
        return objective
    return replace(objective, loss="categorical_crossentropy")


def _proportion(key: jax.Array, parameter: float) -> jax.Array:
    if parameter == 1:  # the usual cutmix; Beta(1, 1) is uniform, and compiles in a tenth of the time
        return jax.random.uniform(key)
    return jax.random.beta(key, parameter, parameter)


def _partners(mask: jax.Array) -> jax.Array:
    """Returns the index of the example that each is mixed with: the real ones in reverse; padding with itself."""
    count = jnp.sum(mask, dtype=jnp.int32)
    real_first = jnp.argsort(~mask, stable=True).astype(jnp.int32)
    places = jnp.arange(len(mask), dtype=jnp.int32)
    reverse = jnp.where(places < count, count - 1 - places, places)
    return jnp.zeros_like(places).at[real_first].set(real_first[reverse])


def _outside_of_box(centre: jax.Array, side: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns (height, width, 1), False in a box of a relative side around a relative centre, cut at the border."""
    inside = []
    for length, middle in zip(size, centre, strict=True):
        half, place = jnp.floor(length * side) // 2, jnp.floor(length * middle)
        places = jnp.arange(length, dtype=jnp.float32)
        inside.append((places >= place - half) & (places < place + half))
    return ~(inside[0][:, None] & inside[1][None])[..., None]
