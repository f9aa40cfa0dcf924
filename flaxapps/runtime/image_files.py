"""Image files decoded as they are, by Pillow, which is imported only when a function needs it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from flaxapps.runtime.files import as_path

if TYPE_CHECKING:
    from PIL import Image

ImageFile = str | bytes | os.PathLike[str] | IO[bytes]

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRAND = b"avif"
ORIENTATION = 0x0112  # the tag in EXIF
# What turns an image upright, by its orientation (EXIF 2.32, 4.6.4); the last four swap height and width.
TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
SIDEWAYS = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
LARGEST_FILE = 1 << 30  # bytes; files are read into memory as a whole
CHUNK = 1 << 20
HEADER = 64  # bytes


class ImageError(ValueError):
    """The file is not an image, or is damaged, too large or not convertible; the cause is chained."""


def decode_img(path: ImageFile, *, draft_size: tuple[int, int] | None = None, orientation: bool = False) -> Image.Image:
    """Reads an image file completely, in the mode of the file.

    Args:
        path: As for `load_img`.
        draft_size: The same.
        orientation: Whether the draft size is that of the photo turned upright; the image itself is not turned, see
            `exif_transposition`.

    Returns:
        A decoded Pillow image; HEIC photos too, with pillow-heif.

    Raises:
        ImageError, OSError, TypeError: As for `load_img`.
    """
    name = name_of(path)
    contents = _read(path)
    with named_errors(name):
        image = _open(io.BytesIO(contents), name)
        if draft_size is not None:
            transposition = exif_transposition(image) if orientation else None
            turned = transposition is not None and transposition.name in SIDEWAYS
            image.draft(None, draft_size if turned else draft_size[::-1])  # JPEG only; others ignore it
        image.load()  # Pillow decodes lazily; without this, errors in a truncated file would surface later
        return image


def check_header(path: str | os.PathLike[str]) -> None:
    """Checks that a file begins as an image that can be decoded; its pixels are not.

    Raises:
        ImageError: It does not.
        OSError: The file cannot be opened.
    """
    name = name_of(path)
    with as_path(path).open("rb") as file, named_errors(name):
        _open(file, name)


def exif_transposition(image: Image.Image) -> Image.Transpose | None:
    """Returns how to turn an image upright by its EXIF orientation, for `image.transpose`; None if it is upright.

    A camera stores the pixels as its sensor saw them, and in EXIF how it was held. Damaged EXIF counts as none.
    """
    from PIL.Image import Transpose

    try:
        orientation: int = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises anything from SyntaxError to struct.error
        return None
    name = TRANSPOSITIONS.get(orientation)
    return None if name is None else Transpose[name]


def _read(path: ImageFile) -> bytes:
    if isinstance(path, bytes) and b"\0" in path:
        raise ValueError("path as bytes should be a file name, not the contents of an image: pass io.BytesIO(contents)")
    if isinstance(path, str | bytes | os.PathLike):
        with as_path(os.fsdecode(path)).open("rb") as file:
            return _read_bounded(file, name_of(path))
    if not hasattr(path, "read"):
        raise TypeError(f"path should be a file name or a binary file object, not {type(path)}")
    if path.seekable():
        path.seek(0)
    contents = path.read()
    if not isinstance(contents, bytes):
        raise TypeError(f"path should be a file opened in binary mode; reading {name_of(path)} gave {type(contents)}")
    return contents


def _read_bounded(file: IO[bytes], name: str) -> bytes:
    """Reads a file in pieces, as `read(LARGEST_FILE)` would allocate a gigabyte for every photo."""
    pieces, size = [], 0
    while piece := file.read(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_FILE:
            raise ImageError(f"{name}: more than {LARGEST_FILE:,} bytes, too many for a photo")
    return b"".join(pieces)


def name_of(path: ImageFile) -> str:
    """Name of an image file, for messages."""
    if isinstance(path, str | bytes | os.PathLike):
        return os.fsdecode(path)
    return str(getattr(path, "name", path))


@contextlib.contextmanager
def named_errors(name: str, color_mode: str | None = None) -> Iterator[None]:
    """Raises what Pillow raises as an `ImageError` that names the file."""
    from PIL import Image

    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS.") from error
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # on damaged files Pillow raises anything from SyntaxError to struct.error
        mode = f" as {color_mode!r}" if color_mode else ""
        raise ImageError(f"{name}: cannot read the image{mode}: {error}") from error


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Opens an image, of which Pillow reads the header only."""
    from PIL import Image, UnidentifiedImageError

    start = file.read(HEADER)
    brands = start[8:] if start[4:8] == b"ftyp" else b""  # of ISO's container, as HEIC and AVIF are
    file.seek(0)
    if brands[:4] in HEIF_BRANDS and AVIF_BRAND not in brands:
        return _open_heif(file, name)
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        newer = "; AVIF needs Pillow 11.3" if AVIF_BRAND in brands else ""
        size = file.seek(0, os.SEEK_END)
        raise ImageError(f"{name}: not an image of a format that Pillow knows ({size} bytes){newer}") from error


def _open_heif(file: IO[bytes], name: str) -> Image.Image:
    """Opens a photo of an iPhone (HEIC), which Pillow cannot; the decoder turns it upright."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(f'{name}: HEIC photos need pillow-heif: pip install "flaxapps[heif]"') from error
    image: Image.Image = pillow_heif.open_heif(file).to_pillow()
    return image
