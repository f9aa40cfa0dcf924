"""Writes the weights of a model as Keras does: the newer layout of `.weights.h5`, or the legacy one of Keras 2.

Sources: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py (Keras 3.15).
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from weight_port.errors import WeightError
from weight_port.layout import ModelLike, Target, all_targets, is_nested, layer_targets
from weight_port.matching import _places

TREE_SUFFIX = ".weights.h5"
LEGACY_SUFFIX = ".h5"
# Bytes of fixed length: old readers call decode() on them. Of the version, it matters that it is not 1.
LEGACY_VERSION = np.bytes_(b"2.15.0")
LEGACY_BACKEND = np.bytes_(b"tensorflow")
ATTRIBUTE_LIMIT = 64512  # HDF5's for an object header is 65,536 bytes; this is what Keras fills of it

Path = tuple[str, ...]
Arrays = Mapping[Path, Any]


def save_weights(path: str | os.PathLike[str], model: ModelLike, variables: Mapping[str, Any]) -> None:
    """Writes the weights of a model to a file that Keras loads with `keras_model.load_weights(path)`.

    The file is written beside its target and then renamed, so that an interrupted save leaves an old file whole.
    Arrays are written one by one and as they are; Keras's layout is that of the variables.

    Args:
        path: `x.weights.h5` is written as Keras 3 does, any other `x.h5` as Keras 2 did. In the latter a nested model
            is one group, which Keras reads in the order of a model that trains: load it before freezing.
        model: What the weights are of.
        variables: `{"params": ..., "batch_stats": ...}`, keyed by layer name; NumPy or JAX arrays.

    Raises:
        WeightError: The variables are not the model's, or the suffix is of neither format; nothing is written.
        FileNotFoundError: There is no such folder.
    """
    name = os.fspath(path)
    write = write_tree if name.endswith(TREE_SUFFIX) else _write_legacy
    if not name.endswith(LEGACY_SUFFIX):
        raise WeightError(
            f"{name} has to end in {TREE_SUFFIX} (Keras 3) or {LEGACY_SUFFIX} (Keras 2) to tell the format of the "
            "weights. Whole models (.keras) are written by flaxapps.save_model."
        )
    arrays = check_variables(model, variables)
    with replacing(path) as part:
        write_file(part, write, model, arrays)


def check_variables(model: ModelLike, variables: Mapping[str, Any]) -> dict[Path, Any]:
    """The arrays of a model by their path in the variables.

    Raises:
        WeightError: There are arrays missing, too many, of other shapes, or of a dtype that float32 does not hold
            exactly; all are listed.
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
    """The arrays of a tree, with their paths."""
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
    except (AttributeError, TypeError):  # not an array, or one of random keys
        return False


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path to write to, which takes the place of `path` at the end; after an error, `path` is as it was.

    Args:
        path: The file to be replaced, or made. A symbolic link is followed.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    target = os.path.realpath(path)
    with scratch_file(target) as part:
        yield part
        if os.path.exists(target):
            shutil.copymode(target, part)
        with open(part, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    with suppress(OSError):  # not every system opens folders
        folder = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def scratch_file(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path of a file to be, beside `path`; what is there at the end is removed.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folder, name = os.path.split(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "No such folder", folder)
    part = os.path.join(folder, f".{name[:64]}.{secrets.token_hex(6)}.part")
    try:
        yield part
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def write_file(path: str, write: Callable[[h5py.File, ModelLike, Arrays], None], model: ModelLike, arrays: Any) -> None:
    """Writes an HDF5 file.

    Args:
        path: Where to.
        write: `write_tree`, or another that fills an open file.
        model: What the weights are of.
        arrays: What `check_variables` returned.
    """
    with h5py.File(path, "w") as file:
        write(file, model, arrays)


def write_tree(file: h5py.File, model: ModelLike, arrays: Arrays) -> None:
    """Fills an open file as Keras 3 does, for `.weights.h5` and for the weights in a `.keras` archive."""
    _write_variables(file, getattr(model, "name", None) or "functional", [], arrays)
    sequential: set[Path] = set()
    for path, (layer, targets) in _places(model.layers):
        if layer.class_name == "InputLayer" and path[:-1] in sequential:
            continue  # Keras does not count it among the layers of a Sequential model
        if layer.class_name == "Sequential":
            sequential.add(path)
        group = file.create_group("/".join(f"layers/{name}" for name in path))
        _write_variables(group, layer.name, targets, arrays)


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
        if is_nested(layer):  # one group, what trains first
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
    """Such as "conv1/kernel:0"; the name of a nested model around it is its group's."""
    return "/".join([*(target.layers[1:] or target.layers), f"{target.variable}:0"])


def _write_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """A list of names; what HDF5 does not take in one attribute goes into layer_names0, layer_names1, ..."""
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
