"""Which layers stand still: sets of layer names, and the trees Optax wants of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from flaxapps.layers import Functional
from flaxapps.model import Model


def frozen_layers(
    model: Model, *, until: int | str | None = None, names: Iterable[str] = (), pattern: str | None = None
) -> frozenset[str]:
    """Names of the layers to freeze: those any of the criteria picks.

    Args:
        model: The model; its layers are counted in Keras's order, nested models as one layer.
        until: An index, for the layers before it (`model.layers[:172]` in Keras); or a name, for the layers up to and
            including that one.
        names: Names of layers; "outer/inner" is a layer inside a nested model.
        pattern: A regular expression; layers whose name it matches from the start, such as "block[12]_".

    Returns:
        What `Model.apply(..., frozen=)` and `trainable_mask` take.

    Raises:
        ValueError: There is no such layer, the pattern matches nothing, or everything would be frozen.

    >>> from flaxapps import Input, Model, layers
    >>> x = Input((8, 8, 3))
    >>> model = Model(x, layers.Dense(2, name="head")(layers.Conv2D(4, 3, name="stem")(x)))
    >>> sorted(frozen_layers(model, until="stem"))
    ['input_layer', 'stem']
    """
    order = [layer.name for layer in model.layers]
    if isinstance(until, str):
        until = order.index(model.get_layer(until).name) + 1
    if until is not None and not 0 <= until <= len(order):
        raise ValueError(f"The model has {len(order)} layers, got until={until}")
    known = set(_paths(model.layers))
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(f"No layers are called {unknown}")
    matched = {path for path in known if pattern is not None and re.match(pattern, path.split("/")[-1])}
    if pattern is not None and not matched:
        raise ValueError(f"The pattern {pattern!r} matches no layer")
    frozen = frozenset(order[:until] if until is not None else ()) | frozenset(names) | matched
    if set(order) <= frozen:
        raise ValueError("Every layer would be frozen: nothing is left to train")
    return frozen


def _paths(layers: Iterable[Any], above: str = "") -> Iterable[str]:
    for layer in layers:
        yield above + layer.name
        if isinstance(layer.layer, Functional):
            yield from _paths(layer.layer.layers, f"{above}{layer.name}/")


def trainable_mask(params: Mapping[str, Any], frozen: Iterable[str]) -> dict[str, Any]:
    """True where a parameter trains: the mask of `optax.masked`, or of `jax.tree.map`.

    Args:
        params: `variables["params"]`.
        frozen: What `frozen_layers` returns.

    Returns:
        A tree of the structure of `params` with a bool at every leaf.
    """
    stopped = tuple(tuple(name.split("/")) for name in frozen)

    def trains(path: tuple[Any, ...], _: Any) -> bool:
        keys = tuple(key.key for key in path)
        return not any(keys[: len(name)] == name for name in stopped)

    mask: dict[str, Any] = jax.tree_util.tree_map_with_path(trains, params)
    return mask
