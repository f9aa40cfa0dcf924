"""What is done to a batch on the device before the network sees it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from flaxapps.inference import Function


@dataclass(frozen=True)
class Preparation:
    """Augmentation, then preprocessing; hashable, the `prepare` of `train_step`.

    Attributes:
        augmentation: A hashable function of (key, images) of 0..255, such as `train.Augmentation`; None for none.
        preprocess: A hashable function of the images; None where the model takes them as they are.
    """

    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    preprocess: Function | None = None

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Images (batch, ...) as the model takes them."""
        if self.augmentation is not None:
            images = self.augmentation(key, images)
        return images if self.preprocess is None else self.preprocess(images)
