"""Says which array of a file is which array of a model, or why the two do not go together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weight_port.arrays import StoredArray
from weight_port.errors import WeightError
from weight_port.layout import ModelLike, Target, is_nested, layer_targets
from weight_port.naming import is_automatic, snake_case
from weight_port.readers import LegacyFile, StoredLayer, TreeFile

Match = tuple[Target, StoredArray]
GroupPath = tuple[str, ...]
DIFFERENT = "They are of different networks, or one of them is without the classifier."


def match_by_order(file: LegacyFile | TreeFile, model: ModelLike) -> list[Match]:
    """Matches every array of the model with one of the file by their order in `model.layers`, as Keras does.

    Raises:
        WeightError: One side has arrays that the other has not; all are listed.
    """
    if isinstance(file, TreeFile):
        return _match_tree(file, model)
    layers = [layer for layer in model.layers if layer_targets(layer)]
    if len(layers) != len(file.layers):
        wanted, found = {layer.name for layer in layers}, {layer.name for layer in file.layers}
        raise WeightError(
            f"The model has {len(layers)} layers with weights, the file {len(file.layers)}. {DIFFERENT}",
            missing=[str(target) for layer in layers if layer.name not in found for target in layer_targets(layer)],
            unexpected=[str(array) for layer in file.layers if layer.name not in wanted for array in layer.arrays],
        )
    _check_names(dict(enumerate(layers)), {index: layer.name for index, layer in enumerate(file.layers)})
    return _match_layers(list(zip(layers, file.layers, strict=True)))


def match_by_name(file: LegacyFile | TreeFile, model: ModelLike) -> list[Match]:
    """Matches the layers whose names are on both sides.

    Raises:
        WeightError: There is none, or layers of one name hold different arrays, or the file has no names.
    """
    if isinstance(file, TreeFile):
        if not file.names:
            raise WeightError("by_name=True needs layer names, which Keras has stored in such files since 3.6 only.")
        return _match_tree_by_name(file, model)
    stored = {layer.name: layer for layer in file.layers}
    layers = [layer for layer in model.layers if layer_targets(layer)]
    pairs = [(layer, stored[layer.name]) for layer in layers if layer.name in stored]
    if not pairs:
        raise WeightError(
            "No layer of the model has a name that is in the file.",
            missing=[layer.name for layer in layers],
            unexpected=list(stored),
        )
    return _match_layers(pairs)


def _match_layers(pairs: Sequence[tuple[Any, StoredLayer]]) -> list[Match]:
    matches: list[Match] = []
    missing: list[str] = []
    unexpected: list[str] = []
    for layer, stored in pairs:
        targets = layer_targets(layer)
        if len(targets) != len(stored.arrays):
            missing += map(str, targets)
            unexpected += map(str, stored.arrays)
        else:
            ordered = _nested_order(layer.name, targets, stored) if is_nested(layer) else targets
            matches += zip(ordered, stored.arrays, strict=True)
    if missing or unexpected:
        raise WeightError(f"Layers hold other arrays than the model's. {DIFFERENT}", missing, unexpected)
    return matches


def _check_names(layers: Mapping[Any, Any], found: Mapping[Any, str]) -> None:
    """Refuses a file in which a name that somebody gave stands in another place: its order is not the model's."""
    place = {name: key for key, name in found.items()}
    moved = [
        layer.name
        for key, layer in layers.items()
        if place.get(layer.name, key) != key and not is_automatic(layer.name, layer.class_name)
    ]
    if moved:
        raise WeightError(
            f"The file has these layers in another order than the model: {', '.join(moved)}. If the names are right, "
            "by_name=True loads them."
        )


def _nested_order(name: str, targets: list[Target], stored: StoredLayer) -> list[Target]:
    """The order of a nested model's arrays in a legacy file, where it is one group.

    What was trainable at the time comes first. The names of the arrays say whose they are; where they do not, the two
    usual states are tried (nothing frozen, everything frozen), and only one of them may fit.
    """
    by_name = dict(zip(_ranked([(target.layers[-1], target.variable) for target in targets]), targets, strict=True))
    names = _ranked([_layer_and_variable(array.name) for array in stored.arrays])
    if len(by_name) == len(targets) and set(names) == set(by_name):
        return [by_name[key] for key in names]
    trained_first = sorted(targets, key=lambda target: target.collection != "params")
    orders = [trained_first] if trained_first == targets else [trained_first, targets]
    shapes = [array.shape for array in stored.arrays]
    fitting = [order for order in orders if [target.shape for target in order] == shapes]
    if len(fitting) > 1:
        raise WeightError(
            f"The arrays of the nested model {name!r} can be in two orders, and their names do not tell which. Save it "
            "in the newer format: model.save_weights('x.weights.h5')."
        )
    return fitting[0] if fitting else trained_first


def _ranked(names: list[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Layer names with the number at their end replaced by its rank: automatic names count over a session."""
    split = [(re.fullmatch(r"(.*?)(?:_(\d+))?", layer), variable) for layer, variable in names]
    parts = [(found[1], int(found[2] or 0), variable) for found, variable in split if found]
    numbers: dict[str, set[int]] = {}
    for base, number, _ in parts:
        numbers.setdefault(base, set()).add(number)
    return [(base, sorted(numbers[base]).index(number), variable) for base, number, variable in parts]


def _layer_and_variable(name: str) -> tuple[str, str]:
    """("block1_conv1", "kernel") of "xception/block1_conv1/kernel:0"."""
    *_, layer, variable = ["", "", *name.removesuffix(":0").split("/")]
    return layer, variable


def _match_tree(file: TreeFile, model: ModelLike) -> list[Match]:
    return _match_places(file, dict(_places(model.layers)), dict(file.arrays))


def _match_tree_by_name(file: TreeFile, model: ModelLike) -> list[Match]:
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
            places |= dict(_places(layer.layers, path, (layer.name,)))
    wanted = {path[0] for path in places}
    arrays = {key: stored for key, stored in file.arrays.items() if key[0][0] in wanted}
    return _match_places(file, places, arrays)


def _match_places(
    file: TreeFile, places: Mapping[GroupPath, tuple[Any, list[Target]]], left: dict[tuple[GroupPath, int], StoredArray]
) -> list[Match]:
    matches: list[Match] = []
    missing: list[str] = []
    for path, (_, targets) in places.items():
        for number, target in enumerate(targets):
            stored = left.pop((path, number), None)
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


def _places(
    layers: Sequence[Any], above: GroupPath = (), names: tuple[str, ...] = ()
) -> Iterator[tuple[GroupPath, tuple[Any, list[Target]]]]:
    """Where Keras 3 puts each layer: by class, counted within the model in the order of its layers; names play no part.

    Yields:
        The groups' names, then the layer and its own arrays.
    """
    count: dict[str, int] = {}
    for layer in layers:
        group = snake_case(layer.class_name)
        count[group] = count.get(group, -1) + 1
        path = (*above, f"{group}_{count[group]}" if count[group] else group)
        yield path, (layer, [] if is_nested(layer) else layer_targets(layer, names))
        if is_nested(layer):
            yield from _places(layer.layers, path, (*names, layer.name))
