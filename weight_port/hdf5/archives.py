"""Locate the weights in a `.keras` archive, which is a zip file."""

import io
import struct
import zipfile
import zlib
from typing import Any

from weight_port.errors import WeightError
from weight_port.hdf5.views import FileView

ZIP_MAGIC = b"PK"
WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
CHUNK = 1 << 20
BOMB = 1 << 26, 200  # zip-bomb limits: unpacked size in bytes and compression ratio; a bomb exceeds both


def weights_in_archive(file: io.BufferedReader, path: str) -> io.RawIOBase | io.BytesIO:
    """The weights inside a `.keras` archive, checked against the archive's CRC.

    Keras stores them uncompressed, so they are read in place. Compressed weights are first unpacked into host memory.

    Raises:
        WeightError: The archive is damaged, has no weights, or is a zip bomb.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if WEIGHTS_MEMBER not in archive.namelist():
                raise WeightError(f"{path} is an archive without {WEIGHTS_MEMBER}: it holds {archive.namelist()[:10]}")
            member = archive.getinfo(WEIGHTS_MEMBER)
            if member.compress_type != zipfile.ZIP_STORED:
                check_ratio(member, path)
                return io.BytesIO(archive.read(member))
            with archive.open(member) as stream:  # reading to the end checks the CRC
                while stream.read(CHUNK):
                    pass
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightError(f"{path} is a damaged archive: {error}") from error
    file.seek(member.header_offset + 26)  # lengths of the name and the extra field; the data follow these
    start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return _Window(file, start, member.file_size)


def check_ratio(member: zipfile.ZipInfo, path: str) -> None:
    """Refuse zip bombs.

    Raises:
        WeightError: The unpacked size exceeds the limits of `BOMB`.
    """
    if member.file_size > max(BOMB[0], BOMB[1] * member.compress_size):
        raise WeightError(
            f"{path}: {member.filename} would unpack from {member.compress_size:,} to {member.file_size:,} bytes, too "
            "many"
        )


class _Window(FileView):
    """View of a byte range of a file."""

    def __init__(self, file: io.BufferedReader, start: int, size: int):
        super().__init__(size)
        self._file, self._start = file, start

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view[: max(0, self._size - self._position)])
        self._position += count
        return count
