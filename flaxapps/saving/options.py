"""Check the values of layer options against the declared types of the layer class."""

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from flaxapps.graph.symbolic import Layer
from flaxapps.saving.dialects.structure import LARGEST, shown

Checked = dict[str, Any]
# Fields that have to be positive in Keras.
POSITIVE = (
    "depth_multiplier", "dilation_rate", "filters", "height", "kernel_size", "key_dim", "num_heads", "pool_size",
    "size", "strides", "units", "width",
)  # fmt: skip # kept on few lines on purpose
# Type names in messages.
WORDS: Mapping[Any, str] = types.MappingProxyType(
    {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
)


class Unfit(Exception):  # noqa: N818 (internal: a value does not have the type)
    """A value does not have the declared type."""


def checked_options(kind: type[Layer], options: Mapping[str, Any]) -> Checked:
    """Convert options to the types of the fields of a layer class.

    Args:
        kind: The layer class.
        options: Values by field, lists as tuples.

    Returns:
        The options, with integral floats as integers where an integer is declared; Keras accepts them too.

    Raises:
        ValueError: A value does not have the type of its field, or is not positive where it has to be.
    """
    types_of: Mapping[str, Any] = _types_of(kind)  # type: ignore[arg-type]  # a class hashes, which mypy does not see
    checked = {name: _checked(name, value, types_of.get(name, Any)) for name, value in options.items()}
    for name in sorted(checked.keys() & set(POSITIVE)):
        sizes = checked[name] if isinstance(checked[name], tuple) else (checked[name],)
        if any(isinstance(size, int | float) and size <= 0 for size in sizes):
            raise ValueError(f"{name} is {shown(options[name])}, where it should be above zero")
    return checked


def checked_flag(value: Any, name: str) -> bool:
    """Check a boolean, which early versions of Keras write as 0 or 1.

    Raises:
        ValueError: `value` is neither a boolean nor 0 or 1.
    """
    return bool(_checked(name, value, bool))


def checked_dtype(name: Any) -> str:
    """Check the name of a dtype of real numbers.

    Raises:
        ValueError: `name` is not a dtype of real numbers.
    """
    try:
        found = jnp.dtype(name) if isinstance(name, str) else None
    except TypeError:
        found = None
    if (
        found is None
        or found.name != name
        or not any(jnp.issubdtype(found, each) for each in (jnp.floating, jnp.integer, jnp.bool_))
    ):
        raise ValueError(f"dtype is {shown(name)}, which is not a dtype of real numbers")
    return found.name


@functools.cache
def _types_of(kind: type[Layer]) -> Mapping[str, Any]:
    """The declared types; empty if the annotations of a custom class cannot be resolved."""
    try:
        return typing.get_type_hints(kind)
    except NameError:
        return {}


def _checked(name: str, value: Any, wanted: Any) -> Any:
    try:
        return _fitted(value, wanted)
    except Unfit:
        raise ValueError(f"{name} is {shown(value)}, where it should be {_words(wanted)}") from None


def _fitted(value: Any, wanted: Any) -> Any:
    """Convert a value to a type.

    Raises:
        Unfit: The value does not have the type.
    """
    if wanted is Any:
        return value
    inside = typing.get_args(wanted)
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        for each in sorted(inside, key=lambda each: each is float):  # floats last, so that 3 stays an integer
            try:
                return _fitted(value, each)
            except Unfit:
                continue
        raise Unfit
    if origin in (Sequence, tuple):
        if not isinstance(value, list | tuple):
            raise Unfit
        return tuple(_fitted(part, inside[0]) for part in value)
    if origin is Callable:
        return _only_if(callable(value), value)
    if wanted is bool:
        return _only_if(isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)), value)
    if wanted is int:
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        return _only_if(isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST, value)
    if wanted is float:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
            value = float(value) if abs(value) < 10**300 else value
        is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST)
        return _only_if(is_number and not isinstance(value, bool) and value == value, value)  # NaN differs from itself
    return _only_if(isinstance(value, wanted), value)


def _only_if(condition: bool, value: Any) -> Any:
    if not condition:
        raise Unfit
    return value


def _words(wanted: Any) -> str:
    """Describe a type: "an integer or a list, each an integer"."""
    inside = typing.get_args(wanted)
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(each) for each in inside)
    if origin in (Sequence, tuple):
        return "a list" if inside[0] is Any else f"a list, each {_words(inside[0])}"
    if origin is Callable:
        return "a function"
    return WORDS.get(wanted, "a layer" if isinstance(wanted, type) and issubclass(wanted, Layer) else str(wanted))
