"""One photo: turned upright, of any depth, and with the pixels of Keras's datasets where they are asked for."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from flaxapps.image import ImageError, img_to_array, load_img
from flaxapps.photos.photo import AS_LOAD_IMG, KERNELS, PhotoFormat, Resizing, read_photo

RGB, GREY = PhotoFormat(20, 30), PhotoFormat(20, 30, 1)


def picture(height: int = 41, width: int = 58) -> np.ndarray:
    """Smooth, and another in every corner."""
    waves = np.sin(np.arange(height)[:, None, None] / 9) * np.cos(np.arange(width)[:, None] / 11 + np.arange(3))
    return (127 + 100 * waves + np.arange(width)[:, None] / 3).clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, name: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file


def turned(orientation: int, **options) -> io.BytesIO:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(picture(160, 240)), exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_photos_stand_upright(orientation: int, name: str):
    file = turned(orientation, name=name)
    upright = ImageOps.exif_transpose(Image.open(file))
    expected = np.asarray(upright.convert("RGB").resize((30, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_photo(file, RGB, Resizing()), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_orientation_pixels_are_keras_s(orientation: int):
    file = turned(orientation, name="JPEG")
    expected = img_to_array(load_img(file, target_size=(20, 30)), dtype="uint8")
    np.testing.assert_array_equal(read_photo(file, RGB, AS_LOAD_IMG), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_drafts_are_chosen_for_the_upright_photo(orientation: int):
    whole, draft = (read_photo(turned(orientation, name="JPEG"), RGB, Resizing(draft=draft)) for draft in (False, True))
    difference = np.abs(whole.astype(int) - draft)
    assert 0 < difference.mean() < 1
    assert difference.max() <= 12


def test_orientations_that_do_not_exist_are_none():
    for orientation in (0, 9, 77):
        np.testing.assert_array_equal(
            read_photo(turned(orientation, name="JPEG"), RGB, Resizing()),
            read_photo(turned(1, name="JPEG"), RGB, Resizing()),
        )


def test_damaged_exif_is_none():
    plain = turned(1, name="JPEG").getvalue()
    place = plain.index(b"Exif\0\0") + 6
    damaged = plain[:place] + b"\xff" * 8 + plain[place + 8 :]
    np.testing.assert_array_equal(
        read_photo(io.BytesIO(damaged), RGB, Resizing()), read_photo(io.BytesIO(plain), RGB, Resizing())
    )


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_become_eight(name: str):
    grey = picture()[:, :, 0]
    dtype = np.int32 if name == "PPM" else np.uint16  # what old versions of Pillow can write
    deep = saved(Image.fromarray(grey.astype(dtype) * 257), name)
    flat = saved(Image.fromarray(grey), "PNG")
    np.testing.assert_array_equal(
        read_photo(deep, PhotoFormat(41, 58, 1), Resizing()), read_photo(flat, PhotoFormat(41, 58, 1), Resizing())
    )
    np.testing.assert_array_equal(read_photo(deep, RGB, Resizing()), read_photo(flat, RGB, Resizing()))


def test_levels_between_those_of_eight_bits_are_kept():
    deep = saved(Image.fromarray(np.full((20, 30), 1000, np.uint16)), "PNG")
    np.testing.assert_allclose(read_photo(deep, GREY, Resizing()), 1000 / 257, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("form", [RGB, GREY])
def test_thirty_two_bits_are_refused(dtype: type, form: PhotoFormat):
    file = saved(Image.fromarray(picture()[:, :, 0].astype(dtype)), "TIFF")
    with pytest.raises(ImageError, match=r"greyscale of 32 bits \(mode [IF]\), whose range is not known"):
        read_photo(file, form, Resizing())


SIZES = [(41, 58), (20, 30), (40, 60), (7, 9), (100, 45)]


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [False, True])
def test_without_antialias_pixels_are_those_of_keras_s_datasets(
    interpolation: str, size: tuple[int, int], crop: bool, tmp_path: Path
):
    from keras.utils import image_dataset_from_directory

    (tmp_path / "a").mkdir()
    Image.fromarray(picture(*size)).save(tmp_path / "a" / "1.png")
    options = {"interpolation": {"lanczos": "lanczos3"}.get(interpolation, interpolation)}
    options |= {"labels": None, "image_size": (20, 30), "crop_to_aspect_ratio": crop, "shuffle": False}
    (expected,) = image_dataset_from_directory(tmp_path, format="grain", verbose=False, **options)
    resizing = Resizing(interpolation, antialias=False, orientation=False, crop_to_aspect_ratio=crop)
    found = read_photo(tmp_path / "a" / "1.png", RGB, resizing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(expected)[0], atol=2e-4)


def test_crops_keep_proportions():
    file = saved(Image.fromarray(picture(40, 90)), "PNG")
    expected = Image.open(file).resize((30, 20), Image.Resampling.BILINEAR, box=(15, 0, 75, 40))
    np.testing.assert_array_equal(read_photo(file, RGB, Resizing(crop_to_aspect_ratio=True)), np.asarray(expected))


def test_the_shorter_side_is_resized_and_the_centre_cropped():
    file = saved(Image.fromarray(picture(375, 500)), "PNG")
    whole = Image.open(file).resize((341, 256), Image.Resampling.BILINEAR)
    found = read_photo(file, PhotoFormat(224, 200), Resizing(resize=256))
    np.testing.assert_array_equal(found, np.asarray(whole)[16:240, 70:270])
    plain = Resizing(resize=256, antialias=False)
    np.testing.assert_allclose(read_photo(file, PhotoFormat(224, 200), plain), found, atol=20)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (257, 400)])
def test_the_centre_is_that_of_the_photo(size: tuple[int, int]):
    """A photo that brightens from edge to edge has its middle grey at the middle of what is cut out."""
    width, height = size
    ramp = np.linspace(0, 255, width)[None].repeat(height, axis=0).astype(np.uint8)
    cut = read_photo(saved(Image.fromarray(ramp), "PNG"), PhotoFormat(224, 224), Resizing(resize=256))
    middle = cut[:, 110:114].mean()
    assert abs(middle - 127.5) < 1.5


def test_a_strip_is_not_resized_to_a_wall():
    """It has few pixels, and would have four billion."""
    file = saved(Image.new("RGB", (60_000, 1)), "PNG")
    with pytest.raises(ImageError, match="60000 by 1 pixels would become 15360000 by 256: too long"):
        read_photo(file, PhotoFormat(224, 224), Resizing(resize=256))


@pytest.mark.parametrize(
    ("resizing", "message"),
    [
        (Resizing("hamming", antialias=False), "without antialias, interpolation should be one of nearest, bilinear"),
        (Resizing("nearest", draft=True), "draft needs an interpolation that averages"),
        (Resizing(resize=20, crop_to_aspect_ratio=True), "both keep proportions: give one"),
    ],
)
def test_options_that_do_not_go_together(resizing: Resizing, message: str):
    with pytest.raises(ValueError, match=message):
        resizing.check()


def test_photos_of_iphones(tmp_path: Path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra `heif`")
    path = tmp_path / "1.heic"
    pillow_heif.from_pillow(Image.fromarray(picture(160, 240))).save(path, quality=95)
    found = read_photo(path, RGB, Resizing())
    expected = np.asarray(Image.fromarray(picture(160, 240)).resize((30, 20), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_photos_of_iphones_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImageError, match=r'1\.heic: HEIC photos need pillow-heif: pip install "flaxapps\[heif\]"'):
        read_photo(tmp_path / "1.heic", RGB, Resizing())
