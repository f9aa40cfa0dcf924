"""Write the weights of a model as Keras does: in the format of Keras 3 (`.weights.h5`) or the legacy one of Keras 2.

Sources: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py (Keras 3.15).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from weight_port.atomic import replacing
from weight_port.errors import WeightError
from weight_port.layout import WRAPPERS, ModelLike, Target, all_targets, is_nested, layer_targets
from weight_port.matching import _places

TREE_SUFFIX = ".weights.h5"
LEGACY_SUFFIX = ".h5"
# Fixed-length bytes, because old readers call decode() on them. The version must not be 1, whose kernels differ.
LEGACY_VERSION = np.bytes_(b"2.15.0")
LEGACY_BACKEND = np.bytes_(b"tensorflow")
ATTRIBUTE_LIMIT = 64512  # Keras's limit; HDF5's limit of an object header is 65,536 bytes

Path = tuple[str, ...]
Arrays = Mapping[Path, Any]


def save_weights(path: str | os.PathLike[str], model: ModelLike, variables: Mapping[str, Any]) -> None:
    """Save the weights of a model to a file that Keras loads with `keras_model.load_weights(path)`.

    The write is atomic: an interrupted save leaves an existing file intact. Arrays are written unchanged, because the
    variables have Keras's layout.

    Args:
        path: `x.weights.h5` is written in the format of Keras 3, any other `x.h5` in that of Keras 2. In the latter a
            nested model is one group, which Keras reads in the order of a trainable model: load it before freezing.
        model: The model.
        variables: `{"params": ..., "batch_stats": ...}`, keyed by layer name; NumPy or JAX arrays.

    Raises:
        WeightError: The variables do not fit the model, or the suffix is unknown; nothing is written.
        FileNotFoundError: The folder does not exist.
    """
    name = os.fspath(path)
    write = write_tree if name.endswith(TREE_SUFFIX) else _write_legacy
    if not name.endswith(LEGACY_SUFFIX):
        raise WeightError(
            f"{name} has to end in {TREE_SUFFIX} (Keras 3) or {LEGACY_SUFFIX} (Keras 2), which selects the format. "
            "Whole models (.keras) are written by flaxapps.save_model."
        )
    arrays = check_variables(model, variables)
    with replacing(path) as part:
        write_file(part, write, model, arrays)


def check_variables(model: ModelLike, variables: Mapping[str, Any]) -> dict[Path, Any]:
    """The arrays of a model by their path in the variables.

    Raises:
        WeightError: Arrays are missing, unexpected, misshapen, or of a dtype that float32 cannot represent exactly; all
            are listed.
    """
    found = dict(leaves(variables))
    wanted = {target.path: target for target in all_targets(model.layers)}
    shared = [(target, found[path]) for path, target in wanted.items() if path in found]
    missing = [str(target) for path, target in wanted.items() if path not in found]
    unexpected = [f"{'/'.join(path)} {np.shape(leaf)}" for path, leaf in found.items() if path not in wanted]
    misshapen = [f"{target}: the variables have {np.shape(leaf)}" for target, leaf in shared if not _fits(target, leaf)]
    misshapen += [f"{target}: {_dtype(leaf)} is not float32" for target, leaf in shared if not _is_exact(leaf)]
    if missing or unexpected or misshapen:
        raise WeightError("The variables are not those of the model.", missing, unexpected, misshapen)
    return found


def leaves(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the arrays of a tree with their paths."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _fits(target: Target, leaf: Any) -> bool:
    return tuple(np.shape(leaf)) == target.shape


def _dtype(leaf: Any) -> Any:
    return getattr(leaf, "dtype", type(leaf).__name__)


def _is_exact(leaf: Any) -> bool:
    try:
        return np.can_cast(np.dtype(leaf.dtype), np.float32, "safe")
    except (AttributeError, TypeError):  # not an array, or an array of random keys
        return False


def write_file(path: str, write: Callable[[h5py.File, ModelLike, Arrays], None], model: ModelLike, arrays: Any) -> None:
    """Write an HDF5 file.

    Args:
        path: Path of the file.
        write: `write_tree`, or another function that fills an open file.
        model: The model.
        arrays: The result of `check_variables`.
    """
    with h5py.File(path, "w") as file:
        write(file, model, arrays)


def write_tree(file: h5py.File, model: ModelLike, arrays: Arrays) -> None:
    """Fill an open file in the format of Keras 3, for `.weights.h5` and for the weights in a `.keras` archive."""
    _write_variables(file, getattr(model, "name", None) or "functional", [], arrays)
    sequential: set[Path] = set()
    containers: set[Path] = {()}
    for path, (layer, targets) in _places(model.layers):
        if layer.class_name == "InputLayer" and path[:-1] in sequential:
            continue  # Keras does not count it among the layers of a Sequential model
        if layer.class_name == "Sequential":
            sequential.add(path)
        if is_nested(layer):
            containers.add((*path, "layer") if layer.class_name in WRAPPERS else path)
        group = file.require_group(_group_of(path, containers))
        _write_variables(group, layer.name.replace("/", "_"), targets, arrays)  # as flaxapps.save_model names layers


def _group_of(path: Path, containers: set[Path]) -> str:
    """The group of a layer: layers of a model are below "layers", inner layers of a layer below its attribute."""
    return "/".join(f"layers/{name}" if path[:depth] in containers else name for depth, name in enumerate(path))


def _write_variables(group: h5py.Group, name: str, targets: Sequence[Target], arrays: Arrays) -> None:
    below = group.create_group("vars")
    below.attrs["name"] = name
    for number, target in enumerate(targets):
        below.create_dataset(str(number), data=_array(arrays[target.path]))


def _write_legacy(file: h5py.File, model: ModelLike, arrays: Arrays) -> None:
    _write_names(file, "layer_names", [layer.name for layer in model.layers])
    file.attrs["backend"] = LEGACY_BACKEND
    file.attrs["keras_version"] = LEGACY_VERSION
    for layer in model.layers:
        targets = layer_targets(layer)
        if is_nested(layer):  # one group, trainable arrays first
            targets.sort(key=lambda target: target.collection != "params")
        _write_layer(file, layer.name, targets, arrays)
    _write_layer(file, "top_level_model_weights", [], arrays)


def _write_layer(file: h5py.File, name: str, targets: Sequence[Target], arrays: Arrays) -> None:
    group = file.require_group(name)
    names = [_legacy_name(target) for target in targets]
    _write_names(group, "weight_names", names)
    for weight_name, target in zip(names, targets, strict=True):
        group.create_dataset(weight_name, data=_array(arrays[target.path]))


def _legacy_name(target: Target) -> str:
    """Such as "conv1/kernel:0", without the name of the nested model, which is the group's."""
    return "/".join([*(target.layers[1:] or target.layers), f"{target.variable}:0"])


def _write_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """Write a list of names, split into layer_names0, layer_names1, ... if it is too long for one HDF5 attribute."""
    encoded = np.asarray([name.encode() for name in names])
    count = max(1, -(-encoded.nbytes // ATTRIBUTE_LIMIT))
    parts = np.array_split(encoded, count)
    while any(part.nbytes > ATTRIBUTE_LIMIT for part in parts):
        count += 1
        parts = np.array_split(encoded, count)
    for number, part in enumerate(parts):
        group.attrs[f"{attribute}{number}" if count > 1 else attribute] = part


def _array(leaf: Any) -> NDArray[np.float32]:
    return np.asarray(leaf).astype(np.float32, copy=False)
