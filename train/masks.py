"""Which layers stand still: sets of layer names, and the trees Optax wants of them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
from flax import traverse_util

from flaxapps.graph import LayerInGraph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.variables import weight_paths

Path = tuple[str, ...]
_flatten: Any = traverse_util.flatten_dict  # not typed
_unflatten: Any = traverse_util.unflatten_dict


def frozen_layers(
    model: Model,
    *,
    until: int | str | None = None,
    names: Iterable[str] = (),
    pattern: str | None = None,
    predicate: Callable[[LayerInGraph], bool] | None = None,
) -> frozenset[str]:
    """Names of the layers to freeze: those any of the criteria picks.

    Args:
        model: The model; its layers are counted in Keras's order, nested models as one layer.
        until: An index, for the layers before it (`model.layers[:172]` in Keras); or a name, for the layers up to and
            including that one.
        names: Names of layers; "outer/inner" is a layer inside a nested model.
        pattern: A regular expression; layers whose name, or whose path "outer/inner", it matches from the start, such
            as "block[12]_".
        predicate: A function of a layer, asked about every one, those inside nested models too.

    Returns:
        What `Model.apply(..., frozen=)` and `trainable_mask` take.

    Raises:
        ValueError: There is no such layer, the pattern or the predicate picks none, or no parameter would train.

    >>> from flaxapps import Input, Model, layers
    >>> x = Input((8, 8, 3))
    >>> model = Model(x, layers.Dense(2, name="head")(layers.Conv2D(4, 3, name="stem")(x)))
    >>> sorted(frozen_layers(model, until="stem"))
    ['input_layer', 'stem']
    >>> sorted(frozen_layers(model, predicate=lambda layer: layer.class_name == "Conv2D"))
    ['stem']
    """
    order = [layer.name for layer in model.layers]
    if isinstance(until, str):
        until = order.index(model.get_layer(until).name) + 1
    if until is not None and not 0 <= until <= len(order):
        raise ValueError(f"The model has {len(order)} layers, got until={until}")
    known = dict(_paths(model.layers))
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"No layers are called {unknown}")
    frozen = set(order[:until] if until is not None else ()) | set(names)
    if pattern is not None:
        matched = {path for path in known if re.match(pattern, path.split("/")[-1]) or re.match(pattern, path)}
        if not matched:
            raise ValueError(f"The pattern {pattern!r} matches no layer")
        frozen |= matched
    if predicate is not None:
        picked = {path for path, layer in known.items() if predicate(layer)}
        if not picked:
            raise ValueError("The predicate is true of no layer")
        frozen |= picked
    owners = [path[1:] for path, weight in weight_paths(model.graph) if weight.collection == "params"]
    if frozen and all(_is_under(owner, {_split(name) for name in frozen}) for owner in owners):
        raise ValueError("Every layer that has parameters would be frozen: nothing is left to train")
    return frozenset(frozen)


def _paths(layers: Iterable[LayerInGraph], above: str = "") -> Iterable[tuple[str, LayerInGraph]]:
    for layer in layers:
        yield above + layer.name, layer
        if isinstance(layer.layer, Functional):
            yield from _paths(layer.layer.layers, f"{above}{layer.name}/")


def _split(name: str) -> Path:
    return tuple(name.split("/"))


def _is_under(path: Path, layers: Collection[Path]) -> bool:
    return any(path[:length] in layers for length in range(len(path) + 1))


def trainable_mask(params: Mapping[str, Any], frozen: Iterable[str]) -> dict[str, Any]:
    """True where a parameter trains: the mask of `optax.masked`, or of `jax.tree.map`.

    Args:
        params: `variables["params"]`.
        frozen: What `frozen_layers` returns.

    Returns:
        A tree of the structure of `params` with a bool at every leaf.
    """
    stopped = {_split(name) for name in frozen}

    def trains(path: tuple[Any, ...], _: Any) -> bool:
        return not _is_under(tuple(key.key for key in path), stopped)

    mask: dict[str, Any] = jax.tree_util.tree_map_with_path(trains, params)
    return mask


def split_params(params: Mapping[str, Any], frozen: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that train and those that do not, as two trees; layers that own none are left out.

    Args:
        params: `variables["params"]`.
        frozen: What `frozen_layers` returns.

    Returns:
        The trainable tree and the frozen tree; `merge_params` is the way back.
    """
    stopped = {_split(name) for name in frozen}
    parts: tuple[dict[Path, Any], dict[Path, Any]] = ({}, {})
    for path, leaf in _flatten(params).items():
        parts[_is_under(path, stopped)][path] = leaf
    trainable, still = (_unflatten(part) for part in parts)
    return trainable, still


def merge_params(trainable: Mapping[str, Any], still: Mapping[str, Any]) -> dict[str, Any]:
    """One tree of parameters again, from the two that `split_params` returns.

    Args:
        trainable: The parameters that train.
        still: The others.

    Returns:
        A tree with all of them.
    """
    flat = _flatten(still) | _flatten(trainable)
    merged: dict[str, Any] = _unflatten(flat)
    return merged


def param_labels(
    params: Mapping[str, Any], groups: Mapping[str, Iterable[str]], default: str | None = None
) -> dict[str, Any]:
    """A label for every parameter: what `optax.partition` needs for a learning rate per group of layers.

    Where a nested model is in one group and a layer inside it in another, the layer goes its own way. Optax also takes
    a function here, `functools.partial(param_labels, groups=..., default=...)`, which fits any set of frozen layers.

    Args:
        params: `variables["params"]`, or the part of it that trains.
        groups: Names of layers by label; "outer/inner" is a layer inside a nested model.
        default: The label of the parameters in no group; None makes them an error.

    Returns:
        A tree of the structure of `params` with a label at every leaf.

    Raises:
        ValueError: A name owns no parameter here or is in two groups, or a parameter has no label.

    >>> param_labels({"stem": {"kernel": 1}, "head": {"kernel": 2}}, {"slow": ["stem"]}, default="fast")
    {'stem': {'kernel': 'slow'}, 'head': {'kernel': 'fast'}}
    """
    label_of: dict[Path, str] = {}
    for label, names in groups.items():
        for name in [names] if isinstance(names, str) else names:
            if label_of.setdefault(_split(name), label) != label:
                raise ValueError(f"The layer {name!r} is in two groups: {label_of[_split(name)]!r} and {label!r}")
    flat = _flatten(params)
    unknown = sorted("/".join(layer) for layer in label_of if not any(_is_under(path, {layer}) for path in flat))
    if unknown:
        raise ValueError(f"These layers own no parameters here: {unknown}")
    labels: dict[Path, str | None] = {}
    for path in flat:
        around = [path[:length] for length in range(len(path), 0, -1) if path[:length] in label_of]
        labels[path] = label_of[around[0]] if around else default
    missing = sorted("/".join(path) for path, label in labels.items() if label is None)
    if missing:
        raise ValueError(f"These parameters are in no group, and no default is given: {missing}")
    tree: dict[str, Any] = _unflatten(labels)
    return tree
