"""Frozen layers: sets of layer names, and the parameter masks and labels that Optax takes."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax

from flaxapps.graph.graph import LayerInGraph
from flaxapps.graph.variables import weight_paths
from flaxapps.layers import Functional
from flaxapps.model import Model
from weight_port.trees import nest
from weight_port.writers import leaves

Path = tuple[str, ...]


def frozen_layers(
    model: Model,
    *,
    until: int | str | None = None,
    names: Iterable[str] = (),
    pattern: str | None = None,
    predicate: Callable[[LayerInGraph], bool] | None = None,
    as_saved: bool = False,
) -> frozenset[str]:
    """Selects the layers to freeze: those that any of the criteria picks.

    Args:
        model: The model. Layers are counted in Keras's order, a nested model as one layer.
        until: An index, for the layers before it (`model.layers[:172]` in Keras); or a name, for the layers up to and
            including that one.
        names: Layer names; "outer/inner" is a layer inside a nested model.
        pattern: Regular expression that matches layer names, or paths "outer/inner", from the start, such as
            "block[12]_".
        predicate: Function of a layer that returns whether to freeze it. It is called for every layer, including those
            inside nested models.
        as_saved: Whether to freeze the layers that were frozen (`trainable=False`) in the Keras file of the model.

    Returns:
        Names, as `Model.apply(..., frozen=)` and `trainable_mask` take them.

    Raises:
        ValueError: A layer does not exist, the pattern or the predicate picks none, or no parameter would train.

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
        raise ValueError(f"until should be an index from 0 to {len(order)}, the number of layers, got until={until}")
    known = dict(layer_paths(model.layers))
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
            raise ValueError("The predicate matches no layer")
        frozen |= picked
    if as_saved:
        saved = {path for path, layer in known.items() if not layer.trainable}
        if not saved:
            raise ValueError("as_saved: no layer was frozen in the file that the model came from")
        frozen |= saved
    owners = [path[1:] for path, weight in weight_paths(model.graph) if weight.collection == "params"]
    if frozen and all(is_under(owner, frozen) for owner in owners):
        raise ValueError("Every layer that has parameters would be frozen: nothing is left to train")
    return frozenset(frozen)


def layer_paths(layers: Iterable[LayerInGraph], above: str = "") -> Iterable[tuple[str, LayerInGraph]]:
    """Yields all layers by their paths "outer/inner", those of a nested model after the model itself."""
    for layer in layers:
        yield above + layer.name, layer
        if isinstance(layer.layer, Functional):
            yield from layer_paths(layer.layer.layers, f"{above}{layer.name}/")


def is_under(path: Path, layers: Collection[str]) -> bool:
    """Whether an array belongs to one of the layers. Paths are joined, as layer names may contain slashes."""
    return any("/".join(path[:length]) in layers for length in range(1, len(path) + 1))


def trainable_mask(params: Mapping[str, Any], frozen: Iterable[str]) -> dict[str, Any]:
    """Builds a mask that is True for trainable parameters, for `optax.masked` or `jax.tree.map`.

    Args:
        params: `variables["params"]`.
        frozen: Names of frozen layers, from `frozen_layers`.

    Returns:
        A tree of bools with the structure of `params`.
    """
    stopped = frozenset(frozen)

    def trains(path: tuple[Any, ...], _: Any) -> bool:
        return not is_under(tuple(key.key for key in path), stopped)

    mask: dict[str, Any] = jax.tree_util.tree_map_with_path(trains, params)
    return mask


def split_params(params: Mapping[str, Any], frozen: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into a trainable and a frozen tree. Each has only the layers that own some of its parameters.

    Args:
        params: `variables["params"]`.
        frozen: Names of frozen layers, from `frozen_layers`.

    Returns:
        The trainable tree and the frozen tree; `merge_params` is the inverse.
    """
    stopped = frozenset(frozen)
    parts: tuple[dict[Path, Any], dict[Path, Any]] = ({}, {})
    for path, leaf in leaves(params):
        parts[is_under(path, stopped)][path] = leaf
    trainable, frozen_params = (nest(part) for part in parts)
    return trainable, frozen_params


def merge_params(trainable: Mapping[str, Any], frozen_params: Mapping[str, Any]) -> dict[str, Any]:
    """Merges the two trees that `split_params` returns.

    Args:
        trainable: The trainable parameters.
        frozen_params: The frozen parameters.

    Returns:
        A tree with all of them.
    """
    return nest(dict([*leaves(frozen_params), *leaves(trainable)]))


def param_labels(
    params: Mapping[str, Any], groups: Mapping[str, Iterable[str]], default: str | None = None
) -> dict[str, Any]:
    """Labels every parameter by its group of layers, for `optax.partition`, such as for a learning rate per group.

    A layer inside a nested model may be in another group than that model: the innermost name counts. Optax also takes
    `functools.partial(param_labels, groups=..., default=...)`, which fits any set of frozen layers.

    Args:
        params: `variables["params"]`, or the trainable part of it.
        groups: Layer names by label; "outer/inner" is a layer inside a nested model.
        default: Label of the parameters in no group; None makes them an error.

    Returns:
        A tree of labels with the structure of `params`.

    Raises:
        ValueError: A name owns no parameter here or is in two groups, or a parameter has no label.

    >>> param_labels({"stem": {"kernel": 1}, "head": {"kernel": 2}}, {"slow": ["stem"]}, default="fast")
    {'stem': {'kernel': 'slow'}, 'head': {'kernel': 'fast'}}
    """
    label_of: dict[str, str] = {}
    for label, names in groups.items():
        for name in [names] if isinstance(names, str) else names:
            if label_of.setdefault(name, label) != label:
                raise ValueError(f"The layer {name!r} is in two groups: {label_of[name]!r} and {label!r}")
    flat = dict(leaves(params))
    unknown = sorted(layer for layer in label_of if not any(is_under(path, {layer}) for path in flat))
    if unknown:
        raise ValueError(f"These layers own no parameters here: {unknown}")
    labels: dict[Path, str | None] = {}
    for path in flat:
        around = [layer for length in range(len(path), 0, -1) if (layer := "/".join(path[:length])) in label_of]
        labels[path] = label_of[around[0]] if around else default
    missing = sorted("/".join(path) for path, label in labels.items() if label is None)
    if missing:
        raise ValueError(f"These parameters are in no group, and no default is given: {missing}")
    return nest(labels)


def frozen_until(model: Model, until: int | str) -> frozenset[str]:
    """Selects the layers up to one, which may be inside a nested model ("outer/inner"), or those before an index.

    Args:
        model: The model.
        until: As `frozen_layers` takes it, or a path into nested models.

    Raises:
        ValueError: The layer does not exist, or no parameter would train.

    >>> from flaxapps import layers
    >>> inside, image = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    >>> trunk = Model(inside, layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a")(inside)), name="trunk")
    >>> model = Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(trunk(image))))
    >>> sorted(frozen_until(model, "trunk/a"))
    ['input_layer', 'trunk/a', 'trunk/input_layer']
    """
    if isinstance(until, int) or "/" not in until or any(layer.name == until for layer in model.layers):
        return frozen_layers(model, until=until)
    return frozen_layers(model, names=_names_until(model.layers, until.split("/")))


def _names_until(places: Iterable[LayerInGraph], path: Sequence[str], above: str = "") -> list[str]:
    names = []
    for place in places:
        if place.name != path[0]:
            names.append(above + place.name)
        elif len(path) == 1:
            return [*names, above + place.name]
        elif isinstance(place.layer, Functional):
            return [*names, *_names_until(place.layer.layers, path[1:], f"{above}{place.name}/")]
    raise ValueError(f"There is no layer {above + '/'.join(path)!r}")
