"""Validate the global heaps of an HDF5 file before libhdf5 reads them: libhdf5 2.0 loops forever on damaged ones.

Arrays are most of a file. They are located first, which needs no heap. Then only the rest is searched, and strings are
read from a view of the file in which the arrays are zeros.
"""

import bisect
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from weight_port.errors import WeightError
from weight_port.hdf5.views import FileView

MAGIC = b"GCOL\x01"
LARGEST = 1 << 28
BLOCK = 1 << 18


class WithoutArrays(FileView):
    """A view of a file in which some ranges read as zeros.

    Args:
        file: A binary file.
        ranges: (start, stop) of each range, sorted and disjoint.
    """

    def __init__(self, file: Any, ranges: Sequence[tuple[int, int]] = ()):
        super().__init__(file.seek(0, os.SEEK_END))
        self._file, self._ranges = file, ranges
        self._stops = [stop for _, stop in ranges]

    def gaps(self) -> Iterator[tuple[int, int]]:
        """The ranges that do not read as zeros."""
        edges = [0, *itertools.chain.from_iterable(self._ranges), self._size]
        return ((start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop)

    def readinto(self, buffer: Any) -> int:
        """Read bytes into `buffer`, as in io.RawIOBase."""
        view, start = memoryview(buffer).cast("B"), self._position
        self._file.seek(start)
        count: int = self._file.readinto(view)
        for first, stop in self._ranges[bisect.bisect_right(self._stops, start) :]:
            if first >= start + count:
                break
            blank = slice(max(first - start, 0), min(stop - start, count))
            view[blank] = bytes(blank.stop - blank.start)
        self._position += count
        return count


def check_heaps(file: WithoutArrays) -> None:
    """Find every global heap (HDF5 File Format Specification, III.E) outside the arrays and walk through it.

    Args:
        file: The file. Its position changes.

    Raises:
        WeightError: A heap is damaged.
    """
    overlap = len(MAGIC) - 1  # blocks overlap, because the magic number may cross a boundary
    for start, stop in file.gaps():
        for place in range(start, stop, BLOCK):
            file.seek(place)
            block = file.read(min(BLOCK + overlap, stop - place))
            found = block.find(MAGIC)
            while found >= 0:
                _check_heap(file, place + found)
                found = block.find(MAGIC, found + 1)


def _check_heap(file: WithoutArrays, place: int) -> None:
    file.seek(place)
    head = file.read(16)
    size = int.from_bytes(head[8:], "little")
    if len(head) < 16 or size > LARGEST:  # not a heap (the bytes occur by chance), or too large for libhdf5 to read
        return
    content, at = file.read(size - 16) if size > 16 else b"", 0
    if len(content) < size - 16:  # truncated: libhdf5 raises an error
        return
    while at + 16 <= len(content):
        index, _, length = struct.unpack_from("<HH4xQ", content, at)
        step = 16 + -(-length // 8) * 8 if index else length
        if not 16 <= step <= len(content) - at:
            raise WeightError(f"The string heap at byte {place} is damaged")
        at += step
