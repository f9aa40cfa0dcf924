"""Registry of custom layers and activations for `load_model`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import jax

from flaxapps.graph.symbolic import Layer
from flaxapps.layers.activations import REGISTERED_ACTIVATIONS

Handler = type[Layer] | Callable[[Mapping[str, Any]], Layer]
FunctionT = TypeVar("FunctionT", bound=Callable[[jax.Array], jax.Array])
HandlerT = TypeVar("HandlerT", bound=Handler)
_REGISTERED: dict[str, Handler] = {}


def register(class_name: str) -> Callable[[HandlerT], HandlerT]:
    """Register how `load_model` imports a layer class.

    Args:
        class_name: The class in Keras's configuration.

    Returns:
        A decorator for a Layer subclass whose fields are the keys of the configuration, or for a function from the
        configuration to a Layer. A subclass with weights lists them in Keras's order in `weights`.

    >>> from flaxapps import layers
    >>> @layers.register("Swish")
    ... def swish(config):
    ...     return layers.Activation("sigmoid", name=config["name"])
    """

    def add(handler: HandlerT) -> HandlerT:
        _REGISTERED[class_name] = handler
        return handler

    return add


def register_activation(name: str) -> Callable[[FunctionT], FunctionT]:
    """Register a custom activation, of which a Keras file holds the name only.

    Args:
        name: Keras's name of the function, without the package it was registered in.

    Returns:
        A decorator for a function from an array to an array of its shape.

    >>> import jax.numpy as jnp
    >>> from flaxapps import layers
    >>> @layers.register_activation("sine")
    ... def sine(x):
    ...     return jnp.sin(x)
    >>> layers.Activation("sine").call({}, jnp.zeros(2))
    Array([0., 0.], dtype=float32)
    """

    def add(function: FunctionT) -> FunctionT:
        REGISTERED_ACTIVATIONS[name] = function
        return function

    return add


def registered() -> Mapping[str, Handler]:
    """The registered handlers by class name."""
    return MappingProxyType(_REGISTERED)
