"""Match the arrays of a file with those of a model, or list the differences."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weight_port.errors import WeightError
from weight_port.hdf5.arrays import StoredArray
from weight_port.layout import (
    STORED_AGAIN,
    WRAPPERS,
    ModelLike,
    Target,
    all_targets,
    is_nested,
    layer_targets,
    stored_class,
)
from weight_port.naming import is_automatic, snake_case
from weight_port.nested import named_entries, nested_order, variable_of
from weight_port.stored import LegacyFile, StoredLayer, TreeFile

Match = tuple[Target, StoredArray]
GroupPath = tuple[str, ...]
OLDER_ATTENTION = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
DIFFERENT = "They are of different networks, or one is without the classifier."


def match_by_order(file: LegacyFile | TreeFile, model: ModelLike, skipped: list[str] | None = None) -> list[Match]:
    """Match every array of the model with one of the file by the order of `model.layers`, as Keras does.

    Args:
        file: The open file.
        model: The model to load.
        skipped: Collects arrays of layers with another number of arrays in the file; None to raise an error.

    Raises:
        WeightError: The model or the file has arrays that the other lacks; all are listed.
    """
    if isinstance(file, TreeFile):
        return _match_tree(file, model, skipped)
    layers = [layer for layer in model.layers if layer_targets(layer)]
    if len(file.layers) == 1 and len(layers) > 1 and len(file.all_arrays) == len(all_targets(layers)):
        return _match_whole(file, model)
    if len(layers) != len(file.layers):
        wanted, found = {layer.name for layer in layers}, {layer.name for layer in file.layers}
        raise WeightError(
            f"The model has {len(layers)} layers with weights, the file {len(file.layers)}. {DIFFERENT}",
            missing=[str(target) for layer in layers if layer.name not in found for target in layer_targets(layer)],
            unexpected=[str(array) for layer in file.layers if layer.name not in wanted for array in layer.arrays],
        )
    _check_names(dict(enumerate(layers)), {index: layer.name for index, layer in enumerate(file.layers)})
    return _match_layers(list(zip(layers, file.layers, strict=True)), file.config, skipped)


class _Whole(NamedTuple):
    """A model as a single layer, which it is inside Keras 2's `multi_gpu_model`."""

    name: str
    layers: Sequence[Any]
    class_name: str = "Functional"


def _match_whole(file: LegacyFile, model: ModelLike) -> list[Match]:
    """Match the arrays of a model that is the only layer of another in the file."""
    (stored,) = file.layers
    entry = named_entries(file.config).get(stored.name)
    ordered = nested_order(_Whole(stored.name, model.layers), stored, entry)
    inside = [dataclasses.replace(target, layers=target.layers[1:]) for target in ordered]
    return list(zip(inside, stored.arrays, strict=True))


def match_by_name(file: LegacyFile | TreeFile, model: ModelLike, skipped: list[str] | None = None) -> list[Match]:
    """Match the layers whose names are in both model and file; arguments as for `match_by_order`.

    Raises:
        WeightError: No name is in both, layers of one name have different arrays, or the file has no names.
    """
    if isinstance(file, TreeFile):
        if not file.names:
            raise WeightError("by_name=True needs layer names, which Keras has stored in such files since 3.6 only.")
        return _match_tree_by_name(file, model, skipped)
    stored = {layer.name: layer for layer in file.layers}
    layers = [layer for layer in model.layers if layer_targets(layer)]
    pairs = [(layer, stored[layer.name]) for layer in layers if layer.name in stored]
    if not pairs:
        raise WeightError(
            "No layer of the model has a name that is in the file.",
            missing=[layer.name for layer in layers],
            unexpected=list(stored),
        )
    return _match_layers(pairs, file.config, skipped)


def _match_layers(
    pairs: Sequence[tuple[Any, StoredLayer]], config: Mapping[str, Any] | None, skipped: list[str] | None
) -> list[Match]:
    entries = named_entries(config)
    matches: list[Match] = []
    missing: list[str] = []
    unexpected: list[str] = []
    for layer, stored in pairs:
        targets = layer_targets(layer)
        if len(targets) != len(stored.arrays) and skipped is not None and not is_nested(layer):
            skipped += map(str, targets)
        elif len(targets) != len(stored.arrays):
            missing += map(str, targets)
            unexpected += map(str, stored.arrays)
        else:
            ordered = nested_order(layer, stored, entries.get(stored.name)) if is_nested(layer) else targets
            if ordered is targets:
                _check_order(targets, stored)
            matches += zip(ordered, stored.arrays, strict=True)
    if missing or unexpected:
        raise WeightError(f"Layers hold other arrays than the model's. {DIFFERENT}", missing, unexpected)
    return matches


def _check_order(targets: Sequence[Target], stored: StoredLayer) -> None:
    """Refuse a layer whose arrays are named like its variables but in another order; shapes would not show this."""
    wanted = [target.variable for target in targets]
    found = [variable_of(array.name) for array in stored.arrays]
    if found != wanted and sorted(found) == sorted(wanted):
        raise WeightError(
            f"Layer {stored.name!r} has its arrays in the order {', '.join(found)}, where every version of Keras "
            f"writes {', '.join(wanted)}: either the names or the order is wrong"
        )


def _check_names(layers: Mapping[Any, Any], found: Mapping[Any, str]) -> None:
    """Refuse a file in which a layer with a user-given name is at another position than in the model."""
    place = {name: key for key, name in found.items()}
    moved = [
        layer.name
        for key, layer in layers.items()
        if place.get(layer.name, key) != key and not is_automatic(layer.name, stored_class(layer))
    ]
    if moved:
        raise WeightError(
            f"The file has these layers in another order than the model: {', '.join(moved)}. If the names are right, "
            "by_name=True loads them."
        )


def _match_tree(file: TreeFile, model: ModelLike, skipped: list[str] | None) -> list[Match]:
    arrays = _as_keras3(file.arrays)
    groups = {path for path, _ in arrays}
    places = dict(_places(model.layers, stored=True, doubled=file.doubled))
    # What `save_model` writes of a model of an older version has the class names of Keras 3.
    today = dict(_places(model.layers, doubled=file.doubled))
    if not _with_arrays(places) <= groups and _with_arrays(today) <= groups:
        places = today
    return _match_places(file, places, arrays, skipped)


def _with_arrays(places: Mapping[GroupPath, tuple[Any, list[Target]]]) -> set[GroupPath]:
    return {path for path, (_, targets) in places.items() if targets}


def _as_keras3(arrays: Mapping[tuple[GroupPath, int], StoredArray]) -> dict[tuple[GroupPath, int], StoredArray]:
    """Rename groups to those of Keras 3: before, the layers inside MultiHeadAttention had a leading underscore."""
    found = {}
    for (path, number), stored in arrays.items():
        if len(path) > 1 and path[-2].startswith("multi_head_attention") and path[-1] in OLDER_ATTENTION:
            path = (*path[:-1], path[-1].removeprefix("_"))
        found[path, number] = stored
    return found


def _match_tree_by_name(file: TreeFile, model: ModelLike, skipped: list[str] | None) -> list[Match]:
    groups = {name: path for path, name in file.names.items() if len(path) == 1}
    layers = [layer for layer in model.layers if layer_targets(layer)]
    shared = [layer for layer in layers if layer.name in groups]
    stored = {path[0] for path, _ in file.arrays}
    if not shared:
        raise WeightError(
            "No layer of the model has a name that is in the file.",
            missing=[layer.name for layer in layers],
            unexpected=[name for name, path in groups.items() if path[0] in stored],
        )
    places: dict[GroupPath, tuple[Any, list[Target]]] = {}
    for layer in shared:
        path = groups[layer.name]
        places[path] = (layer, [] if is_nested(layer) else layer_targets(layer))
        if is_nested(layer):
            places |= dict(_places(layer.layers, path, (layer.name,), stored=True))
    wanted = {path[0] for path in places}
    arrays = {key: stored for key, stored in file.arrays.items() if key[0][0] in wanted}
    return _match_places(file, places, arrays, skipped)


def _match_places(
    file: TreeFile,
    places: Mapping[GroupPath, tuple[Any, list[Target]]],
    left: dict[tuple[GroupPath, int], StoredArray],
    skipped: list[str] | None,
) -> list[Match]:
    matches: list[Match] = []
    missing: list[str] = []
    for path, (_, targets) in places.items():
        found = [key for key in left if key[0] in (path, _other_spelling(path))]
        if skipped is not None and targets and len(found) != len(targets):
            skipped += map(str, targets)
            for key in found:
                del left[key]
            continue
        for number, target in enumerate(targets):
            stored = left.pop((path, number), None) or left.pop((_other_spelling(path), number), None)
            if stored is None:
                missing.append(str(target))
            else:
                matches.append((target, stored))
    if missing or left:
        raise WeightError(
            f"The file's arrays are not the model's. {DIFFERENT}",
            missing=missing,
            unexpected=[f"{file.names.get(path, '?')}: {stored}" for (path, _), stored in left.items()],
        )
    for above in {path[:-1] for path in places}:
        _check_names(
            {path: layer for path, (layer, _) in places.items() if path[:-1] == above},
            {path: name for path, name in file.names.items() if path[:-1] == above},
        )
    return matches


def _other_spelling(path: GroupPath) -> GroupPath:
    """The group of an inner layer with or without the leading underscore, which depends on the version."""
    *above, last = path
    return (*above, last[1:] if last.startswith("_") else f"_{last}")


def _places(
    layers: Sequence[Any],
    above: GroupPath = (),
    names: tuple[str, ...] = (),
    stored: bool = False,
    doubled: bool = False,
) -> Iterator[tuple[GroupPath, tuple[Any, list[Target]]]]:
    """Yield the groups of layers in Keras 3 files: by class, numbered in layer order. Layer names are not used.

    Args:
        layers: The layers of a model.
        above: Enclosing groups.
        names: Names of the enclosing models.
        doubled: Whether layers with weights count twice: in Keras 2.12 and 2.13 a model had them in two lists.
        stored: Whether to use the class names of the version that wrote the model instead of Keras 3.15.

    Yields:
        The path of the group, then the layer and its own arrays.
    """
    count: dict[str, int] = {}
    for layer in layers:
        group = snake_case(stored_class(layer) if stored else layer.class_name)
        number = count.get(group, 0)
        count[group] = number + (2 if doubled and layer_targets(layer) else 1)
        path = (*above, f"{group}_{number}" if number else group)
        if is_nested(layer):
            yield path, (layer, [])
            inside = (*path, "layer") if layer.class_name in WRAPPERS else path
            yield from _places(layer.layers, inside, (*names, layer.name), stored, doubled)
        else:
            yield from _places_of_layer(layer, path, names)


def _places_of_layer(
    layer: Any, path: GroupPath, names: tuple[str, ...]
) -> Iterator[tuple[GroupPath, tuple[Any, list[Target]]]]:
    """Yield the groups of one layer: its own arrays are in its group, those of inner layers in groups below."""
    own: list[Target] = []
    below: dict[GroupPath, list[Target]] = {}
    for target in layer_targets(layer, names):
        *inside, _ = target.variable.split("/")
        (below.setdefault((*path, *inside), []) if inside else own).append(target)
    again = [
        target
        for targets in below.values()
        for target in targets
        if target.leaf in STORED_AGAIN.get(layer.class_name, ())
    ]
    yield path, (layer, again + own)
    for place, targets in below.items():
        yield place, (layer, targets)
