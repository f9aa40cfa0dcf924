"""Opens the kinds of files Keras writes, told apart by content, and describes what is in them.

Nothing is read here but names and shapes: arrays are read when asked for, each straight to where it stays.
Sources: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py (Keras 3.15).
"""

import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5a, h5g, h5l, h5o

from weight_port.archives import CONFIG_MEMBER, ZIP_MAGIC, check_ratio, weights_in_archive
from weight_port.arrays import DAMAGE, StoredArray, check_places, open_array
from weight_port.attributes import read_text, read_texts
from weight_port.errors import WeightError
from weight_port.heaps import WithoutArrays, check_heaps

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CONFIG_LIMIT = 1 << 28
DEEPEST = 32
LAYERS = b"layers", b"_layer_checkpoint_dependencies"  # the group of a model's layers, now and in 2.13


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a legacy file: its name and its arrays, in order; of a nested model, all arrays inside."""

    name: str
    arrays: tuple[StoredArray, ...]


@dataclass(frozen=True)
class LegacyFile:
    """An open legacy file (`save_weights("x.h5")`, or the `model_weights` of a whole model).

    Attributes:
        layers: Layers that have arrays, in `model.layers` order at the time of saving.
        keras_version: "1" where the file does not say.
        backend: Such as "tensorflow" or "theano"; "" where the file does not say.
    """

    layers: tuple[StoredLayer, ...]
    keras_version: str = "1"
    backend: str = ""

    @property
    def all_arrays(self) -> list[StoredArray]:
        """The arrays of all layers, in order."""
        return [array for layer in self.layers for array in layer.arrays]


@dataclass(frozen=True)
class TreeFile:
    """An open file of Keras 3 (`.weights.h5`, or the one inside a `.keras`).

    Attributes:
        arrays: By the path of their layer below the model and their number there: ("conv2d_1",), 0.
        names: Layer names by path, which Keras records since 3.6.
    """

    arrays: dict[tuple[tuple[str, ...], int], StoredArray]
    names: dict[tuple[str, ...], str] = dataclasses.field(default_factory=dict)

    @property
    def all_arrays(self) -> list[StoredArray]:
        """The arrays of all layers, in the order of the file."""
        return list(self.arrays.values())


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Turns whatever a damaged file provokes into a WeightError that names it."""
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
    """Opens a weights file for as long as the context lasts.

    Args:
        path: A legacy `.h5`, `.weights.h5`, `.keras` or whole-model `.h5`; the name does not matter.

    Raises:
        WeightError: The file is none of them, or is damaged.
        FileNotFoundError: There is no file.
    """
    path = os.fspath(path)
    with ExitStack() as stack:
        with damage_named(path):
            file = stack.enter_context(open(path, "rb"))
            magic = file.read(8)
            if magic.startswith(ZIP_MAGIC):
                source: Any = weights_in_archive(file, path)
            elif magic == HDF5_MAGIC:
                source = file
            else:
                raise WeightError(f"{path} is neither an HDF5 file nor a .keras archive (it starts with {magic!r})")
            root = stack.enter_context(h5py.File(path, "r", "sec2") if source is file else h5py.File(source, "r"))
            contents = _describe(root, path, functools.cache(lambda: check_heaps(WithoutArrays(source))))
            without_arrays = WithoutArrays(source, check_places(contents.all_arrays, root))
            check_heaps(without_arrays)
            contents = _add_strings(contents, stack.enter_context(h5py.File(without_arrays, "r")))
        yield contents


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a whole model: what `keras.Model.save` stores beside the weights.

    Args:
        path: A `.keras` archive or a whole-model `.h5`.

    Returns:
        Keras's JSON, decoded: `class_name`, `config`, ...

    Raises:
        WeightError: The file is damaged, or holds weights only.
        FileNotFoundError: There is no file.
    """
    path = os.fspath(path)
    text: Any = None
    with damage_named(path):
        with open(path, "rb") as file:  # h5py has no FileNotFoundError of its own
            archived = file.read(2) == ZIP_MAGIC
        if archived:
            with zipfile.ZipFile(path) as archive:
                if CONFIG_MEMBER in archive.namelist():
                    if archive.getinfo(CONFIG_MEMBER).file_size > CONFIG_LIMIT:
                        raise WeightError(f"{path}: {CONFIG_MEMBER} is larger than {CONFIG_LIMIT:,} bytes")
                    check_ratio(archive.getinfo(CONFIG_MEMBER), path)
                    text = archive.read(CONFIG_MEMBER)
        else:
            with open(path, "rb") as file:
                check_heaps(WithoutArrays(file))
            with h5py.File(path, "r") as root:
                text = read_text(root.id, b"model_config")
        if text is None:
            raise WeightError(f"{path} holds no model configuration: build the network and use load_weights")
        config = json.loads(text)
    if not isinstance(config, dict):
        raise WeightError(f"{path}: the model configuration is {type(config).__name__}, not an object")
    return config


def _describe(root: h5py.File, path: str, check: Callable[[], None]) -> LegacyFile | TreeFile:
    """The arrays of a file; no heap of strings is used before `check` has looked at all of them."""
    group = root.get("model_weights", root)
    if _has_names(group.id, "layer_names"):
        return LegacyFile(tuple(_legacy_layers(group.id, check)))
    for layers in LAYERS:
        if layers in root.id:
            return _tree(root.id, layers, check)
    raise WeightError(f"{path} is an HDF5 file, but not one with weights of Keras: it holds {sorted(root)[:10]}")


def _add_strings(contents: LegacyFile | TreeFile, root: h5py.File) -> LegacyFile | TreeFile:
    """What a file says of itself in strings, which are in heaps."""
    if isinstance(contents, LegacyFile):
        group = root.get("model_weights", root).id
        version, backend = read_text(group, b"keras_version"), read_text(group, b"backend")
        return dataclasses.replace(contents, keras_version="1" if version is None else version, backend=backend or "")
    names = {
        path: read_text(h5o.open(root.id, place.encode()), b"name") or "" for path, place in contents.names.items()
    }
    return dataclasses.replace(contents, names=names)


def _legacy_layers(group: h5g.GroupID, check: Callable[[], None]) -> Iterator[StoredLayer]:
    names = _names(group, "layer_names", check)
    for name in [*names, "top_level_model_weights"]:
        if name == "top_level_model_weights" and name.encode() not in group:
            continue
        layer = h5o.open(group, name.encode())
        stored = _names(layer, "weight_names", check)
        if stored:
            yield StoredLayer(name, tuple(open_array(layer, array, f"{name}/{array}", check) for array in stored))


def _tree(root: h5g.GroupID, top: bytes, check: Callable[[], None]) -> TreeFile:
    """All arrays of a file of Keras 3, and for the time being the places of names where the names will be."""
    arrays: dict[tuple[tuple[str, ...], int], StoredArray] = {}
    names: dict[tuple[str, ...], str] = {}

    def visit(group: h5g.GroupID, place: str, path: tuple[str, ...]) -> None:
        if len(path) > DEEPEST:
            raise WeightError(f"Models are nested more than {DEEPEST} deep, or a group is linked into itself")
        for key in group:
            name = key.decode()
            below = (*path, name)
            child = _open_group(group, key) if key != b"seed_generator" else None
            if child is None:
                continue
            inside = set(child)
            variables = _open_group(child, b"vars") if b"vars" in inside else None
            if variables is not None:
                if h5a.exists(variables, b"name"):
                    names[below] = f"{place}/{name}/vars"
                for number in map(bytes.decode, variables):
                    label = "/".join((*below, "vars", number))
                    arrays[below, int(number)] = open_array(variables, number, label, check)
            for layers in [each for each in LAYERS if each in inside][:1]:
                inner = _open_group(child, layers)
                if inner is not None:
                    visit(inner, f"{place}/{name}/{layers.decode()}", below)

    visit(h5o.open(root, top), top.decode(), ())
    return TreeFile(arrays, names)


def _open_group(above: h5g.GroupID, name: bytes) -> h5g.GroupID | None:
    """A group below another, or None if something else has that name."""
    if above.links.get_info(name).type == h5l.TYPE_EXTERNAL:
        raise WeightError(f"{name.decode()} is stored in another file")
    found = h5o.open(above, name)
    return found if isinstance(found, h5g.GroupID) else None


def _has_names(group: h5g.GroupID, attribute: str) -> bool:
    return any(h5a.exists(group, name.encode()) for name in (attribute, f"{attribute}0"))


def _names(group: h5g.GroupID, attribute: str, check: Callable[[], None]) -> list[str]:
    """A list of names; HDF5 limits attributes to 64 KB, so Keras splits long lists into layer_names0, ..."""
    whole = read_texts(group, attribute.encode(), check)
    if whole is not None:
        return whole
    names: list[str] = []
    part = 0
    while (found := read_texts(group, f"{attribute}{part}".encode(), check)) is not None:
        names += found
        part += 1
    return names
