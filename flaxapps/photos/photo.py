"""One photo: upright, with 8 bits for each channel, in the size and layout of a model."""

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.image import COLOR_MODES, ImageError, centred_box, img_to_array
from flaxapps.runtime.image_files import ImageFile, decode_img, exif_transposition

if TYPE_CHECKING:
    from PIL import Image

CHANNELS = MappingProxyType({name: mode.channels for name, mode in COLOR_MODES.items()})
DEEP_MODES = ("I", "F")  # Pillow's modes above 8 bits; variants such as "I;16" begin with the same letter
SIXTEEN_BITS = ("PNG", "PPM")  # formats of which Pillow reads 16 bits as "I", the mode of 32
LEVELS = 257  # of 16 bits for one of 8: 65535 / 255

# Half width of the kernels that Keras resizes with, in pixels of the photo; "nearest" has none.
KERNELS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}


class PhotoFormat(NamedTuple):
    """Size and layout of the photos a model takes.

    Attributes:
        height: In pixels; None if it is free.
        width: The same.
        channels: 1 (grey), 3 (RGB) or 4 (RGB with transparency).
        channels_first: Whether an image is (channels, height, width).
    """

    height: int | None
    width: int | None
    channels: int = 3
    channels_first: bool = False

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of one photo as an array; None for free sizes."""
        size = self.height, self.width
        return (self.channels, *size) if self.channels_first else (*size, self.channels)

    @property
    def color_mode(self) -> str:
        """The colour mode, as for `load_img`."""
        return next(name for name, channels in CHANNELS.items() if channels == self.channels)


class Resizing(NamedTuple):
    """How a photo gets the size that a model takes.

    Attributes:
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        antialias: Whether a photo that shrinks is averaged, by Pillow, as in torchvision and timm. False takes the
            pixels of Keras's `image_dataset_from_directory`, float32, for "nearest", "bilinear", "bicubic", "lanczos".
        orientation: Whether a photo is turned upright by its EXIF orientation. Keras does not.
        resize: Number of pixels to resize the shorter side to, before the target size is cropped from the centre; None
            resizes to the target size.
        crop_to_aspect_ratio: Whether to crop the largest centred box of the target's proportions first. Otherwise,
            without `resize`, proportions are not kept.
        draft: Whether a large JPEG file is decoded at a half, quarter or eighth of its size, but at least twice the
            target size. Faster; pixels differ by a few levels after resizing. Needs an interpolation that averages.
    """

    interpolation: str = "bilinear"
    antialias: bool = True
    orientation: bool = True
    resize: int | None = None
    crop_to_aspect_ratio: bool = False
    draft: bool = False

    def check(self) -> None:
        """Checks that the options go together.

        Raises:
            ValueError: They do not; all reasons are listed.
        """
        wrong = []
        if not self.antialias and self.interpolation not in KERNELS:
            wrong.append(f"without antialias, interpolation should be one of {', '.join(KERNELS)}")
        if self.draft and (self.interpolation == "nearest" or not self.antialias):
            wrong.append('draft needs an interpolation that averages, such as "bilinear" with antialias')
        if self.resize is not None and self.crop_to_aspect_ratio:
            wrong.append("resize and crop_to_aspect_ratio both keep proportions: give one of them")
        if wrong:
            raise ValueError(f"{'; '.join(wrong)}; got {self}")

    def describe(self) -> str:
        """Describes what differs from Pillow's resizing of upright photos.

        >>> Resizing("nearest", orientation=False, draft=True).describe()
        'nearest of drafts, as stored'
        """
        parts = [
            f"{self.interpolation}{'' if self.antialias else ' without antialias'}{' of drafts' if self.draft else ''}",
            *([] if self.orientation else ["as stored"]),
            *(["cropped"] if self.crop_to_aspect_ratio else []),
            *([f"centre of {self.resize}"] if self.resize else []),
        ]
        return ", ".join(parts)

    def dtype(self, channels: int) -> str:
        """Dtype of photos: float32 for grey ones, which may have more than 8 bits, and without antialias."""
        return "uint8" if self.antialias and channels > 1 else "float32"


# What users choose for a model, and what is stored with it; the other fields belong to one command.
CHOSEN_RESIZING = ("interpolation", "antialias", "orientation")
AS_LOAD_IMG = Resizing("nearest", orientation=False)  # as Keras's `load_img` by default


def read_photo(path: ImageFile, form: PhotoFormat, resizing: Resizing) -> NDArray[Any]:
    """Reads a photo as an array of a model's size and layout, from 0 to 255.

    Greyscale of 16 bits is scaled to 0 to 255. Transparency is dropped for RGB, and of an animation the first frame is
    taken, as in Keras.

    Args:
        path: File name or binary file object.
        form: Size and layout; the size is not free.
        resizing: How to get there.

    Returns:
        Array of shape `form.shape`, of dtype `resizing.dtype(form.channels)`.

    Raises:
        ImageError: The file is not an image that can be read, or is greyscale of 32 bits, whose range is unknown.
        OSError: The file cannot be opened.
    """
    assert form.height is not None
    assert form.width is not None
    size = form.height, form.width
    wanted = (resizing.resize, resizing.resize) if resizing.resize else size
    draft_size = (2 * wanted[0], 2 * wanted[1]) if resizing.draft else None
    photo = decode_img(path, draft_size=draft_size, orientation=resizing.orientation)
    transposition = exif_transposition(photo) if resizing.orientation else None
    photo = with_eight_bits(photo, form.color_mode, name=getattr(path, "name", path))
    if transposition is not None:
        photo = photo.transpose(transposition)
    layout = "channels_first" if form.channels_first else "channels_last"
    return img_to_array(_resized(photo, size, resizing), layout, resizing.dtype(form.channels))


def with_eight_bits(photo: "Image.Image", color_mode: str, name: object) -> "Image.Image":
    """Converts a photo to a colour mode with values from 0 to 255.

    Args:
        photo: As decoded.
        color_mode: "grayscale", "rgb" or "rgba".
        name: Of the file, for errors.

    Returns:
        An image of mode L, RGB, RGBA, or F for greyscale of 16 bits, which keeps its levels as fractions.

    Raises:
        ImageError: It is greyscale of 32 bits, or cannot be converted.
    """
    from PIL import Image

    mode = COLOR_MODES[color_mode].pillow[0]
    if photo.mode == mode:
        return photo
    if photo.mode.startswith(DEEP_MODES):
        if not (photo.mode.startswith("I;16") or (photo.mode == "I" and photo.format in SIXTEEN_BITS)):
            raise ImageError(
                f"{name}: greyscale of 32 bits (mode {photo.mode}), whose range is not known: save it with 8 or 16 bits"
            )
        grey = np.asarray(photo, np.float32) / LEVELS
        if color_mode == "grayscale":
            return Image.fromarray(grey)
        photo = Image.fromarray(np.rint(grey).astype(np.uint8))
    try:
        return photo.convert(mode)
    except (ValueError, OSError) as error:
        raise ImageError(f"{name}: cannot convert the image from mode {photo.mode} to {mode}: {error}") from error


def _resized(photo: "Image.Image", size: tuple[int, int], resizing: Resizing) -> Any:
    """Resizes and crops a photo to (height, width); a Pillow image, or an array without antialias."""
    from PIL.Image import Resampling

    width, height = photo.size
    box, target = (0, 0, width, height), size
    if resizing.crop_to_aspect_ratio:
        box = centred_box(photo.size, size[::-1])
    elif resizing.resize is not None:
        target = _sides(photo.size, resizing.resize)
    if resizing.antialias:
        if photo.size != target[::-1]:
            photo = photo.resize(target[::-1], Resampling[resizing.interpolation.upper()], box=box)
        array = np.asarray(photo)
    else:
        array = np.asarray(photo)[box[1] : box[3], box[0] : box[2]]
        for axis in (0, 1):
            array = _sampled(array, axis, target[axis], resizing.interpolation)
    top, left = round((array.shape[0] - size[0]) / 2), round((array.shape[1] - size[1]) / 2)
    return array[top : top + size[0], left : left + size[1]]


def _sides(size: tuple[int, int], resize: int) -> tuple[int, int]:
    """Height and width of a photo of (width, height) whose shorter side becomes `resize`.

    Published ImageNet accuracies are measured in this way, such as 224 out of 256 (torchvision: Resize, CenterCrop).

    >>> _sides((500, 375), 256)
    (256, 341)
    """
    from PIL import Image

    shorter = min(size)
    width, height = (resize if side == shorter else int(resize * side / shorter) for side in size)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"{size[0]} by {size[1]} pixels would become {width} by {height}: too long and narrow")
    return height, width


def _sampled(array: NDArray[Any], axis: int, length: int, interpolation: str) -> NDArray[Any]:
    """Resizes one axis as `jax.image.resize(antialias=False)` does, and Keras with it."""
    if array.shape[axis] == length:
        return array
    taps, weights = _taps(array.shape[axis], length, interpolation)
    shape = [1] * array.ndim
    shape[axis] = length
    terms = (array.take(taps[:, tap], axis) * weights[:, tap].reshape(shape) for tap in range(taps.shape[1]))
    return functools.reduce(np.add, terms)


@functools.lru_cache(maxsize=256)  # folders hold photos of few sizes
def _taps(length: int, wanted: int, interpolation: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Pixels that each pixel of a resized axis is made of, and their weights: (wanted, taps) both."""
    centres = (np.arange(wanted) + 0.5) * (length / wanted)
    half = KERNELS[interpolation]
    if half == 0:
        return np.floor(centres).astype(np.intp)[:, None], np.ones((wanted, 1), np.float32)
    taps = np.floor(centres - 0.5).astype(np.intp)[:, None] + np.arange(1 - half, 1 + half)
    distances = np.abs(centres[:, None] - 0.5 - taps)
    weights = np.where((taps >= 0) & (taps < length), _kernel(distances, interpolation), 0)
    weights /= weights.sum(1, keepdims=True)
    return taps.clip(0, length - 1), weights.astype(np.float32)


def _kernel(x: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    if interpolation == "bilinear":
        return np.maximum(0, 1 - x)
    if interpolation == "lanczos":
        return np.sinc(x) * np.sinc(x / 3) * (x < 3)
    # Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
