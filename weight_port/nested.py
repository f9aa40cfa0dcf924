"""Determine the order of a nested model's arrays in a legacy file: one group, trainable arrays first.

The order depends on what was trainable when the file was written. It is taken from the names of the arrays, unless
Keras changed them; else from the `trainable` flags in a whole-model file; else from the shapes, if unambiguous.
Source: `trainable_weights` and `non_trainable_weights` in keras/engine/network.py (Keras 2.2.4) and
keras/src/engine/training.py (2.15), which are the same.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weight_port.errors import WeightError
from weight_port.layout import Target, is_nested, layer_targets
from weight_port.stored import StoredLayer

Name = tuple[str, str]  # of a layer, and of its variable
KERAS1_VARIABLES = {
    "W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance", "alphas": "alpha",
}  # fmt: skip # kept on few lines on purpose


def nested_order(layer: Any, stored: StoredLayer, entry: Mapping[str, Any] | None) -> list[Target]:
    """Order the arrays that a nested model needs as they are in a file.

    Args:
        layer: The nested model.
        stored: Its group in the file, with as many arrays as the model needs.
        entry: The configuration of the nested model in the same file, or None.

    Raises:
        WeightError: The order is ambiguous, or the names contradict it.
    """
    targets = layer_targets(layer)
    found = _by_names(targets, stored)
    if found is not None:
        return found
    if entry is not None:
        found = _by_flags(layer, stored, entry)
    found = _by_shapes(targets, stored) if found is None else found
    _check_owners(found, stored)
    return found


def _check_owners(order: list[Target], stored: StoredLayer) -> None:
    """Refuse an order that assigns to one layer arrays that are named after several layers."""
    owners: dict[tuple[str, ...], set[str]] = {}
    for target, array in zip(order, stored.arrays, strict=True):
        if "/" not in target.variable:  # arrays of inner layers are named after these
            owners.setdefault(target.layers, set()).add(_layer_and_variable(array.name)[0])
    mixed = ["/".join(layers) for layers, names in owners.items() if len(names) > 1]
    if mixed:
        raise WeightError(
            f"The arrays of the nested model {stored.name!r} are in an order that their names contradict: "
            f"{', '.join(mixed)} would get arrays of several layers"
        )


def _by_names(targets: list[Target], stored: StoredLayer) -> list[Target] | None:
    """The order given by the names in the file, or None if they are not the names of the layers."""
    wanted = [(target.layers[-1], target.variable) for target in targets]
    names = [_layer_and_variable(array.name) for array in stored.arrays]
    # Keras 2.2 appends _1 to the names of a loaded model: conv2d_3_1 is conv2d_3.
    shortened = [(re.sub(r"_\d+$", "", name), variable) for name, variable in names]
    for given, sought in ((names, wanted), (_ranked(names), _ranked(wanted)), (shortened, wanted)):
        by_name: dict[Any, Target] = dict(zip(sought, targets, strict=True))
        if len(by_name) == len(targets) and set(given) == set(by_name):
            return [by_name[name] for name in given]
    # Layer names with slashes: compare with the end of the array's name.
    written = {f"/{target.layers[-1]}/{target.variable}": target for target in targets}
    whole = [f"/{array.name.removesuffix(':0')}" for array in stored.arrays]
    ends = [max((key for key in written if name.endswith(key)), key=len, default="") for name in whole]
    if len(written) == len(targets) and set(ends) == set(written):
        return [written[key] for key in ends]
    return None


def _by_flags(layer: Any, stored: StoredLayer, entry: Mapping[str, Any]) -> list[Target] | None:
    """The order given by the `trainable` flags, or None if the arrays do not fit it."""
    parts = _parted(layer, entry, ())
    if parts is None:
        return None
    order = parts[0] + parts[1]
    return order if _fits(order, stored) else None


def _parted(layer: Any, entry: Mapping[str, Any], above: tuple[str, ...]) -> tuple[list[Target], list[Target]] | None:
    """The trainable and the non-trainable targets, or None if the entry is of another model."""
    config = entry.get("config")
    trainable = config.get("trainable", True) if isinstance(config, Mapping) else True
    if not is_nested(layer):
        targets = layer_targets(layer, above)
        first = [target for target in targets if target.collection == "params"]
        rest = [target for target in targets if target.collection != "params"]
    else:
        entries = config.get("layers") if isinstance(config, Mapping) else config
        if not isinstance(entries, list):
            return None
        first, rest = [], []
        for inner, inner_entry in _paired(layer.layers, entries):
            parts = _parted(inner, inner_entry, (*above, layer.name))
            if parts is None:
                return None
            first += parts[0]
            rest += parts[1]
        if len(first) + len(rest) != len(layer_targets(layer, above)):
            return None
    return (first, rest) if trainable else ([], first + rest)


def _paired(layers: Sequence[Any], entries: list[Any]) -> list[tuple[Any, Mapping[str, Any]]]:
    """Pair layers with their entries by name, or by order if the names differ."""
    named = {_entry_name(entry): entry for entry in entries if isinstance(entry, Mapping)}
    if all(layer.name in named for layer in layers if layer_targets(layer)):
        return [(layer, named[layer.name]) for layer in layers if layer.name in named]
    inputs = [entry for entry in entries if isinstance(entry, Mapping) and entry.get("class_name") != "InputLayer"]
    others = [layer for layer in layers if layer.class_name != "InputLayer"]
    return list(zip(others, inputs, strict=True)) if len(inputs) == len(others) else []


def named_entries(config: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The layers in the configuration of a model by name; empty without a configuration."""
    inside = (config or {}).get("config")
    entries = inside.get("layers") if isinstance(inside, Mapping) else inside
    listed = [entry for entry in entries or () if isinstance(entry, Mapping)]
    return {name: entry for entry in listed if isinstance(name := _entry_name(entry), str)}


def _entry_name(entry: Mapping[str, Any]) -> Any:
    config = entry.get("config")
    return config.get("name") if isinstance(config, Mapping) else entry.get("name")


def _by_shapes(targets: list[Target], stored: StoredLayer) -> list[Target]:
    """The order for nothing or everything frozen, if exactly one of them fits.

    Partly frozen models have other orders, which could swap layers of equal shapes. Such models are refused.
    """
    trained_first = sorted(targets, key=lambda target: target.collection != "params")
    orders = [trained_first] if trained_first == targets else [trained_first, targets]
    fitting = [order for order in orders if _fits(order, stored)]
    kinds: dict[tuple[str, ...], list[Any]] = {}
    for target in targets:
        kinds.setdefault(target.layers, []).append((target.variable, target.shape))
    signatures = [tuple(kind) for kind in kinds.values()]
    if len(fitting) > 1 or (fitting and len(set(signatures)) < len(signatures)):
        raise WeightError(
            f"The arrays of the nested model {stored.name!r} can be in several orders, and neither their names nor a "
            "configuration in the file determine it. Save it in the newer format: model.save_weights('x.weights.h5')."
        )
    return fitting[0] if fitting else trained_first


def _fits(order: list[Target], stored: StoredLayer) -> bool:
    """Whether shapes are equal and stored variable names, where known, match."""
    variables = {target.variable for target in order}
    for target, array in zip(order, stored.arrays, strict=True):
        _, variable = _layer_and_variable(array.name)
        if target.shape != array.shape or (variable in variables and variable != target.variable):
            return False
    return True


def _ranked(names: list[Name]) -> list[tuple[str, int, str]]:
    """Replace the number at the end of layer names by its rank, because automatic names count over a session."""
    split = [(re.fullmatch(r"(.*?)(?:_(\d+))?", layer), variable) for layer, variable in names]
    parts = [(found[1], int(found[2] or 0), variable) for found, variable in split if found]
    numbers: dict[str, set[int]] = {}
    for base, number, _ in parts:
        numbers.setdefault(base, set()).add(number)
    return [(base, sorted(numbers[base]).index(number), variable) for base, number, variable in parts]


def variable_of(name: str) -> str:
    """Keras 3's name of the variable in the name of a legacy array."""
    return _layer_and_variable(name)[1]


def _layer_and_variable(name: str) -> Name:
    """Split "xception/block1_conv1/kernel:0" into ("block1_conv1", "kernel")."""
    *_, layer, variable = ["", "", *name.removesuffix(":0").split("/")]
    older = re.fullmatch(r"(.+)_(W|b|gamma|beta|running_mean|running_std|alphas)(?:_\d+)?", variable)  # of Keras 1
    if older:
        return older[1], KERAS1_VARIABLES.get(older[2], older[2])
    return layer, variable
