"""Arrays of HDF5 files: open and check them, and read them on demand.

This uses h5py's low-level interface: for many arrays its high-level objects cost as much time as the reading.
"""

import dataclasses
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

from weight_port.errors import WeightError
from weight_port.hdf5.attributes import read_text

ALIGNMENT = 64  # bytes; XLA uses a buffer with this alignment without a copy
# Exceptions that h5py, zipfile and json raise for damaged files.
DAMAGE = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, OverflowError,
    EOFError, MemoryError, zipfile.BadZipFile, zlib.error, LZMAError, struct.error,
)  # fmt: skip # kept on few lines on purpose


@dataclass(frozen=True)
class StoredArray:
    """One array in an open file.

    Attributes:
        name: Name in the file; in the format of Keras 3 the path of the group.
        id: The open dataset.
        shape: Shape of the result: that in the file, permuted by `axes`.
        axes: Permutation of the axes after reading, or None.
        is_bfloat16: Whether it is bfloat16, which Keras stores as opaque 2-byte values with a dtype attribute.
    """

    name: str
    id: h5d.DatasetID
    shape: tuple[int, ...]
    is_bfloat16: bool = False
    axes: tuple[int, ...] | None = None

    @property
    def dtype(self) -> str:
        """Dtype in the file."""
        return "bfloat16" if self.is_bfloat16 else str(self.id.dtype)

    def read(self, integers: bool = False, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Read the array as float32 into aligned memory.

        Args:
            integers: Whether the array may hold integers, such as counters.
            out: The memory, from `aligned`; allocated by default.

        Raises:
            WeightError: The array cannot be read, or has the wrong dtype.
        """
        if self.axes is not None:
            as_stored = tuple(self.shape[self.axes.index(axis)] for axis in range(len(self.axes)))
            raw = dataclasses.replace(self, shape=as_stored, axes=None).read(integers)
            turned = aligned(self.shape) if out is None else out
            turned[...] = raw.transpose(self.axes)
            return turned
        try:
            result = aligned(self.shape) if out is None else out
            if self.is_bfloat16:
                wide = h5py.Dataset(self.id)[()].view(np.uint16).astype(np.uint32) << 16  # the upper half of float32
                result[...] = wide.view(np.float32)
                return result
            if self.id.get_type() != h5t.IEEE_F32LE:  # nearly all arrays have this type and skip the check
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
        """Whether reading takes long enough to be worth a thread."""
        return math.prod(self.shape) > 1 << 16

    def _read_from_disk(self, result: NDArray[np.float32]) -> bool:
        """Read without libhdf5, whose lock allows one thread only; False if chunked, in an archive or not native."""
        start, unread = self.id.get_offset(), result.reshape(-1).view(np.uint8)
        if start is None or self.id.get_type() != h5t.NATIVE_FLOAT or not hasattr(os, "preadv"):
            return False
        try:
            descriptor = h5i.get_file_id(self.id).get_vfd_handle()
        except RuntimeError:  # inside an archive, so there is no file descriptor
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
            raise WeightError(f"{self.name} has a non-standard number format: the file is damaged")

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


def open_array(group: h5g.GroupID, link: str, name: str, check: Callable[[], None]) -> StoredArray:
    """Open one array without reading its values.

    Args:
        group: The group that contains it.
        link: Its path below the group.
        name: Name of the array in messages.
        check: Called before a heap is used, which may hold the dtype attribute of a bfloat16 array.

    Raises:
        WeightError: The object is not an array, is empty, or is in another file.
        KeyError: There is no such object.
    """
    path = link.encode()
    if group.links.get_info(path).type == h5l.TYPE_EXTERNAL:
        raise WeightError(f"{name} is stored in another file")
    dataset = h5o.open(group, path)
    if not isinstance(dataset, h5d.DatasetID):
        raise WeightError(f"{name} is not an array but a group")
    space = dataset.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise WeightError(f"{name} is empty")
    untyped = isinstance(dataset.get_type(), h5t.TypeOpaqueID)
    is_bfloat16 = untyped and dataset.dtype == np.dtype("V2") and read_text(dataset, b"dtype", check) == "bfloat16"
    return StoredArray(name, dataset, space.get_simple_extent_dims(), is_bfloat16)


def check_places(arrays: Sequence[StoredArray], file: h5py.File) -> list[tuple[int, int]]:
    """Check that the arrays occupy disjoint, complete byte ranges (HDF5 does not checksum addresses).

    Returns:
        The (start, stop) byte ranges of contiguous arrays, in order.

    Raises:
        WeightError: The size of an array is wrong, its bytes overlap another array or an object header, or they are in
            another file.
    """
    number = h5o.get_info(file.id).fileno
    headers: list[tuple[int, int, str]] = []
    places: list[tuple[int, int, str]] = []
    for array in arrays:
        header = h5o.get_info(array.id)
        headers.append((header.addr, header.addr + 1, f"the header of {array.name}"))
        start = array.id.get_offset()
        if header.fileno != number or (start is None and _is_elsewhere(array.id)):
            raise WeightError(f"{array.name} is stored in another file")
        if start is None:  # chunked, compact (inside the object header), or never written
            continue
        size, needed = array.id.get_storage_size(), math.prod(array.shape) * array.id.dtype.itemsize
        if size != needed:
            raise WeightError(f"{array} has {size:,} bytes, but needs {needed:,}: the file is damaged")
        if size:
            places.append((start, start + size, array.name))
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(headers + places)):
        if start < end:
            raise WeightError(f"{name} and {other} overlap: the file is damaged")
    return sorted((start, end) for start, end, _ in places)


def _is_elsewhere(dataset: h5d.DatasetID) -> bool:
    properties = dataset.get_create_plist()
    return bool(properties.get_layout() == h5d.VIRTUAL or properties.get_external_count())


def aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Allocate an array with an alignment that XLA uses without a copy."""
    count = math.prod(shape) * 4
    buffer = np.empty(count + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count].view(np.float32).reshape(shape)
