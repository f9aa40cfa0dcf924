"""Looks at the heaps of strings in an HDF5 file before libhdf5 does, which a damaged one makes loop for ever (2.0)."""

import struct
from typing import Any

from weight_port.errors import WeightError

MAGIC = b"GCOL\x01"
LARGEST = 1 << 28
BLOCK = 1 << 18


def check_heaps(file: Any) -> None:
    """Finds every global heap (HDF5 File Format Specification, III.E) and walks through it.

    Args:
        file: A binary file at its beginning; it is left anywhere.

    Raises:
        WeightError: A heap is damaged.
    """
    block = bytearray(BLOCK)
    kept = len(MAGIC) - 1  # bytes of one block that stay before the next: a heap may begin in both
    place = -kept
    while count := file.readinto(memoryview(block)[kept:]):
        found = block.find(MAGIC, 0, kept + count)
        while found >= 0:
            _check_heap(file, place + found)
            file.seek(place + kept + count)
            found = block.find(MAGIC, found + 1, kept + count)
        block[:kept] = block[count : count + kept]
        place += count


def _check_heap(file: Any, place: int) -> None:
    file.seek(place)
    head = file.read(16)
    size = int.from_bytes(head[8:], "little")
    if len(head) < 16 or size > LARGEST:  # four bytes of an array, or more than libhdf5 finds in the file
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
