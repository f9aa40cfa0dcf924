"""Preprocessing inside the compiled function, resolved from a mode or from the networks in a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from flaxapps.applications.imagenet_utils import MODES, preprocess_input
from flaxapps.graph.graph import Graph
from flaxapps.layers import Functional, Normalization, Rescaling
from flaxapps.model import Model
from flaxapps.registry import find_info

Function = Callable[[jax.Array], jax.Array]
SCALING = (Rescaling, Normalization)


@dataclass(frozen=True)
class FromChannelsLast:
    """Preprocessing of channels_last images, such as photos from files, for a channels_first model.

    Attributes:
        function: Applied to the channels_first images; None for nothing.
    """

    function: Function | None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns (batch, channels, height, width) of (batch, height, width, channels)."""
        images = jnp.moveaxis(images, -1, 1)
        return images if self.function is None else self.function(images)


def preprocessing_function(model: Model, preprocess: bool | str | Function) -> Function | None:
    """Resolves the `preprocess` argument of `predict`; None for no preprocessing.

    Raises:
        ValueError: `preprocess` is an unknown mode; or it is True, and the networks in the model have none or several.
    """
    if preprocess is False or callable(preprocess):
        return preprocess or None
    modes = {preprocess} if isinstance(preprocess, str) else known_preprocessing(model)
    if preprocess is True and modes == {"none"}:  # the network scales its images itself
        return None
    if len(modes) != 1 or not modes <= set(MODES):
        asked = f"preprocess={preprocess!r}" + ("" if isinstance(preprocess, str) else f" found {sorted(modes)}")
        raise ValueError(f"{asked} for {model.name!r}: give one of {', '.join(MODES)}, or a function of a batch")
    # Partials are hashed by identity. One per mode lets jit reuse its compilations.
    return _PREPROCESSING[model.data_format, modes.pop()]


_PREPROCESSING = {
    (data_format, mode): partial(preprocess_input, data_format=data_format, mode=mode)
    for data_format in ("channels_first", "channels_last")
    for mode in MODES
}


def is_named(preprocess: Function | None) -> bool:
    """Whether a function is None or one of Keras's, which keep the shape of images."""
    return preprocess is None or preprocess in _PREPROCESSING.values()


def known_preprocessing(model: Model) -> set[str]:
    """Returns the preprocessing modes of the published networks that a model is, or contains as nested models.

    A network that should scale its images itself, but was built without the layers for it, takes what they do, if that
    is a known mode.
    """

    def modes(name: str | None, graph: Graph) -> Iterator[str | None]:
        if info := find_info(name):
            scales = info.preprocessing != "none" or any(isinstance(each.layer, SCALING) for each in graph.layers)
            yield info.preprocessing if scales else info.preprocessing_inside
        for layer in graph.layers:
            if isinstance(layer.layer, Functional):
                yield from modes(layer.name, layer.layer.graph)

    return {mode for mode in modes(model.name, model.graph) if mode}
