"""What views of files have in common: a position that can be moved."""

import io
import os


class FileView(io.RawIOBase):
    """A file to read that is made of another; the kinds of it say how, in `readinto`.

    Args:
        size: How many bytes there are.
    """

    def __init__(self, size: int):
        self._size, self._position = size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position
