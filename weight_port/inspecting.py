"""Describe the contents of a weight file without reading its arrays."""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import h5py

from weight_port.formats import Form, form_of, is_whole_model, read_variables
from weight_port.hdf5.arrays import StoredArray
from weight_port.hdf5.attributes import read_text
from weight_port.published import PUBLISHED_FILES
from weight_port.readers import CONFIG_LIMIT, METADATA_MEMBER, damage_named, open_weights
from weight_port.stored import LegacyFile
from weight_port.trees import SEPARATOR, load_npz
from weight_port.writers import leaves

CHUNK = 1 << 20


class ArrayFacts(NamedTuple):
    """One array in a file.

    Attributes:
        layer: Name of its layer if the file stores it, else the group's path.
        name: Name in the file.
        shape: Shape in the file.
        dtype: Dtype in the file.
    """

    layer: str
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Contents(NamedTuple):
    """Contents of a file.

    Attributes:
        facts: Properties of the whole file, by heading.
        arrays: The arrays in file order.
    """

    facts: dict[str, str]
    arrays: list[ArrayFacts]


def inspect_file(path: str) -> Contents:
    """Describe a weight file of any format.

    Raises:
        WeightError: `path` has no known format, or is damaged.
        FileNotFoundError: `path` does not exist.
    """
    form = form_of(path)
    with damage_named(path):
        arrays = list(_arrays(path, form))
        whole = is_whole_model(path)
        kind = "whole model, legacy HDF5 (.h5)" if whole and form is Form.LEGACY else form.value
        facts = {"kind": kind, "Keras version": _keras_version(path, form)}
        if form is Form.LEGACY:
            with open_weights(path) as file:
                facts["backend"] = (isinstance(file, LegacyFile) and file.backend) or "not recorded"
        facts["layers"] = f"{len({array.layer for array in arrays}):,} with arrays"
        facts["arrays"] = f"{len(arrays):,}"
        facts["parameters"] = f"{sum(array.size for array in arrays):,}"
        if form is not Form.ORBAX:  # a folder has no hash: names and order of its files are up to Orbax
            facts |= _hashes(path)
    return Contents(facts, arrays)


def _arrays(path: str, form: Form) -> Iterator[ArrayFacts]:
    if form.names_itself:
        tree = load_npz(path, as_stored=True) if form is Form.NPZ else read_variables(path)
        for keys, leaf in leaves(tree):
            yield ArrayFacts(SEPARATOR.join(keys[1:-1]), SEPARATOR.join(keys), leaf.shape, str(leaf.dtype))
        return
    with open_weights(path) as file:
        if isinstance(file, LegacyFile):
            for layer in file.layers:
                yield from (_facts(layer.name, array) for array in layer.arrays)
        else:
            for (place, _), array in file.arrays.items():
                names = [file.names.get(place[: depth + 1], part) for depth, part in enumerate(place)]
                yield _facts(SEPARATOR.join(names), array)


def _facts(layer: str, array: StoredArray) -> ArrayFacts:
    return ArrayFacts(layer, array.name, array.shape, array.dtype)


def _keras_version(path: str, form: Form) -> str:
    version: object = None
    if form is Form.ARCHIVE:
        with zipfile.ZipFile(path) as archive:
            if METADATA_MEMBER in archive.namelist() and archive.getinfo(METADATA_MEMBER).file_size <= CONFIG_LIMIT:
                metadata = json.loads(archive.read(METADATA_MEMBER))
                version = metadata.get("keras_version")
    elif form in (Form.LEGACY, Form.TREE):
        with h5py.File(path, "r") as root:
            groups = [root.get("model_weights"), root]
            found = [read_text(group.id, b"keras_version") for group in groups if group is not None]
            version = next((each for each in found if each is not None), None)
    return "not recorded" if version is None else str(version)


def _hashes(path: str) -> dict[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    facts = {
        "size": f"{os.path.getsize(path):,} bytes",
        "SHA-256": sha256.hexdigest(),
        "MD5": md5.hexdigest(),
    }
    found = {facts["MD5"], facts["SHA-256"]}
    published = [file.filename for file in PUBLISHED_FILES if found.intersection(file.hashes.values())]
    return facts | ({"published as": ", ".join(published)} if published else {})
