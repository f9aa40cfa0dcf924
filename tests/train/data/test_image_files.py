"""Photos as users have them: each works, or the error says what is wrong with which file."""

import multiprocessing

import numpy as np
import pytest
from PIL import Image

from flaxapps import train
from flaxapps.image import ImageError, load_img

SIZE = (4, 4)
RED = (200, 30, 60)


def tiles():
    """Four colours, so that a turned image shows."""
    pixels = np.array([[RED, (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
    return Image.fromarray(pixels.repeat(2, axis=0).repeat(2, axis=1))


@pytest.fixture
def folder(tmp_path):
    """One good photo in each of two classes."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tiles().save(tmp_path / name / "good.png")
    return tmp_path


def first_photo(folder, **options):
    """The photo whose name comes first: that of class a, which tests name '0...'."""
    images, _ = next(train.image_folder(folder, image_size=SIZE, **options).batches(1, seed=None))
    return images[0]


def test_photos_are_what_load_img_reads(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a" / "0.png")
    for interpolation in ("nearest", "bilinear", "lanczos"):
        found = first_photo(folder, interpolation=interpolation)
        wanted = load_img(folder / "a" / "0.png", target_size=SIZE, interpolation=interpolation)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.asarray(wanted))


def test_greyscale_is_repeated_to_rgb(folder):
    Image.new("L", SIZE, 77).save(folder / "a" / "0.png")
    assert set(first_photo(folder).ravel()) == {77}
    grey = first_photo(folder, color_mode="grayscale")
    assert grey.shape == (4, 4, 1)
    assert grey.dtype == np.float32
    assert set(grey.ravel()) == {77}


def test_cmyk_is_converted(folder):
    Image.new("CMYK", SIZE, (0, 255, 255, 0)).save(folder / "a" / "0.jpg")
    red, green, blue = first_photo(folder)[0, 0].astype(int)
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_transparency_is_dropped(folder, suffix):
    Image.new("RGBA", SIZE, (*RED, 10)).save(folder / "a" / f"0.{suffix}", lossless=True)
    np.testing.assert_array_equal(first_photo(folder), np.full((4, 4, 3), RED))
    np.testing.assert_array_equal(first_photo(folder, color_mode="rgba"), np.full((4, 4, 4), (*RED, 10)))


def test_sixteen_bits_of_grey_are_scaled_rather_than_cut_off_at_white(folder):
    Image.fromarray(np.full(SIZE, 257 * 7, np.uint16)).save(folder / "a" / "0.png")
    assert set(first_photo(folder).ravel()) == {7}
    assert set(first_photo(folder, color_mode="grayscale").ravel()) == {7}


def test_sixteen_bits_of_colour_are_read_with_eight(folder, tmp_path_factory):
    (folder / "a" / "0.png").write_bytes(sixteen_bit_png())
    np.testing.assert_array_equal(first_photo(folder), np.full((4, 4, 3), RED))


def sixteen_bit_png():
    """Pillow reads such files but does not write them."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", *(value * 257 for value in RED)) * 4
    header = struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")


def test_the_orientation_of_a_camera_can_be_ignored_as_in_keras(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    tiles().save(folder / "a" / "0.png", exif=exif)
    np.testing.assert_array_equal(first_photo(folder, orientation=False), np.asarray(tiles()))
    np.testing.assert_array_equal(first_photo(folder), np.rot90(np.asarray(tiles()), -1))


def test_an_animation_is_its_first_frame(folder):
    later = [Image.new("RGB", SIZE, "blue"), Image.new("RGB", SIZE, "green")]
    Image.new("RGB", SIZE, "red").save(folder / "a" / "0.gif", save_all=True, append_images=later)
    assert first_photo(folder)[0, 0].tolist() == [255, 0, 0]


def damage(folder):
    """Three files that are no images; the good ones stay."""
    (folder / "a" / "empty.png").write_bytes(b"")
    (folder / "a" / "text.jpg").write_text("this is a text")
    whole = (folder / "b" / "good.png").read_bytes()
    (folder / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])


def test_all_that_cannot_be_read_in_a_batch_is_told(folder):
    damage(folder)
    data = train.image_folder(folder, image_size=SIZE)
    with pytest.raises(ImageError, match=r"3 of a batch of 5 images cannot be read \(on_error='skip'") as caught:
        list(data.batches(8, seed=0))
    message = str(caught.value)
    assert "empty.png: not an image of a format that Pillow knows (0 bytes)" in message
    assert "text.jpg: not an image" in message
    assert "cut.png: cannot read the image: " in message


def test_what_cannot_be_read_is_skipped_and_counted(folder):
    damage(folder)
    data = train.image_folder(folder, image_size=SIZE, on_error="skip", label_mode="categorical")
    for _ in range(2):
        with pytest.warns(UserWarning, match="3 images could not be read and were left out of this epoch") as caught:
            batches = list(data.batches(2, seed=None))
        assert len(caught) == 1
        assert [len(images) for images, _ in batches] == [1, 0, 1]
        assert all(labels.shape == (len(images), 2) for images, labels in batches)
        assert sorted(data.skipped) == ["a/empty.png", "a/text.jpg", "b/cut.png"]


def test_without_the_broken_ones_batches_are_full(folder):
    damage(folder)
    data = train.image_folder(folder, image_size=SIZE).without_broken()
    assert data.files == ["a/good.png", "b/good.png"]
    assert [labels.tolist() for _, labels in data.batches(2, seed=None)] == [[0, 1]]
    for file in ("a/good.png", "b/good.png"):
        (folder / file).write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 5 images"):
        train.image_folder(folder, image_size=SIZE).without_broken()


def test_options_out_of_range_are_told_all_at_once(folder):
    options = {"label_mode": "binary", "color_mode": "cmyk", "interpolation": "area", "on_error": "ignore"}
    with pytest.raises(ValueError, match="label_mode should be one of int, categorical, got 'binary'") as caught:
        train.image_folder(folder, image_size=(0, 3), workers=-1, **options)
    assert all(word in str(caught.value) for word in (*options, "image_size", "workers"))


def numbered(folder, count):
    for number in range(count):
        Image.new("L", SIZE, number).save(folder / "ab"[number % 2] / f"{number:02}.png")
    for name in ("a", "b"):
        (folder / name / "good.png").unlink()
    return train.image_folder(folder, image_size=SIZE)


def test_resuming_a_folder_within_an_epoch_continues_it(folder):
    data = numbered(folder, 11)
    whole = [images[:, 0, 0, 0].tolist() for images, _ in data.batches(3, seed=1, epoch=2)]
    rest = [images[:, 0, 0, 0].tolist() for images, _ in data.batches(3, seed=1, epoch=2, start=2)]
    assert rest == whole[2:]
    assert sorted(number for batch in whole for number in batch) == list(range(11))


def test_an_epoch_can_be_left_early(folder):
    batches = numbered(folder, 11).batches(1, seed=1)
    next(batches)
    batches.close()
    assert not list(batches)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(folder):
    data = numbered(folder, 11)
    (folder / "b" / "99.png").write_bytes(b"")
    alone = train.image_folder(folder, image_size=SIZE, on_error="skip")
    helped = train.image_folder(folder, image_size=SIZE, on_error="skip", workers=2)
    found = []
    for data in (alone, helped):
        with pytest.warns(UserWarning, match="1 image could not be read"):
            found.append(list(data.batches(3, seed=1, start=1)))
    assert alone.skipped == helped.skipped
    assert not multiprocessing.active_children()
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
