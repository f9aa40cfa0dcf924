"""The arrays of an HDF5 file: found and checked one by one and together, and read when asked for.

This goes by h5py's low-level interface: its objects cost as much as the reading itself where arrays are many.
"""

import itertools
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from lzma import LZMAError

import h5py
import numpy as np
from h5py import h5d, h5g, h5i, h5l, h5o, h5s, h5t
from numpy.typing import NDArray

from weight_port.attributes import read_text
from weight_port.errors import WeightError

ALIGNMENT = 64  # what XLA wants of a buffer, to use it without a copy
# What h5py, zipfile and json raise on files that are not what they seem.
DAMAGE = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, OverflowError,
    EOFError, MemoryError, zipfile.BadZipFile, zlib.error, LZMAError, struct.error,
)  # fmt: skip # a list to read along, not down


@dataclass(frozen=True)
class StoredArray:
    """One array in an open file.

    Attributes:
        name: Its name in the file; for the newer format the group's path.
        id: The open dataset.
        shape: Shape in the file.
        is_bfloat16: Whether it holds two bytes of no type, with a note, which is how Keras stores bfloat16.
    """

    name: str
    id: h5d.DatasetID
    shape: tuple[int, ...]
    is_bfloat16: bool = False

    @property
    def dtype(self) -> str:
        """Type of its numbers in the file."""
        return "bfloat16" if self.is_bfloat16 else str(self.id.dtype)

    def read(self, integers: bool = False, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Reads the array as float32 into aligned memory.

        Args:
            integers: Whether the array may hold integers, as counters do.
            out: The memory, from `aligned`; by default it is looked for here.

        Raises:
            WeightError: The bytes cannot be read, or are not numbers of the right kind.
        """
        try:
            result = aligned(self.shape) if out is None else out
            if self.is_bfloat16:
                wide = h5py.Dataset(self.id)[()].view(np.uint16).astype(np.uint32) << 16  # the upper half of float32
                result[...] = wide.view(np.float32)
                return result
            if self.id.get_type() != h5t.IEEE_F32LE:  # which is nearly every array
                self._check_numbers(integers)
            if result.size and not (self.is_large and self._read_from_disk(result)):
                self.id.read(h5s.ALL, h5s.ALL, result, h5t.NATIVE_FLOAT)
        except WeightError:
            raise
        except DAMAGE as error:
            raise WeightError(f"{self.name} cannot be read: {error}") from error
        return result

    @property
    def is_large(self) -> bool:
        """Whether it takes some time to read, so that two threads read two of them sooner."""
        return math.prod(self.shape) > 1 << 16

    def _read_from_disk(self, result: NDArray[np.float32]) -> bool:
        """Past libhdf5, which serves one thread at a time; not what is in pieces, in an archive or of other bytes."""
        start, unread = self.id.get_offset(), result.reshape(-1).view(np.uint8)
        if start is None or self.id.get_type() != h5t.NATIVE_FLOAT or not hasattr(os, "preadv"):
            return False
        try:
            descriptor = h5i.get_file_id(self.id).get_vfd_handle()
        except RuntimeError:  # a part of an archive
            return False
        while unread.size:
            count = os.preadv(descriptor, [unread.data], start)
            if not count:
                raise OSError("the file ends before the array does")
            start, unread = start + count, unread[count:]
        return True

    def _check_numbers(self, integers: bool) -> None:
        if self.id.dtype.kind not in ("fiu" if integers else "f"):
            raise WeightError(f"{self.name} holds {self.id.dtype}, not floating-point numbers")
        if self.id.get_type() != h5t.py_create(self.id.dtype):
            raise WeightError(f"{self.name} holds numbers of an unknown make: the file is damaged")

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


def open_array(group: h5g.GroupID, link: str, name: str, check: Callable[[], None]) -> StoredArray:
    """Opens one array, without a look at its numbers.

    Args:
        group: Where it is.
        link: Its place below the group.
        name: What the array is called from here on.
        check: Called before a heap is used, where the note of a bfloat16 array may be.

    Raises:
        WeightError: It is no array, or in another file.
        KeyError: There is nothing.
    """
    path = link.encode()
    if group.links.get_info(path).type == h5l.TYPE_EXTERNAL:
        raise WeightError(f"{name} is stored in another file")
    dataset = h5o.open(group, path)
    if not isinstance(dataset, h5d.DatasetID):
        raise WeightError(f"{name} is a group, where an array should be")
    space = dataset.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise WeightError(f"{name} is empty")
    untyped = isinstance(dataset.get_type(), h5t.TypeOpaqueID)
    is_bfloat16 = untyped and dataset.dtype == np.dtype("V2") and read_text(dataset, b"dtype", check) == "bfloat16"
    return StoredArray(name, dataset, space.get_simple_extent_dims(), is_bfloat16)


def check_places(arrays: Sequence[StoredArray], file: h5py.File) -> list[tuple[int, int]]:
    """Sees to it that every array has bytes of its own in the file: HDF5 has no checksum on where they are.

    Returns:
        The first byte and the byte after the last of those in one piece, in order.

    Raises:
        WeightError: An array has too few bytes, or shares them with another array or with the description of one, or
            they are in another file.
    """
    number = h5o.get_info(file.id).fileno
    headers: list[tuple[int, int, str]] = []
    places: list[tuple[int, int, str]] = []
    for array in arrays:
        header = h5o.get_info(array.id)
        headers.append((header.addr, header.addr + 1, f"the description of {array.name}"))
        start = array.id.get_offset()
        if header.fileno != number or (start is None and _is_elsewhere(array.id)):
            raise WeightError(f"{array.name} is stored in another file")
        if start is None:  # in pieces, in its own description, or never written
            continue
        size, needed = array.id.get_storage_size(), math.prod(array.shape) * array.id.dtype.itemsize
        if size != needed:
            raise WeightError(f"{array} has {size:,} bytes, where {needed:,} are needed")
        if size:
            places.append((start, start + size, array.name))
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(headers + places)):
        if start < end:
            raise WeightError(f"{name} and {other} are in the same place: the file is damaged")
    return sorted((start, end) for start, end, _ in places)


def _is_elsewhere(dataset: h5d.DatasetID) -> bool:
    properties = dataset.get_create_plist()
    return bool(properties.get_layout() == h5d.VIRTUAL or properties.get_external_count())


def aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Memory for an array, which XLA uses without a copy."""
    count = math.prod(shape) * 4
    buffer = np.empty(count + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count].view(np.float32).reshape(shape)
