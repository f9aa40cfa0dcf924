"""What the weight files of Keras hold: layers and arrays by name, read from the groups of an open HDF5 file.

Sources: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py (Keras 3.15).
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5a, h5g, h5l, h5o

from weight_port.errors import WeightError
from weight_port.hdf5.arrays import StoredArray, open_array
from weight_port.hdf5.attributes import read_text, read_texts

DEEPEST = 32
LAYERS = b"layers", b"_layer_checkpoint_dependencies"  # the group of a model's layers, in Keras 3 and in 2.12 and 2.13


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a legacy file: its name and arrays in order. A nested model is one layer."""

    name: str
    arrays: tuple[StoredArray, ...]


@dataclass(frozen=True)
class LegacyFile:
    """An open legacy file (`save_weights("x.h5")`, or the `model_weights` of a whole model).

    Attributes:
        layers: Layers that have arrays, in the order of `model.layers` when saved.
        keras_version: Version of Keras; "1" if the file has none.
        backend: Such as "tensorflow" or "theano"; "" if the file has none.
        config: The configuration of a whole model, else None.
    """

    layers: tuple[StoredLayer, ...]
    keras_version: str = "1"
    backend: str = ""
    config: dict[str, Any] | None = None

    @property
    def all_arrays(self) -> list[StoredArray]:
        """The arrays of all layers, in order."""
        return [array for layer in self.layers for array in layer.arrays]


@dataclass(frozen=True)
class TreeFile:
    """An open file of Keras 3 (`.weights.h5`, or the one inside a `.keras`).

    Attributes:
        arrays: Arrays by the path of their layer and their index there: ("conv2d_1",), 0.
        names: Layer names by path, which Keras stores since 3.6.
        doubled: Whether layers with weights count twice in group numbers, as in Keras 2.12 and 2.13.
    """

    arrays: dict[tuple[tuple[str, ...], int], StoredArray]
    names: dict[tuple[str, ...], str] = dataclasses.field(default_factory=dict)
    doubled: bool = False

    @property
    def all_arrays(self) -> list[StoredArray]:
        """The arrays of all layers, in the order of the file."""
        return list(self.arrays.values())


def describe(root: h5py.File, path: str, check: Callable[[], None]) -> LegacyFile | TreeFile:
    """List the arrays of a file; `check` validates all string heaps before one is used."""
    group = root.get("model_weights", root)
    if _has_names(group.id, "layer_names"):
        return LegacyFile(tuple(_legacy_layers(group.id, check)))
    for layers in LAYERS:
        if layers in root.id:
            return _tree(root.id, layers, check)
    if any(b"\\" in key for key in root.id):
        return _tree_of_windows(root.id, check)
    raise WeightError(f"{path} is an HDF5 file, but not one with weights of Keras: it holds {sorted(root)[:10]}")


def add_strings(contents: LegacyFile | TreeFile, root: h5py.File) -> LegacyFile | TreeFile:
    """Add the strings of a file, which are stored in heaps: version, backend, configuration, names."""
    if isinstance(contents, LegacyFile):
        group = root.get("model_weights", root).id
        version, backend = read_text(group, b"keras_version"), read_text(group, b"backend")
        text = read_text(root.id, b"model_config")
        config = None if text is None else json.loads(text)
        return dataclasses.replace(
            contents,
            keras_version="1" if version is None else version,
            backend=backend or "",
            config=config if isinstance(config, dict) else None,
        )
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
        repeated = sorted(each for each, times in Counter(stored).items() if times > 1)
        if repeated:
            raise WeightError(
                f"Layer {name!r} has several arrays of one name, but such a file can hold only one: "
                f"{', '.join(repeated)}. Save it in the newer format, or give the layers inside it different names."
            )
        if stored:
            yield StoredLayer(name, tuple(open_array(layer, array, f"{name}/{array}", check) for array in stored))


def _tree(root: h5g.GroupID, top: bytes, check: Callable[[], None]) -> TreeFile:
    """List all arrays of a Keras 3 file. `names` holds the paths of the name attributes until they are read."""
    arrays: dict[tuple[tuple[str, ...], int], StoredArray] = {}
    names: dict[tuple[str, ...], str] = {}

    def visit(group: h5g.GroupID, place: str, path: tuple[str, ...]) -> None:
        if len(path) > DEEPEST:
            raise WeightError(f"Models are nested more than {DEEPEST} deep, or a group is linked into itself")
        for key in group:
            name = key.decode()
            below = (*path, name)
            child = _open_group(group, key) if key not in (b"seed_generator", b"vars") else None
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
            containers = [each for each in LAYERS if each in inside]
            for layers in containers[:1]:
                inner = _open_group(child, layers)
                if inner is not None:
                    visit(inner, f"{place}/{name}/{layers.decode()}", below)
            if not containers and inside - {b"vars", b"seed_generator"}:  # layers inside a layer
                visit(child, f"{place}/{name}", below)

    visit(h5o.open(root, top), top.decode(), ())
    return TreeFile(arrays, names, doubled=top == LAYERS[1])


def _tree_of_windows(root: h5g.GroupID, check: Callable[[], None]) -> TreeFile:
    r"""List all arrays of a file written on Windows, where a layer is one group, such as `layers\conv2d_1`."""
    arrays: dict[tuple[tuple[str, ...], int], StoredArray] = {}
    names: dict[tuple[str, ...], str] = {}
    doubled = False
    for key in root:
        containers, layers = key.split(b"\\")[::2], key.split(b"\\")[1::2]
        if not layers or len(layers) != len(containers) or not set(containers) <= set(LAYERS):
            continue
        doubled |= LAYERS[1] in containers
        group = _open_group(root, key)
        variables = _open_group(group, b"vars") if group is not None and b"vars" in set(group) else None
        if variables is None:
            continue
        path = tuple(layer.decode() for layer in layers)
        if h5a.exists(variables, b"name"):
            names[path] = f"{key.decode()}/vars"
        for number in map(bytes.decode, variables):
            arrays[path, int(number)] = open_array(variables, number, "/".join((*path, "vars", number)), check)
    return TreeFile(arrays, names, doubled)


def _open_group(above: h5g.GroupID, name: bytes) -> h5g.GroupID | None:
    """Open a group below another; None if the name is not that of a group."""
    if above.links.get_info(name).type == h5l.TYPE_EXTERNAL:
        raise WeightError(f"{name.decode()} is stored in another file")
    found = h5o.open(above, name)
    return found if isinstance(found, h5g.GroupID) else None


def _has_names(group: h5g.GroupID, attribute: str) -> bool:
    return any(h5a.exists(group, name.encode()) for name in (attribute, f"{attribute}0"))


def _names(group: h5g.GroupID, attribute: str, check: Callable[[], None]) -> list[str]:
    """Read a list of names. HDF5 limits attributes to 64 KB, so Keras splits long lists into layer_names0, ..."""
    whole = read_texts(group, attribute.encode(), check)
    if whole is not None:
        return whole
    names: list[str] = []
    part = 0
    while (found := read_texts(group, f"{attribute}{part}".encode(), check)) is not None:
        names += found
        part += 1
    return names
