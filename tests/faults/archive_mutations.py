"""Ways to damage a `.keras` archive: its directory, its members' headers, and what lies beside the members."""

import io
import random
import re
import zipfile
from collections.abc import Callable

from tests.faults import hdf5_mutations
from tests.faults.hdf5_mutations import put, some_bytes

SIGNATURES = re.compile(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07|\x07\x08)")
WEIGHTS, CONFIG = "model.weights.h5", "config.json"
Mutation = Callable[[bytes, random.Random], tuple[object, bytes]]


def in_directory(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """A number within a header of a member, the directory or the end of the archive."""
    starts = [match.start() for match in SIGNATURES.finditer(content)]
    edge = 1 << source.choice((7, 8, 15, 16, 31, 32, 63))
    value = source.choice((0, 1, 8, 12, 14, edge - 1, edge, len(content), *starts))
    return put(content, source.choice(starts) + source.randrange(46), source.choice((1, 2, 4, 8)), value)


def members(content: bytes) -> dict[str, bytes]:
    """Everything in the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, with right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, member in entries:
            archive.writestr(zipfile.ZipInfo(name), member, compression)
    return stream.getvalue()


def damaged_weights(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """The HDF5 file inside damaged, and the checksums right again."""
    inside = members(content)
    kind = source.choice(list(hdf5_mutations.MUTATIONS))
    label, inside[WEIGHTS] = hdf5_mutations.MUTATIONS[kind](inside[WEIGHTS], source)
    compression = source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return (kind, label, compression), packed(list(inside.items()), compression)


def damaged_packed(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """A few bytes of an archive whose members are compressed."""
    compression = source.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    label, changed = some_bytes(packed(list(members(content).items()), compression), source)
    return (compression, label), changed


def odd_members(content: bytes, source: random.Random) -> tuple[object, bytes]:
    """Members left out, swapped, renamed to lead elsewhere, empty, or archives themselves."""
    inside = list(members(content).items())
    place = source.randrange(len(inside))
    name, member = inside[place]
    elsewhere = source.choice(("../" + name, "/" + name, "..\\" + name, "a/../" + name, name.upper(), name + "/", ""))
    other = inside[source.randrange(len(inside))][1]
    change = source.choice(("gone", "renamed", "swapped", "empty", "archive", "text"))
    replaced = {
        "gone": [],
        "renamed": [(elsewhere, member)],
        "swapped": [(name, other)],
        "empty": [(name, b"")],
        "archive": [(name, content)],
        "text": [(name, source.choice((b"null", b"[]", b"{}", b"\xff\xfe{}", b'{"config": {}}', b"nan", b"\x89HDF")))],
    }
    return (change, name, elsewhere), packed(inside[:place] + replaced[change] + inside[place + 1 :])


MUTATIONS: dict[str, Mutation] = {
    "a few bytes of the archive": some_bytes,
    "archive cut short": hdf5_mutations.cut,
    "bytes of the archive left out or doubled": hdf5_mutations.lengths,
    "numbers in the directory": in_directory,
    "bytes of compressed members": damaged_packed,
    "members gone, renamed, swapped": odd_members,
    "damaged weights, right checksums": damaged_weights,
}
