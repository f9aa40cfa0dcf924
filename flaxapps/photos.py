"""Photos from files and folders, decoded batch by batch in the layout a model takes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from flaxapps.image import ImageError, img_to_array, load_img
from flaxapps.model import Model
from flaxapps.paths import as_path, in_bucket

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
COLOR_MODES = {1: "grayscale", 3: "rgb", 4: "rgba"}  # by number of channels

Result = TypeVar("Result")
Unreadable = Callable[[Path, Exception], None]


class PhotoFormat(NamedTuple):
    """How a model takes photos.

    Attributes:
        height: In pixels; None where any will do.
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
        """Shape of one photo as an array; None where any size will do."""
        size = self.height, self.width
        return (self.channels, *size) if self.channels_first else (*size, self.channels)

    @property
    def dtype(self) -> str:
        """What photos are read as: grey ones may have more than 8 bits."""
        return "float32" if self.channels == 1 else "uint8"


def photo_format(model: Model) -> PhotoFormat:
    """The photos a model takes.

    Raises:
        ValueError: It takes several inputs, or something else than images.
    """
    shape = model.input_shape
    if isinstance(shape, tuple) and len(shape) == 4 and model.input.shape[-1] in COLOR_MODES:
        _, height, width, channels = model.input.shape
        return PhotoFormat(height, width, channels, channels_first=shape != model.input.shape)
    raise ValueError(f"{model.name!r} does not take single images of 1, 3 or 4 channels: its input is {shape}")


def find_photos(places: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files as they are given, and for each folder the image files in it, at any depth, sorted.

    Which files of a folder are images is told by their suffix; hidden files and folders are left out.

    Raises:
        FileNotFoundError: A file or folder is not there.
        ValueError: There are no photos at all.
    """
    found: list[Path] = []
    for place in map(as_path, places):
        place.stat()  # raises FileNotFoundError, which names it
        found += photos_below(place) if place.is_dir() else [place]
    if not found:
        names = ", ".join(map(str, places))
        raise ValueError(f"There are no images in {names} (looked for {' '.join(sorted(SUFFIXES))})")
    return found


def read_photos(
    paths: Iterable[Path],
    form: PhotoFormat,
    *,
    interpolation: str = "nearest",
    resize: int | None = None,
    draft: bool = False,
    batch_size: int = 32,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Path], NDArray[Any]]]:
    """Decodes photos, resized, on several threads, which stay a batch ahead of whoever computes with them.

    Args:
        paths: Image files; an iterator is read two batches ahead.
        form: The size and layout wanted.
        interpolation: As for `load_img`.
        resize: Brings the shorter side to this many pixels, then cuts the size wanted out of the centre; None resizes
            to the size wanted, whatever that does to the proportions.
        draft: Whether large JPEG files are decoded at a half, quarter or eighth of their size, never below twice the
            size wanted. Faster, and after resizing a few levels off; not for "nearest", which would pick other pixels.
        batch_size: How many photos are in a batch; as many again are waiting.
        unreadable: Told about each file that cannot be read, which is then left out; None raises the error.

    Yields:
        Files and their photos, uint8 (float32 for grey, which may have more than 8 bits), without empty batches.

    Raises:
        ImageError, OSError: A photo cannot be read and `unreadable` is None.
        ValueError: `form` leaves the size open, or `draft` is asked for with "nearest".
    """
    if form.height is None or form.width is None:
        raise ValueError("Photos in a batch need one size, in both directions")
    if draft and interpolation == "nearest":
        raise ValueError('draft needs an interpolation that averages, such as "bilinear"; got "nearest"')
    size = form.height, form.width
    kept = (resize, resize) if resize else size
    options: dict[str, Any] = {"draft_size": (2 * kept[0], 2 * kept[1])} if draft else {}
    mode = COLOR_MODES[form.channels]
    layout = "channels_first" if form.channels_first else "channels_last"

    def read(path: Path) -> NDArray[Any] | Exception:
        try:
            if resize is None:
                photo = load_img(path, mode, target_size=size, interpolation=interpolation, **options)
            else:
                photo = cut_centre(load_img(path, mode, **options), resize, size, interpolation)
        except (ImageError, OSError) as error:
            return error
        return img_to_array(photo, layout, form.dtype)

    files: list[Path] = []
    photos: list[NDArray[Any]] = []
    for path, result in _ahead(read, paths, batch_size):
        if not isinstance(result, Exception):
            files.append(path)
            photos.append(result)
        elif unreadable is None:
            raise result
        else:
            unreadable(path, result)
        if len(files) == batch_size:
            yield files, np.stack(photos)
            files, photos = [], []
    if files:
        yield files, np.stack(photos)


def _ahead(read: Callable[[Path], Result], paths: Iterable[Path], count: int) -> Iterator[tuple[Path, Result]]:
    """What `read` makes of each path, in order; threads make up to `count` results before they are asked for."""
    threads = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside Python's global lock
    waiting: deque[tuple[Path, Future[Result]]] = deque()
    try:
        for path in paths:
            waiting.append((path, threads.submit(read, path)))
            if len(waiting) > count:
                first, future = waiting.popleft()
                yield first, future.result()
        for path, future in waiting:
            yield path, future.result()
    finally:
        threads.shutdown(cancel_futures=True)


def cut_centre(photo: "Image.Image", resize: int, size: tuple[int, int], interpolation: str) -> "Image.Image":
    """Brings the shorter side of a photo to `resize` pixels and cuts `size` (height, width) out of its centre.

    This is how published ImageNet accuracies are measured, such as 224 out of 256 (torchvision: Resize, CenterCrop).

    >>> from PIL import Image
    >>> cut_centre(Image.new("RGB", (500, 375)), 256, (224, 200), "bilinear").size  # (width, height)
    (200, 224)
    """
    from PIL import Image
    from PIL.Image import Resampling

    shorter = min(photo.size)
    width, height = (resize if side == shorter else int(resize * side / shorter) for side in photo.size)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{photo.size[0]} by {photo.size[1]} pixels would become {width} by {height}: too long a strip"
        )
    photo = photo.resize((width, height), Resampling[interpolation.upper()])
    left, top = round((width - size[1]) / 2), round((height - size[0]) / 2)
    return photo.crop((left, top, left + size[1], top + size[0]))


def photos_below(folder: Path) -> list[Path]:
    """The image files in a folder, at any depth, sorted; hidden ones and those of hidden folders are left out.

    Raises:
        OSError: A folder cannot be read.
    """
    if in_bucket(folder):
        return _photos_in_bucket(folder)

    def fail(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _photos_in_bucket(folder: Path) -> list[Path]:
    """One listing for every folder: what has the name of an image is not asked what it is."""
    found = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path == folder:  # some list the folder in itself
            continue
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif path.is_dir():
            found += _photos_in_bucket(path)
    return sorted(found)
