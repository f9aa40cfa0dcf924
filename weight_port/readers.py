"""Opens the kinds of files Keras writes, told apart by content, and describes what is in them.

Nothing is read here but names and shapes: arrays are read when asked for, each straight to where it stays.
Sources: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py (Keras 3.15).
"""

import io
import itertools
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from weight_port.errors import WeightError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK"
WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
CONFIG_LIMIT = 1 << 28
CHUNK = 1 << 20
HEAP_MAGIC = b"GCOL\x01"
HEAP_LIMIT = 1 << 28
DEEPEST = 32
ALIGNMENT = 64  # what XLA wants of a buffer, to use it without a copy
BOMB = 1 << 26, 200  # bytes of a member, and times its packed size: beyond both it is unpacked by nobody
# What h5py, zipfile and json raise on files that are not what they seem.
DAMAGE = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, OverflowError,
    EOFError, MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class StoredArray:
    """One array in an open file.

    Attributes:
        name: Its name in the file; for the newer format the group's path.
        dataset: The open dataset.
    """

    name: str
    dataset: h5py.Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        return tuple(self.dataset.shape)

    def read(self, integers: bool = False) -> NDArray[np.float32]:
        """Reads the array as float32 into aligned memory.

        Args:
            integers: Whether the array may hold integers, as counters do.

        Raises:
            WeightError: The bytes cannot be read, or are not numbers of the right kind.
        """
        try:
            if self.dataset.dtype == np.dtype("V2") and self.dataset.attrs.get("dtype") == "bfloat16":
                wide = self.dataset[()].view(np.uint16).astype(np.uint32) << 16  # the upper half of float32
                result = _aligned(self.shape)
                result[...] = wide.view(np.float32)
                return result
            if self.dataset.dtype.kind not in ("fiu" if integers else "f"):
                raise WeightError(f"{self.name} holds {self.dataset.dtype}, not floating-point numbers")
            if self.dataset.id.get_type() != h5py.h5t.py_create(self.dataset.dtype):
                raise WeightError(f"{self.name} holds numbers of an unknown make: the file is damaged")
            result = _aligned(self.shape)
            if result.size:
                self.dataset.read_direct(result)
        except WeightError:
            raise
        except DAMAGE as error:
            raise WeightError(f"{self.name} cannot be read: {error}") from error
        return result

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


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
    keras_version: str
    backend: str


@dataclass(frozen=True)
class TreeFile:
    """An open file of Keras 3 (`.weights.h5`, or the one inside a `.keras`).

    Attributes:
        arrays: By the path of their layer below the model and their number there: ("conv2d_1",), 0.
        names: Layer names by path, which Keras records since 3.6.
    """

    arrays: dict[tuple[tuple[str, ...], int], StoredArray]
    names: dict[tuple[str, ...], str]


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
                source: Any = _weights_in_archive(file, path)
            elif magic == HDF5_MAGIC:
                source = path
            else:
                raise WeightError(f"{path} is neither an HDF5 file nor a .keras archive (it starts with {magic!r})")
            root = _open_checked(source, stack)
            contents = _describe(root, path)
            _check_places(contents)
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
                    _check_ratio(archive.getinfo(CONFIG_MEMBER), path)
                    text = archive.read(CONFIG_MEMBER)
        else:
            with ExitStack() as stack:
                text = _open_checked(path, stack).attrs.get("model_config")
        if text is None:
            raise WeightError(f"{path} holds no model configuration: build the network and use load_weights")
        config = json.loads(text)
    if not isinstance(config, dict):
        raise WeightError(f"{path}: the model configuration is {type(config).__name__}, not an object")
    return config


def _open_checked(source: Any, stack: ExitStack) -> h5py.File:
    """Opens an HDF5 file after a look at its heaps of strings: damage to them makes libhdf5 2.0 loop for ever.

    Raises:
        WeightError: A heap is damaged.
    """
    if isinstance(source, str):
        with open(source, "rb") as file:
            _check_heaps(file)
    else:
        _check_heaps(source)
        source.seek(0)
    return stack.enter_context(h5py.File(source, "r"))


def _check_heaps(file: Any) -> None:
    tail, place = b"", 0
    while chunk := file.read(CHUNK):
        block = tail + chunk
        found = block.find(HEAP_MAGIC)
        while found >= 0:
            _check_heap(file, place + found)
            found = block.find(HEAP_MAGIC, found + 1)
        tail = block[1 - len(HEAP_MAGIC) :]
        place += len(block) - len(tail)
        file.seek(place + len(tail))


def _check_heap(file: Any, place: int) -> None:
    """Walks through a global heap (HDF5 File Format Specification, III.E)."""
    file.seek(place)
    head = file.read(16)
    size = int.from_bytes(head[8:], "little")
    if len(head) < 16 or size > HEAP_LIMIT:  # four bytes of an array, or more than libhdf5 finds in the file
        return
    content, at = file.read(size - 16) if size > 16 else b"", 0
    if len(content) < size - 16:  # cut short: libhdf5 says so
        return
    while at + 16 <= len(content):
        index, _, length = struct.unpack_from("<HH4xQ", content, at)
        step = 16 + -(-length // 8) * 8 if index else length
        if not 16 <= step <= len(content) - at:
            raise WeightError(f"The heap of strings at byte {place} is damaged")
        at += step


def _describe(root: h5py.File, path: str) -> LegacyFile | TreeFile:
    group = root.get("model_weights", root)
    if _has_attribute(group, "layer_names"):
        return _legacy(group)
    for layers in ("layers", "_layer_checkpoint_dependencies"):
        if layers in root:
            return _tree(root[layers])
    raise WeightError(f"{path} is an HDF5 file, but not one with weights of Keras: it holds {sorted(root)[:10]}")


def _check_places(contents: LegacyFile | TreeFile) -> None:
    """Sees to it that every array has bytes of its own: HDF5 has no checksum on where they are.

    Raises:
        WeightError: An array has too few bytes, or shares them with another array or with the description of one.
    """
    if isinstance(contents, TreeFile):
        arrays = list(contents.arrays.values())
    else:
        arrays = [array for layer in contents.layers for array in layer.arrays]
    places: list[tuple[int, int, str]] = []
    for array in arrays:
        header = h5py.h5o.get_info(array.dataset.id).addr
        places.append((header, header + 1, f"the description of {array.name}"))
        start, size = array.dataset.id.get_offset(), array.dataset.id.get_storage_size()
        if start is None or array.dataset.chunks is not None:  # never written, or in pieces
            continue
        if size != array.dataset.nbytes:
            raise WeightError(f"{array} has {size:,} bytes, where {array.dataset.nbytes:,} are needed")
        if size:
            places.append((start, start + size, array.name))
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(places)):
        if start < end:
            raise WeightError(f"{name} and {other} are in the same place: the file is damaged")


def _legacy(group: h5py.Group) -> LegacyFile:
    layers = []
    for name in [*_names(group, "layer_names"), "top_level_model_weights"]:
        if name == "top_level_model_weights" and name not in group:
            continue
        names = _names(group[name], "weight_names")
        arrays = tuple(StoredArray(f"{name}/{array}", _dataset(group[name], array)) for array in names)
        if arrays:
            layers.append(StoredLayer(name, arrays))
    version = _text(group.attrs.get("keras_version", "1"))
    return LegacyFile(tuple(layers), version, _text(group.attrs.get("backend", "")))


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise WeightError(f"{name} in {group.name} is a group, where an array should be")
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink) or dataset.external or dataset.is_virtual:
        raise WeightError(f"{name} in {group.name} is stored in another file")
    if dataset.shape is None:
        raise WeightError(f"{name} in {group.name} is empty")
    return dataset


def _tree(root: h5py.Group) -> TreeFile:
    arrays: dict[tuple[tuple[str, ...], int], StoredArray] = {}
    names: dict[tuple[str, ...], str] = {}

    def visit(group: h5py.Group, path: tuple[str, ...]) -> None:
        if len(path) > DEEPEST:
            raise WeightError(f"Models are nested more than {DEEPEST} deep, or a group is linked into itself")
        for key, child in group.items():
            below = (*path, key)
            if not isinstance(child, h5py.Group) or key == "seed_generator":
                continue
            variables = child.get("vars")
            if isinstance(variables, h5py.Group):
                if "name" in variables.attrs:
                    names[below] = _text(variables.attrs["name"])
                for number in variables:
                    label = "/".join((*below, "vars", number))
                    arrays[below, int(number)] = StoredArray(label, _dataset(variables, number))
            inner = child.get("layers", child.get("_layer_checkpoint_dependencies"))
            if isinstance(inner, h5py.Group):
                visit(inner, below)

    visit(root, ())
    return TreeFile(arrays, names)


def _has_attribute(group: h5py.Group, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; HDF5 limits attributes to 64 KB, so Keras splits long lists into layer_names0, ..."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names: list[str] = []
    part = 0
    while f"{attribute}{part}" in group.attrs:
        names += [_text(name) for name in group.attrs[f"{attribute}{part}"]]
        part += 1
    return names


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    count = int(np.prod(shape, dtype=np.int64)) * 4
    buffer = np.empty(count + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count].view(np.float32).reshape(shape)


def _weights_in_archive(file: io.BufferedReader, path: str) -> io.RawIOBase | io.BytesIO:
    """The weights inside a `.keras` archive, checked against the archive's CRC.

    Keras stores them uncompressed: then they are read in place, and only then are they not held in memory twice.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if WEIGHTS_MEMBER not in archive.namelist():
                raise WeightError(f"{path} is an archive without {WEIGHTS_MEMBER}: it holds {archive.namelist()[:10]}")
            member = archive.getinfo(WEIGHTS_MEMBER)
            if member.compress_type != zipfile.ZIP_STORED:
                _check_ratio(member, path)
                return io.BytesIO(archive.read(member))
            with archive.open(member) as stream:  # reading to the end checks the CRC
                while stream.read(CHUNK):
                    pass
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightError(f"{path} is a damaged archive: {error}") from error
    file.seek(member.header_offset + 26)  # the lengths of name and extra field, which the data follow
    start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return _Window(file, start, member.file_size)


def _check_ratio(member: zipfile.ZipInfo, path: str) -> None:
    if member.file_size > max(BOMB[0], BOMB[1] * member.compress_size):
        raise WeightError(
            f"{path}: {member.filename} would be {member.file_size:,} bytes from {member.compress_size:,}, too many"
        )


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: io.BufferedReader, start: int, size: int):
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view[: max(0, self._size - self._position)])
        self._position += count
        return count
