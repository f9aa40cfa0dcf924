"""Conversion of images between files, Pillow and NumPy, with the results of Keras bit for bit.

Source: keras/src/utils/image_utils.py (Keras 3.15.1). Pillow is imported only when a function needs it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from flaxapps.runtime.image_files import ImageError as ImageError  # public here
from flaxapps.runtime.image_files import ImageFile, decode_img, name_of, named_errors
from flaxapps.runtime.keras_settings import floatx, standardize_data_format

if TYPE_CHECKING:
    from PIL import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


class ColorMode(NamedTuple):
    """Number of channels, and the modes of Pillow that are kept; others become the first one."""

    channels: int
    pillow: tuple[str, ...]


COLOR_MODES: Mapping[str, ColorMode] = MappingProxyType(
    {
        "grayscale": ColorMode(1, ("L", "I;16", "I")),
        "rgb": ColorMode(3, ("RGB",)),
        "rgba": ColorMode(4, ("RGBA",)),
    }
)


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

    As in Keras, EXIF orientation is ignored (see `exif_transposition`), transparency is dropped rather than blended,
    and a 16-bit greyscale image read as "rgb" is clipped, not scaled (all above 255 becomes white): read those as
    "grayscale".

    Args:
        path: File name (bytes are a name too, not contents) or binary file object, which is read from its start.
        color_mode: "grayscale" (8-bit, or 16 and 32-bit if the file is), "rgb" or "rgba".
        target_size: (height, width) in pixels; None keeps the size.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Whether to crop the largest centred box of the target's proportions first.
        draft_size: Smallest (height, width) at which a JPEG file may be decoded, at 1/2, 1/4 or 1/8 of its size.
            Faster; pixels differ by a few levels after resizing. None decodes the full size, as Keras does.

    Returns:
        A Pillow image of mode L, I;16, I ("grayscale"), RGB or RGBA.

    Raises:
        ImageError: The file is not an image Pillow can read, is truncated, cannot be converted, or has so many pixels
            that Pillow takes it for a decompression bomb.
        OSError: The file cannot be opened; FileNotFoundError if it does not exist.
        ValueError: `color_mode`, `target_size` or `interpolation` is not one of the above.
        TypeError: `path` is neither a name nor a binary file.
    """
    if color_mode not in COLOR_MODES:
        raise ValueError(f'color_mode must be "grayscale", "rgb", or "rgba". Received: color_mode={color_mode!r}')
    if target_size is not None:
        _check_resizing(target_size, interpolation)
    kept_modes = COLOR_MODES[color_mode].pillow
    image = decode_img(path, draft_size=draft_size)
    if image.mode not in kept_modes:
        with named_errors(name_of(path), color_mode):
            image = image.convert(kept_modes[0])
    if target_size is None or image.size == (target_size[1], target_size[0]):
        return image
    return _resize(image, target_size, interpolation, keep_aspect_ratio)


def img_to_array(img: Image.Image, data_format: str | None = None, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Converts a Pillow image to an array, without scaling (0 to 255 for 8-bit images).

    Args:
        img: Image of any mode with one or more channels.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        dtype: Dtype of the array; None takes `floatx` of `keras.json`, float32 by default.

    Returns:
        Array of shape (H, W, C), or (C, H, W) with "channels_first"; C is 1 for greyscale. It may be read-only if
        `dtype` is that of the image.

    Raises:
        ValueError: The data format is unknown, or `img` is not an image.
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
    """Converts an array to a Pillow image; values are truncated, not rounded.

    >>> array_to_img(np.zeros((2, 3, 3))).size  # (width, height)
    (3, 2)

    Args:
        x: Array of shape (H, W, C), or (C, H, W) with "channels_first"; C is 1, 3 or 4.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        scale: Whether to stretch the smallest value to 0 and the largest to 255. Otherwise values must be from 0 to
            255 (a single channel may exceed 255), or they wrap around.
        dtype: Dtype to compute in; None takes `floatx` of `keras.json`, float32 by default.

    Returns:
        Image of mode L (1 channel; mode I, 32-bit, if a value exceeds 255), RGB or RGBA.

    Raises:
        ValueError: The data format is unknown, or `x` is not 3D or has not 1, 3 or 4 channels.
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
    """Writes an array to an image file. JPEG has no transparency, so it is dropped with a warning.

    Args:
        path: File name or binary file object.
        x: As for `array_to_img`.
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        file_format: "png", "jpeg" or another format or suffix of Pillow; None takes the suffix of `path`.
        scale: As for `array_to_img`; False keeps the values.
        **kwargs: Options of the format, for Pillow: `quality=95`, `optimize=True`.

    Raises:
        ValueError: As for `array_to_img`; or the format is unknown, or `path` has no known suffix.
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


def _resize(
    image: Image.Image, target_size: tuple[int, int], interpolation: str, keep_aspect_ratio: bool
) -> Image.Image:
    from PIL import Image

    height, width = target_size
    box = centred_box(image.size, (width, height)) if keep_aspect_ratio else None
    return image.resize((width, height), Image.Resampling[interpolation.upper()], box=box)


def centred_box(size: tuple[int, int], proportions: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the largest centred box of given proportions.

    Args:
        size: Width and height of the image.
        proportions: Width and height in any unit.

    Returns:
        (left, upper, right, lower), in pixels.
    """
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
    wanted = file_format or os.path.splitext(name_of(path))[1].removeprefix(".")
    pillow_format = known.get(f".{wanted.lower()}", wanted.upper())
    if pillow_format not in Image.SAVE:
        raise ValueError(
            f"Cannot tell the image format of {name_of(path)!r} (file_format={file_format!r}); "
            f"possible: {', '.join(sorted(Image.SAVE))}"
        )
    return pillow_format
