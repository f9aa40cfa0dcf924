"""Read and write trees of arrays as `.npz` files and Orbax folders.

Neither format needs a model: arrays are stored by name, not by layer order as in Keras files.
"""

import errno
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_port.atomic import replacing
from weight_port.errors import WeightError
from weight_port.hdf5.archives import ZIP_MAGIC
from weight_port.readers import damage_named
from weight_port.writers import leaves

SEPARATOR = "/"
DESCRIPTION = "description"  # key of the JSON of a network in `.npz` files of `flaxapps.save_model`, as UTF-8 bytes
ORBAX_MARKS = ("_CHECKPOINT_METADATA", "_METADATA")  # only the second before Orbax 0.7
Path = tuple[str, ...]


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive of NumPy arrays (a `.keras` file is an archive too).

    Raises:
        FileNotFoundError: `path` does not exist.
        WeightError: The file is a damaged archive.
    """
    with damage_named(os.fspath(path)):
        with open(path, "rb") as file:
            if file.read(2) != ZIP_MAGIC:
                return False
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def join_path(keys: Iterable[str]) -> str:
    """Join the keys of a path in a tree; slashes in keys are escaped as %2F.

    >>> join_path(("params", "fire2/expand", "kernel"))
    'params/fire2%2Fexpand/kernel'
    """
    return SEPARATOR.join(key.replace("%", "%25").replace(SEPARATOR, "%2F") for key in keys)


def split_path(text: str) -> tuple[str, ...]:
    """The inverse of `join_path`."""
    return tuple(key.replace("%2F", SEPARATOR).replace("%25", "%") for key in text.split(SEPARATOR))


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is an Orbax checkpoint."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in ORBAX_MARKS)


def load_npz(path: str | os.PathLike[str], *, as_stored: bool = False) -> dict[str, Any]:
    """Load a tree from a `.npz` file whose keys are the paths joined by "/" (`join_path`).

    The description of a network, in files of `flaxapps.save_model`, is left out, and int8 arrays become float32 ones:
    `flaxapps.load_model` reads the whole.

    Args:
        path: The file.
        as_stored: Whether arrays keep their dtypes.

    Raises:
        WeightError: The file is damaged, or has arrays that float32 cannot represent exactly.
        FileNotFoundError: `path` does not exist.
    """
    with damage_named(os.fspath(path)), np.load(path, allow_pickle=False) as file:
        form = _checked if as_stored else _as_float32
        return nest({split_path(key): form(key, file[key]) for key in file.files if key != DESCRIPTION})


def save_npz(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Save a tree to a `.npz` file. The write is atomic.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    arrays = dict(leaves(tree))
    with replacing(path) as part, open(part, "wb") as file:  # given a name, NumPy would append .npz
        np.savez(file, allow_pickle=False, **{join_path(keys): np.asarray(leaf) for keys, leaf in arrays.items()})


def load_orbax(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load an Orbax checkpoint of a tree, as written by `StandardCheckpointer`.

    Raises:
        WeightError: The folder is not such a checkpoint or is damaged, or Orbax is not installed.
    """
    orbax = _orbax()
    name = os.fspath(path)
    place = name if "://" in name else os.path.abspath(name)  # in a bucket, or on a disk
    try:
        with orbax.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(place).item_metadata.tree
            as_numpy = _map(metadata, lambda _: orbax.RestoreArgs(restore_type=np.ndarray))
            options = orbax.args.PyTreeRestore(restore_args=as_numpy)
            tree = checkpointer.restore(place, args=options)
    except Exception as error:  # TensorStore and Orbax have no common exception class for damaged folders
        raise WeightError(f"{name} is not an Orbax checkpoint of a tree, or is damaged: {error}") from error
    with damage_named(name):
        return nest({keys: _as_float32(SEPARATOR.join(keys), leaf) for keys, leaf in leaves(tree)})


def save_orbax(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Save a tree as an Orbax checkpoint. It is written beside its target, which is then replaced.

    Raises:
        WeightError: `path` exists and is not a checkpoint (it is not overwritten), or Orbax is not installed.
        FileNotFoundError: The parent folder does not exist.
    """
    target = os.path.realpath(path)
    parent, name = os.path.split(target)
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, "No such folder", parent)
    replaced = os.path.isdir(target)
    if os.path.exists(target) and not (replaced and (is_orbax(target) or not os.listdir(target))):
        raise WeightError(f"{os.fspath(path)} exists and is not an Orbax checkpoint: it is not overwritten")
    orbax = _orbax()
    with tempfile.TemporaryDirectory(prefix=f".{name[:64]}.", suffix=".part", dir=parent) as scratch:
        new, old = os.path.join(scratch, "new"), os.path.join(scratch, "old")
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.save(new, dict(tree))
        if replaced:
            os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            if replaced:
                os.rename(old, target)
            raise


def nest(arrays: Mapping[Path, Any]) -> dict[str, Any]:
    """Build a nested tree from arrays by path.

    >>> nest({("params", "conv", "bias"): 1, ("params", "conv", "kernel"): 2})
    {'params': {'conv': {'bias': 1, 'kernel': 2}}}

    Raises:
        WeightError: A path is inside another, or repeated.
    """
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise WeightError(f"{SEPARATOR.join(path)} is below a path that is an array")
        if path[-1] in branch:
            raise WeightError(f"{SEPARATOR.join(path)} is repeated, or has arrays below it")
        branch[path[-1]] = array
    return tree


def _map(tree: Mapping[str, Any], function: Any) -> dict[str, Any]:
    return {key: _map(each, function) if isinstance(each, Mapping) else function(each) for key, each in tree.items()}


def _checked(name: str, array: Any) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise WeightError(f"{name} is {type(array).__name__}, not an array")
    if array.dtype.kind == "b" or not np.can_cast(array.dtype, np.float32, "safe"):
        raise WeightError(f"{name} holds {array.dtype}, which float32 cannot represent exactly")
    return array


def _as_float32(name: str, array: Any) -> NDArray[np.float32]:
    return _checked(name, array).astype(np.float32, copy=False)


def _orbax() -> Any:
    # Orbax imports JAX, which this package does not require: imported on demand.
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise WeightError(f"Orbax folders need the package orbax-checkpoint: {error}") from error
    return orbax.checkpoint
