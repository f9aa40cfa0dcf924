"""Image files in folders and buckets, and what else lies there."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flaxapps.runtime.files import as_path, in_bucket

# Pixels in files that people call images: what Pillow reads, and HEIC, which pillow-heif does. Not among them: what is
# no picture (.h5, .fits), is drawn by programs (.eps, .wmf), or belongs to a program of its own (.psd, .ico).
SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".icb", ".j2c", ".j2k", ".jfif", ".jp2",
    ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi",
    ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp",
})  # fmt: skip # kept on few lines on purpose
LOOKED_FOR = "looked for .jpg, .png, .webp, .tif, .heic and the like"
KINDS_SHOWN = 6


class FoundPhotos(NamedTuple):
    """Photos in files and folders.

    Attributes:
        photos: Files given by name as they were given, those of folders sorted.
        left_out: Number of other files in the folders, by suffix.
    """

    photos: list[Path]
    left_out: Mapping[str, int]


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Describes the files that were left out.

    >>> describe_left_out({".mp4": 2, "": 1})
    'left out 3 files that are not images: 2 .mp4, 1 without a suffix'
    """
    kinds = sorted(left_out.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds[:KINDS_SHOWN]]
    more = [f"{sum(count for _, count in kinds[KINDS_SHOWN:])} others"] if len(kinds) > KINDS_SHOWN else []
    count = sum(left_out.values())
    files = "file that is not an image" if count == 1 else "files that are not images"
    return f"left out {count} {files}: {', '.join([*shown, *more])}"


def warn_left_out(place: object, *found: FoundPhotos) -> None:
    """Warns of the files in folders that are not images, if there are any.

    Args:
        place: The folder to name.
        *found: What was found in it, or in folders below it.
    """
    left_out = sum((Counter(each.left_out) for each in found), Counter[str]())
    if left_out:
        warnings.warn(f"{place}: {describe_left_out(left_out)}", stacklevel=3)


def find_photos(places: Sequence[str | os.PathLike[str]]) -> FoundPhotos:
    """Finds files as given, and the image files in folders, recursively.

    Image files in a folder are recognized by suffix (`SUFFIXES`). Hidden files and folders do not count.

    Raises:
        OSError: A file or folder does not exist or cannot be read.
        ValueError: There are no photos; what else there is is said.
    """
    photos: list[Path] = []
    left_out: Counter[str] = Counter()
    for place in map(as_path, places):
        place.stat()  # raises FileNotFoundError, with the name
        if not place.is_dir():
            photos.append(place)
            continue
        found = photos_below(place)
        photos += found.photos
        left_out.update(found.left_out)
    if not photos:
        names = ", ".join(map(str, places))
        others = f"; {describe_left_out(left_out)}" if left_out else ""
        raise ValueError(f"There are no images in {names} ({LOOKED_FOR}{others})")
    return FoundPhotos(photos, left_out)


def photos_below(folder: Path, *, follow_links: bool = False) -> FoundPhotos:
    """Finds the image files in a folder, recursively. Hidden files and folders do not count.

    Args:
        folder: The folder, here or in a bucket.
        follow_links: Whether to follow symbolic links to folders. Linked files are always found.

    Raises:
        OSError: A folder cannot be read.
    """
    photos: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in _in_bucket(folder) if in_bucket(folder) else _in_folder(folder, follow_links):
        if is_photo(path.name):
            photos.append(path)
        else:
            left_out[path.suffix.lower()] += 1
    return FoundPhotos(sorted(photos), left_out)


def is_photo(name: str) -> bool:
    """Whether a file is an image by its name: a known suffix, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _in_folder(folder: Path, follow_links: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=follow_links):
        if follow_links:
            real = os.path.realpath(parent)
            if real in seen:  # a link to a parent folder, which would recurse forever
                folders.clear()
                continue
            seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _in_bucket(folder: Path) -> Iterator[Path]:
    """Lists every folder with one request; only names without an image suffix take another, for `is_dir`."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path == folder:  # some buckets list the folder itself
            continue
        if not is_photo(path.name) and path.is_dir():
            yield from _in_bucket(path)
        else:
            yield path
