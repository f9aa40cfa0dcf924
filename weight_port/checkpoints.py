"""Trees of arrays in the two forms JAX programs keep them in: `.npz` files and Orbax folders.

Neither needs a model: what Keras's files leave to the order of layers, these say by name.
"""

import errno
import os
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_port.archives import ZIP_MAGIC
from weight_port.errors import WeightError
from weight_port.readers import damage_named
from weight_port.writers import leaves, replacing

SEPARATOR = "/"
ORBAX_MARKS = ("_CHECKPOINT_METADATA", "_METADATA")  # the second alone in folders of Orbax before 0.7
Path = tuple[str, ...]


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive of NumPy arrays; a `.keras` file is an archive too.

    Raises:
        FileNotFoundError: There is no file.
        WeightError: It is an archive, but a damaged one.
    """
    with damage_named(os.fspath(path)):
        with open(path, "rb") as file:
            if file.read(2) != ZIP_MAGIC:
                return False
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is an Orbax checkpoint."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in ORBAX_MARKS)


def load_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a tree whose paths, joined by "/", are the keys of a `.npz` file.

    Raises:
        WeightError: The file is damaged, or holds something else than float32 arrays and what float32 holds exactly.
        FileNotFoundError: There is no file.
    """
    with damage_named(os.fspath(path)), np.load(path, allow_pickle=False) as file:
        return nest({tuple(key.split(SEPARATOR)): _as_float32(key, file[key]) for key in file.files})


def save_npz(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Writes a tree to a `.npz` file, beside its target, which is then replaced.

    Raises:
        WeightError: A name has a "/" in it, so that the keys could not be taken apart again.
        FileNotFoundError: There is no such folder.
    """
    arrays = dict(leaves(tree))
    ambiguous = [key for keys in arrays for key in keys if SEPARATOR in key]
    if ambiguous:
        raise WeightError(f"{os.fspath(path)}: keys of .npz files are joined by '/', which {ambiguous[0]!r} contains")
    with replacing(path) as part, open(part, "wb") as file:  # given a name, NumPy would append .npz to it
        np.savez(file, allow_pickle=False, **{SEPARATOR.join(keys): np.asarray(leaf) for keys, leaf in arrays.items()})


def load_orbax(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads an Orbax checkpoint of a tree, as `StandardCheckpointer` writes it.

    Raises:
        WeightError: The folder is no such checkpoint or damaged, or Orbax is not installed.
    """
    orbax = _orbax()
    name = os.fspath(path)
    try:
        with orbax.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(os.path.abspath(name)).item_metadata.tree
            as_numpy = _map(metadata, lambda _: orbax.RestoreArgs(restore_type=np.ndarray))
            options = orbax.args.PyTreeRestore(restore_args=as_numpy)
            tree = checkpointer.restore(os.path.abspath(name), args=options)
    except Exception as error:  # TensorStore and Orbax have no common class for what damaged folders provoke
        raise WeightError(f"{name} is no Orbax checkpoint of a tree, or is damaged: {error}") from error
    with damage_named(name):
        return nest({keys: _as_float32(SEPARATOR.join(keys), leaf) for keys, leaf in leaves(tree)})


def save_orbax(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Writes a tree as an Orbax checkpoint, beside its target, which is then replaced.

    Raises:
        WeightError: Something else than a checkpoint is in the way, which is left alone, or Orbax is not installed.
        FileNotFoundError: There is no folder to put it in.
    """
    target = os.path.realpath(path)
    parent, name = os.path.split(target)
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, "No such folder", parent)
    replaced = os.path.isdir(target)
    if os.path.exists(target) and not (replaced and (is_orbax(target) or not os.listdir(target))):
        raise WeightError(f"{os.fspath(path)} is in the way: it is no Orbax checkpoint, and is not overwritten")
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
    """The tree that has these paths.

    >>> nest({("params", "conv", "bias"): 1, ("params", "conv", "kernel"): 2})
    {'params': {'conv': {'bias': 1, 'kernel': 2}}}

    Raises:
        WeightError: One path goes on where another ends.
    """
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise WeightError(f"{SEPARATOR.join(path)} is inside of what is an array itself")
        if path[-1] in branch:
            raise WeightError(f"{SEPARATOR.join(path)} is there twice, or has arrays inside")
        branch[path[-1]] = array
    return tree


def _map(tree: Mapping[str, Any], function: Any) -> dict[str, Any]:
    return {key: _map(each, function) if isinstance(each, Mapping) else function(each) for key, each in tree.items()}


def _as_float32(name: str, array: Any) -> NDArray[np.float32]:
    if not isinstance(array, np.ndarray):
        raise WeightError(f"{name} is {type(array).__name__}, not an array")
    if array.dtype == np.float32:
        return array
    if array.dtype.kind == "b" or not np.can_cast(array.dtype, np.float32, "safe"):
        raise WeightError(f"{name} holds {array.dtype}, which float32 does not hold exactly")
    return array.astype(np.float32)


def _orbax() -> Any:
    # It brings JAX, which this package does without: imported where a folder is read or written, and only there.
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise WeightError(f"Orbax folders need the package orbax-checkpoint: {error}") from error
    return orbax.checkpoint
