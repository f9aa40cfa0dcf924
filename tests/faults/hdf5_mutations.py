"""Ways to damage an HDF5 file where libhdf5 looks: headers, trees, heaps, addresses; each gives a label and bytes."""

import io
import random
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache

import h5py
from h5py import h5o

# What the structures of HDF5 begin with: trees, tables of names, heaps, headers of the newer kind.
SIGNATURES = re.compile(rb"\x89HDF|TREE|SNOD|HEAP|GCOL|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FSHD|FSSE")
NEAR = 96  # bytes of a structure in which its counts and addresses are
Mutation = Callable[[bytes, random.Random], tuple[object, bytes]]


@cache
def objects(content: bytes) -> list[int]:
    """The addresses of the headers of all groups and arrays."""
    found = []

    def add(_: str, item: h5py.Group | h5py.Dataset) -> None:
        found.append(h5o.get_info(item.id).addr)

    with h5py.File(io.BytesIO(content), "r") as file:
        found.append(h5o.get_info(file.id).addr)
        file.visititems(add)
    return found


@cache
def structures(content: bytes) -> list[int]:
    """Where trees, heaps and the like begin."""
    return [match.start() for match in SIGNATURES.finditer(content)]


def numbers(content: bytes, source: random.Random) -> int:
    """A number that parsers are likely to be wrong about: edges of types, the file's end, another structure."""
    edge = 1 << source.choice((7, 8, 15, 16, 31, 32, 40, 62, 63, 64))
    places = (len(content), len(content) - 8, *structures(content))
    return source.choice((0, 1, 2, edge - 1, edge, edge - 8, *places)) & ((1 << 64) - 1)


def put(content: bytes, place: int, width: int, value: int) -> tuple[object, bytes]:
    """The bytes with one number of `width` bytes overwritten."""
    value &= (1 << 8 * width) - 1
    changed = content[:place] + value.to_bytes(width, "little") + content[place + width :]
    return (place, width, value), changed[: len(content)]


def in_structures(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """A number within a tree, a heap or the superblock."""
    place = source.choice(structures(content)) + source.randrange(NEAR)
    return put(content, place, source.choice((1, 2, 4, 8)), numbers(content, source))


def in_headers(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """A number within the description of a group or an array: its shape, its type, its place, its attributes."""
    place = source.choice(objects(content)) + source.randrange(272)
    return put(content, place, source.choice((1, 2, 4, 8)), numbers(content, source))


@cache
def links(content: bytes) -> list[int]:
    """Where addresses of objects and structures stand."""
    known = {*objects(content), *structures(content)} - {0}
    return [place for place in range(len(content) - 8) if struct.unpack_from("<Q", content, place)[0] in known]


def addresses(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """An address replaced by that of something else: circles, and structures taken for others."""
    targets = [*objects(content), *structures(content)]
    return put(content, source.choice(links(content)), 8, source.choice(targets))


def lengths(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """Some bytes left out, or put in twice: everything behind has moved."""
    start, size = source.randrange(len(content)), source.choice((1, 2, 4, 8, 16, 64, 512))
    repeated = content[start : start + size] if source.random() < 0.5 else b""
    return (start, size, bool(repeated)), content[:start] + 2 * repeated + content[start + size :]


def blocks(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """A block of zeros, of ones, or of what is elsewhere in the file, as after a disk's failure."""
    size = source.choice((8, 64, 512, 4096))
    start, origin = source.randrange(len(content)), source.randrange(max(1, len(content) - size))
    block = source.choice((bytes(size), b"\xff" * size, content[origin : origin + size]))
    return (start, size, block[:4]), (content[:start] + block + content[start + size :])[: len(content)]


def some_bytes(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """One to eight bytes anywhere."""
    changed = bytearray(content)
    places = [source.randrange(len(content)) for _ in range(source.choice((1, 1, 2, 3, 8)))]
    for place in places:
        changed[place] = source.choice((0, 255, changed[place] ^ 1 << source.randrange(8), source.randrange(256)))
    return [(place, changed[place]) for place in places], bytes(changed)


def cut(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """The first part only."""
    size = source.randrange(len(content))
    return size, content[:size]


MUTATIONS: dict[str, Mutation] = {
    "a few bytes": some_bytes,
    "cut short": cut,
    "bytes left out or doubled": lengths,
    "blocks overwritten": blocks,
    "numbers in trees and heaps": in_structures,
    "numbers in headers": in_headers,
    "addresses of other structures": addresses,
}


def several(content: bytes, mutation: Mutation, source: random.Random) -> Iterator[tuple[object, bytes]]:
    """Without end: the content damaged once each, or twice in a fifth of the cases."""
    while True:
        label, changed = mutation(content, source)
        if source.random() < 0.2 and changed and mutation in (some_bytes, blocks):
            more, changed = mutation(changed, source)
            label = (label, more)
        yield label, changed
