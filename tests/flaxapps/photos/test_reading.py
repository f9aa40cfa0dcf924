"""read_photos: batches, threads that stay ahead, and JPEG files decoded at reduced size."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxapps.image import ImageError
from flaxapps.photos import reading as photos
from flaxapps.photos.photo import PhotoFormat, Resizing, read_photo
from flaxapps.photos.reading import PLAIN, read_photos

FORM = PhotoFormat(20, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven JPEG files of a smooth picture with noise, the fourth broken, 8 times as large as wanted."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(7):
        waves = np.sin(np.arange(160)[:, None, None] / 25 + number) * np.cos(
            np.arange(240)[:, None] / 40 + np.arange(3)
        )
        picture = 127 + 100 * waves + random.normal(scale=8, size=waves.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    (folder / "3.jpg").write_bytes(b"no photo")
    return folder


def read(folder: Path, resizing: Resizing = PLAIN, **options):
    return list(read_photos(sorted(folder.iterdir()), FORM, resizing, unreadable=lambda path, error: None, **options))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 32])
def test_batches_are_in_order_and_full(batch_size: int, folder: Path):
    batches = read(folder, batch_size=batch_size)
    assert [path.name for files, _ in batches for path in files] == [f"{number}.jpg" for number in (0, 1, 2, 4, 5, 6)]
    assert {len(files) for files, _ in batches[:-1]} <= {batch_size}
    for files, arrays in batches:
        expected = [read_photo(file, FORM, Resizing()) for file in files]
        np.testing.assert_array_equal(arrays, expected)


def test_an_unreadable_photo_is_an_error(folder: Path):
    with pytest.raises(ImageError, match=r"3\.jpg"):
        list(read_photos(sorted(folder.iterdir()), FORM))


def test_threads_stay_a_batch_ahead(monkeypatch: pytest.MonkeyPatch):
    """While a batch is looked at, the next one is decoded, and no more than that."""
    decoded = threading.Semaphore(0)
    asked = []

    def read_one(path: Path, *arguments):
        asked.append(path)
        decoded.release()
        return np.zeros((20, 30, 3), np.uint8)

    monkeypatch.setattr(photos, "read_photo", read_one)
    batches = read_photos([Path(str(number)) for number in range(100)], FORM, batch_size=4)
    next(batches)
    for _ in range(8):  # this batch and the next
        assert decoded.acquire(timeout=30)
    assert not decoded.acquire(timeout=0.1)
    batches.close()
    assert len(asked) == 8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "box", "lanczos"])
@pytest.mark.parametrize("resize", [None, 25])
def test_drafts_differ_by_few_levels(interpolation: str, resize: int | None, folder: Path):
    resizing = Resizing(interpolation, resize=resize)
    for (_, whole), (_, draft) in zip(read(folder, resizing), read(folder, resizing._replace(draft=True)), strict=True):
        difference = np.abs(whole.astype(int) - draft)
        assert 0 < difference.mean() < 1
        assert difference.max() <= 12


def test_drafts_are_never_below_twice_the_size(folder: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    convert = Image.Image.resize

    def resize(image: Image.Image, *arguments, **options):
        sizes.append(image.size)
        return convert(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    read(folder, Resizing("box", draft=True))
    assert set(sizes) == {(60, 40)}
    with pytest.raises(ValueError, match="an interpolation that averages"):
        read(folder, Resizing("nearest", draft=True))
