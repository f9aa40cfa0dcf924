"""Images between files, Pillow and NumPy.

Source: keras/src/utils/image_utils.py (Keras 3.15.1), bit for bit. Pillow is imported only when a function needs it.
"""

from __future__ import annotations

import io
import os
import warnings
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from flaxapps.config import floatx, standardize_data_format
from flaxapps.paths import as_path

if TYPE_CHECKING:
    from PIL import Image

ImageFile = str | bytes | os.PathLike[str] | IO[bytes]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")

# The first Pillow mode is the one images are converted to; images in the others are left as they are.
COLOR_MODES = {"grayscale": ("L", "I;16", "I"), "rgb": ("RGB",), "rgba": ("RGBA",)}
LARGEST_FILE = 1 << 30  # bytes: what is longer is no photo, and would be held in memory whole
CHUNK = 1 << 20


class ImageError(ValueError):
    """A file that holds no image, or a damaged, oversized or inconvertible one; its cause is chained."""


def load_img(
    path: ImageFile,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
    *,
    draft_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Reads an image file completely, converts it, then resizes it.

    As in Keras, EXIF orientation is ignored, transparency is dropped rather than blended, and a 16-bit greyscale
    image read as "rgb" is clipped, not scaled (all above 255 becomes white): read those as "grayscale".

    Args:
        path: File name (bytes are a name too, not contents) or binary file object, which is read from its start.
        color_mode: "grayscale" (8-bit, or 16 and 32-bit where the file has it), "rgb" or "rgba".
        target_size: (height, width) in pixels; None keeps the size.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Cut out the largest centred box of the target's proportions first, instead of distorting.
        draft_size: Decode a JPEG file at 1/2, 1/4 or 1/8 of its size where that is not below this (height, width):
            faster, and a few levels off after resizing. None, as in Keras, decodes all of it.

    Returns:
        A Pillow image of mode L, I;16, I ("grayscale"), RGB or RGBA.

    Raises:
        ImageError: The file is not an image Pillow can read, is truncated, cannot be converted, or has so many pixels
            that Pillow takes it for a decompression bomb.
        OSError: The file cannot be opened; FileNotFoundError where there is none.
        ValueError: Bad `color_mode`, `target_size` or `interpolation`.
        TypeError: `path` is neither a name nor a binary file.
    """
    if color_mode not in COLOR_MODES:
        raise ValueError(f'color_mode must be "grayscale", "rgb", or "rgba". Received: color_mode={color_mode!r}')
    if target_size is not None:
        _check_resizing(target_size, interpolation)
    image = _decode(_read(path), color_mode, draft_size, name=_name_of(path))
    if target_size is None or image.size == (target_size[1], target_size[0]):
        return image
    return _resize(image, target_size, interpolation, keep_aspect_ratio)


def img_to_array(img: Image.Image, data_format: str | None = None, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Turns a Pillow image into an array, values unchanged (0 to 255 for 8-bit images).

    Args:
        img: Image of any mode with one or more channels.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        dtype: Element type; None for `floatx` of `keras.json`, float32 unless it says otherwise.

    Returns:
        Array of shape (H, W, C), or (C, H, W) with "channels_first"; C is 1 for greyscale. May be read-only where
        `dtype` is the image's own type.

    Raises:
        ValueError: Unknown data format, or `img` is no image.
    """
    channels_first = standardize_data_format(data_format) == "channels_first"
    array = np.asarray(img, dtype=floatx() if dtype is None else dtype)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3:
        raise ValueError(f"Unsupported image shape: {array.shape}")
    return array.transpose(2, 0, 1) if channels_first else array


def array_to_img(
    x: ArrayLike, data_format: str | None = None, scale: bool = True, dtype: DTypeLike | None = None
) -> Image.Image:
    """Turns an array into a Pillow image; fractions are cut off, not rounded.

    >>> array_to_img(np.zeros((2, 3, 3))).size  # (width, height)
    (3, 2)

    Args:
        x: Array of shape (H, W, C), or (C, H, W) with "channels_first"; C is 1, 3 or 4.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        scale: Stretch the smallest value to 0 and the largest to 255. Otherwise values must lie between 0 and 255
            (one channel: may exceed 255), or they wrap around.
        dtype: Type to compute in; None for `floatx` of `keras.json`, float32 unless it says otherwise.

    Returns:
        Image of mode L (1 channel; I, 32-bit, where a value exceeds 255), RGB or RGBA.

    Raises:
        ValueError: Unknown data format, not 3D, or another number of channels.
    """
    from PIL import Image

    channels_first = standardize_data_format(data_format) == "channels_first"
    x = np.asarray(x, dtype=floatx() if dtype is None else dtype)
    if x.ndim != 3:
        raise ValueError(f"Expected image array to have rank 3 (single image). Got array with shape: {x.shape}")
    if channels_first:
        x = x.transpose(1, 2, 0)
    channels = x.shape[2]
    if channels not in (1, 3, 4):
        raise ValueError(f"Unsupported channel number: {channels} (array of shape {x.shape}); possible: 1, 3, 4")
    if scale:
        x = _stretch(x)
    if channels > 1:
        return Image.fromarray(x.astype(np.uint8))
    x = x[:, :, 0]
    return Image.fromarray(x.astype(np.int32 if np.max(x) > 255 else np.uint8))


def save_img(
    path: ImageFile,
    x: ArrayLike,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Writes an array as an image file. JPEG has no transparency: it is dropped, with a warning.

    Args:
        path: File name or binary file object.
        x: As for `array_to_img`.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        file_format: "png", "jpeg" or another format or file name ending of Pillow's; None to tell from the name.
        scale: As for `array_to_img`; False keeps the values.
        **kwargs: Options of the format, for Pillow: `quality=95`, `optimize=True`.

    Raises:
        ValueError: As for `array_to_img`; or the format is unknown, or not to be told from `path`.
        OSError: The file cannot be written, or the format cannot hold such an image.
    """
    pillow_format = _pillow_format(path, file_format)
    image = array_to_img(x, data_format=data_format, scale=scale)
    if image.mode == "RGBA" and pillow_format == "JPEG":
        warnings.warn("The JPEG format does not support RGBA images, converting to RGB.", stacklevel=2)
        image = image.convert("RGB")
    image.save(path, format=pillow_format, **kwargs)


def _check_resizing(target_size: tuple[int, int], interpolation: str) -> None:
    if len(target_size) != 2 or min(target_size) < 1:
        raise ValueError(f"target_size must be (height, width), both positive. Received: target_size={target_size}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"Invalid interpolation method {interpolation} specified. Supported methods are {', '.join(INTERPOLATIONS)}"
        )


def _read(path: ImageFile) -> bytes:
    if isinstance(path, bytes) and b"\0" in path:
        raise ValueError("path as bytes is a file name, not an image's contents: wrap contents in io.BytesIO")
    if isinstance(path, str | bytes | os.PathLike):
        with as_path(os.fsdecode(path)).open("rb") as file:
            return _read_bounded(file, _name_of(path))
    if not hasattr(path, "read"):
        raise TypeError(f"path should be a file name or a binary file object, not {type(path)}")
    if path.seekable():
        path.seek(0)
    contents = path.read()
    if not isinstance(contents, bytes):
        raise TypeError(f"path should be a file opened in binary mode; reading {_name_of(path)} gave {type(contents)}")
    return contents


def _read_bounded(file: IO[bytes], name: str) -> bytes:
    """All of a file, in pieces: asked for a gigabyte at once, Python would set it aside for every photo."""
    pieces, size = [], 0
    while piece := file.read(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_FILE:
            raise ImageError(f"{name}: more than {LARGEST_FILE:,} bytes, too many for a photo")
    return b"".join(pieces)


def _name_of(path: ImageFile) -> str:
    if isinstance(path, str | bytes | os.PathLike):
        return os.fsdecode(path)
    return str(getattr(path, "name", path))


def _decode(contents: bytes, color_mode: str, draft_size: tuple[int, int] | None, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    kept_modes = COLOR_MODES[color_mode]
    try:
        image = Image.open(io.BytesIO(contents))
        if draft_size is not None:
            image.draft(None, draft_size[::-1])  # JPEG only; others ignore it
        image.load()  # Pillow decodes lazily: without this a truncated file would fail in the caller's hands
        return image if image.mode in kept_modes else image.convert(kept_modes[0])
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image of a format that Pillow knows ({len(contents)} bytes)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS.") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on damaged files
        raise ImageError(f"{name}: cannot read the image as {color_mode!r}: {error}") from error


def _resize(
    image: Image.Image, target_size: tuple[int, int], interpolation: str, keep_aspect_ratio: bool
) -> Image.Image:
    from PIL import Image

    height, width = target_size
    box = _centred_box(image.size, (width, height)) if keep_aspect_ratio else None
    return image.resize((width, height), Image.Resampling[interpolation.upper()], box=box)


def _centred_box(size: tuple[int, int], proportions: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred box (left, upper, right, lower) of these proportions; all sizes are (width, height)."""
    width, height = size
    box_width = min(width, height * proportions[0] // proportions[1])
    box_height = min(height, width * proportions[1] // proportions[0])
    left, upper = (width - box_width) // 2, (height - box_height) // 2
    return left, upper, left + box_width, upper + box_height


def _stretch(x: NDArray[Any]) -> NDArray[Any]:
    x = x - np.min(x)
    largest = np.max(x)
    return (x / largest if largest != 0 else x) * 255


def _pillow_format(path: ImageFile, file_format: str | None) -> str:
    from PIL import Image

    known = Image.registered_extensions()  # ".jpg": "JPEG", ...
    wanted = file_format or os.path.splitext(_name_of(path))[1].removeprefix(".")
    pillow_format = known.get(f".{wanted.lower()}", wanted.upper())
    if pillow_format not in Image.SAVE:
        raise ValueError(
            f"Cannot tell the image format of {_name_of(path)!r} (file_format={file_format!r}); "
            f"possible: {', '.join(sorted(Image.SAVE))}"
        )
    return pillow_format
