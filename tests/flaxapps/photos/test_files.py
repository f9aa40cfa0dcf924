"""Photos are found in folders by their suffix, and what else lies there is counted."""

from pathlib import Path

import pytest
from PIL import Image

from flaxapps.photos.files import SUFFIXES, describe_left_out, find_photos
from flaxapps.photos.photo import PhotoFormat, Resizing, read_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a/c.heic", "a/d.avif", "clip.mp4", "a/other.MP4", "notes.txt", "README", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_photos_and_what_is_left_out(folder: Path):
    found = find_photos([folder])
    assert [str(path.relative_to(folder)) for path in found.photos] == ["a/c.heic", "a/d.avif", "b.JPG"]
    assert (
        describe_left_out(found.left_out) == "left out 4 files that are not images: 2 .mp4, 1 without a suffix, 1 .txt"
    )


def test_a_file_that_is_named_is_taken(folder: Path):
    assert find_photos([folder / "notes.txt"]) == ([folder / "notes.txt"], {})


def test_a_folder_without_photos_says_what_it_has(folder: Path):
    (folder / "b.JPG").unlink()
    for name in ("a/c.heic", "a/d.avif"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"There are no images in .* the like; left out 4 files that are not"):
        find_photos([folder])


def test_many_kinds_are_summed_up():
    described = describe_left_out({f".{number}": 1 for number in range(9)})
    assert described == "left out 9 files that are not images: 1 .0, 1 .1, 1 .2, 1 .3, 1 .4, 1 .5, 3 others"


def test_every_suffix_is_one_that_pillow_reads(tmp_path: Path):
    Image.init()
    known = Image.registered_extensions()
    heif = {".heic", ".heif", ".hif"}
    assert {suffix for suffix in SUFFIXES - heif if known.get(suffix) not in Image.OPEN} <= {".mpo", ".avif"}
    for suffix in sorted(SUFFIXES - heif):
        kind = known.get(suffix)
        if kind in Image.SAVE and suffix not in (".jpc", ".j2c"):  # a bare code stream, which Pillow does not write
            Image.new("L" if kind == "PPM" and suffix == ".pgm" else "RGB", (40, 30), "red").save(
                tmp_path / f"a{suffix}"
            )
            read_photo(tmp_path / f"a{suffix}", PhotoFormat(20, 30), Resizing())
