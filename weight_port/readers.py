"""Open the weight files Keras writes, detected by content, and list their arrays.

Only names and shapes are read here. Arrays are read on demand, directly into their final memory.
"""

import functools
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import h5py

from weight_port.errors import WeightError
from weight_port.hdf5.archives import CONFIG_MEMBER, ZIP_MAGIC, check_ratio, weights_in_archive
from weight_port.hdf5.arrays import DAMAGE, StoredArray, check_places
from weight_port.hdf5.attributes import read_text
from weight_port.hdf5.heaps import WithoutArrays, check_heaps
from weight_port.stored import LegacyFile, TreeFile, add_strings, describe

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CONFIG_LIMIT = 1 << 28
METADATA_MEMBER = "metadata.json"
VERSION_KEYS = ("keras_version", "backend")


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Convert the exceptions that a damaged file causes to a WeightError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except WeightError as error:
        if path in error.message:
            raise
        raise WeightError(f"{path}: {error.message}") from error
    except DAMAGE as error:
        size = os.path.getsize(path) if os.path.exists(path) else 0
        raise WeightError(f"{path} ({size:,} bytes) is damaged or was cut short: {error}") from error


@contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[LegacyFile | TreeFile]:
    """Open a weight file for the duration of the context.

    Args:
        path: A legacy `.h5`, `.weights.h5`, `.keras`, whole-model `.h5`, or the `.weights.json` of sharded weights; the
            name does not matter.

    Raises:
        WeightError: The file has none of these formats, or is damaged.
        FileNotFoundError: `path` does not exist.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise WeightError(folder_message(path))
    with ExitStack() as stack:
        with damage_named(path):
            file = stack.enter_context(open(path, "rb"))
            magic = file.read(8)
            if magic.lstrip().startswith(b"{"):
                yield _shards(path, stack)
                return
            if magic.startswith(ZIP_MAGIC):
                source: Any = weights_in_archive(file, path)
            elif magic == HDF5_MAGIC:
                source = file
            else:
                raise WeightError(f"{path} is neither an HDF5 file nor a .keras archive (it starts with {magic!r})")
            root = stack.enter_context(h5py.File(path, "r", "sec2") if source is file else h5py.File(source, "r"))
            contents = describe(root, path, functools.cache(lambda: check_heaps(WithoutArrays(source))))
            without_arrays = WithoutArrays(source, check_places(contents.all_arrays, root))
            check_heaps(without_arrays)
            contents = add_strings(contents, stack.enter_context(h5py.File(without_arrays, "r")))
        yield contents


def _shards(path: str, stack: ExitStack) -> TreeFile:
    """Open the weight shards listed in a JSON file beside them."""
    if os.path.getsize(path) > CONFIG_LIMIT:
        raise WeightError(f"{path} is larger than {CONFIG_LIMIT:,} bytes")
    with open(path, encoding="utf-8") as file:
        listed = json.load(file)
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(places, dict):
        raise WeightError(f"{path} holds a model without weights: give the file with its weights")
    arrays: dict[tuple[tuple[str, ...], int], StoredArray] = {}
    stored_names: dict[tuple[str, ...], str] = {}
    for name in _shard_names(places, path):
        shard = stack.enter_context(open_weights(os.path.join(os.path.dirname(path), name)))
        if not isinstance(shard, TreeFile):
            raise WeightError(f"{path} lists {name}, which is not in Keras 3's format")
        twice = arrays.keys() & shard.arrays.keys()
        if twice:
            raise WeightError(f"{path}: {len(twice)} arrays are in {name} and in another file")
        arrays |= shard.arrays
        stored_names |= shard.names
    return TreeFile(arrays, stored_names)


def _shard_names(places: dict[str, Any], path: str) -> list[str]:
    """The files of a list of shards, each once. Only HDF5 files in the folder of the list are allowed.

    Raises:
        WeightError: A name is invalid or leads to another folder, or the file does not exist or is not HDF5.
    """
    names: dict[str, None] = {}
    for layer, found in places.items():
        for name in [found] if isinstance(found, str) else found if isinstance(found, list) else [None]:
            if not isinstance(name, str) or not name.endswith(".h5") or set(name) & set("/\\:\0"):
                raise WeightError(
                    f"{path} lists {str(name or found)[:200]!r} for {layer}, which is not a file beside it"
                )
            names[name] = None
    for name in names:
        beside = os.path.join(os.path.dirname(path), name)
        if not os.path.isfile(beside):  # opening a named pipe would block
            raise WeightError(f"{path} lists {name[:200]!r}, which is not beside it")
        with open(beside, "rb") as file:
            if file.read(len(HDF5_MAGIC)) != HDF5_MAGIC:  # also refuses lists, which could recurse
                raise WeightError(f"{path} lists {name!r}, which is not an HDF5 file")
    return sorted(names)


def is_json(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the output of `model.to_json()`, and therefore no weights."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def folder_message(path: str) -> str:
    """The error message for a folder given as a weight file."""
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return (
            f"{path} is a SavedModel, a graph of TensorFlow that only TensorFlow can run: load it there and write "
            "model.save('model.keras') or model.save('model.h5')"
        )
    return f"{path} is a folder, not a file of Keras"


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the configuration that `keras.Model.save` stores beside the weights.

    Args:
        path: A `.keras` archive, a whole-model `.h5`, or a file with the output of `model.to_json()`.

    Returns:
        Keras's decoded JSON: `class_name`, `config`, ...; also `keras_version` and `backend`, as in `to_json`, if
        they are stored anywhere in the file.

    Raises:
        WeightError: The file is damaged, or has weights only.
        FileNotFoundError: `path` does not exist.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise WeightError(folder_message(path))
    said: dict[str, Any] = {}
    text: Any = None
    with damage_named(path):
        with open(path, "rb") as file:  # raises FileNotFoundError, which h5py does not
            start = file.read(len(HDF5_MAGIC))
            if start.lstrip().startswith(b"{"):
                text = start + file.read(CONFIG_LIMIT)
        if start.startswith(ZIP_MAGIC):
            with zipfile.ZipFile(path) as archive:
                text = _read_member(archive, CONFIG_MEMBER, path)
                said = json.loads(_read_member(archive, METADATA_MEMBER, path) or "{}")
        elif text is None:
            with open(path, "rb") as file:
                check_heaps(WithoutArrays(file))
            with h5py.File(path, "r") as root:
                text = read_text(root.id, b"model_config")
                groups = [root, *([root["model_weights"]] if "model_weights" in root else [])]
                # Kept in both groups; one that has lost it does not hide what the other says.
                stored = [(key, read_text(group.id, key.encode())) for group in groups for key in VERSION_KEYS]
                said = {key: value for key, value in stored if value is not None}
        if text is None:
            raise WeightError(f"{path} holds no model configuration: build the network and use load_weights")
        config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(said, dict):
        raise WeightError(f"{path}: the model configuration is {type(config).__name__}, not an object")
    return {key: said[key] for key in VERSION_KEYS if said.get(key) is not None} | config


def _read_member(archive: zipfile.ZipFile, name: str, path: str) -> bytes | None:
    """A text member of an archive, or None if there is none."""
    if name not in archive.namelist():
        return None
    if archive.getinfo(name).file_size > CONFIG_LIMIT:
        raise WeightError(f"{path}: {name} is larger than {CONFIG_LIMIT:,} bytes")
    check_ratio(archive.getinfo(name), path)
    return archive.read(name)
