"""Handlers for layer classes that `load_model` does not know by itself."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from flaxapps.recording import Layer

Handler = type[Layer] | Callable[[Mapping[str, Any]], Layer]
HandlerT = TypeVar("HandlerT", bound=Handler)
_REGISTERED: dict[str, Handler] = {}


def register(class_name: str) -> Callable[[HandlerT], HandlerT]:
    """Says how `load_model` imports layers of a class.

    Args:
        class_name: The class in Keras's configuration.

    Returns:
        A decorator of a Layer subclass whose fields are the configuration's keys, or of a function from the
        configuration to a Layer. A subclass with weights names them in Keras's order in `weights`.

    >>> from flaxapps import layers
    >>> @layers.register("Swish")
    ... def swish(config):
    ...     return layers.Activation("sigmoid", name=config["name"])
    """

    def add(handler: HandlerT) -> HandlerT:
        _REGISTERED[class_name] = handler
        return handler

    return add


def registered() -> Mapping[str, Handler]:
    """The handlers by class name."""
    return MappingProxyType(_REGISTERED)
