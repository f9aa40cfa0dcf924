"""Base class of read-only, seekable file views."""

import io
import os


class FileView(io.RawIOBase):
    """Read-only, seekable view of another file; subclasses implement `readinto`.

    Args:
        size: Size in bytes.
    """

    def __init__(self, size: int):
        self._size, self._position = size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, as in io.IOBase."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position
