"""Images: Keras's pixels, and errors that name the file."""

import contextlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flaxapps.image import INTERPOLATIONS, ImageError, array_to_img, img_to_array, load_img, save_img

SIZE = (13, 9)  # width, height: odd, and the height the smaller


@pytest.fixture
def keras_image() -> ModuleType:
    from keras import utils

    return utils


def random_pixels(*channels: int, high: int = 256, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (SIZE[1], SIZE[0], *channels)).astype(dtype)


def write_images(folder: Path) -> dict[str, Path]:
    color = Image.fromarray(random_pixels(3))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    images = {
        "rgb.png": color,
        "rgb.jpg": color,
        "rgb.bmp": color,
        "rgb.tif": color,
        "rgb.webp": color,
        "grey.png": Image.fromarray(random_pixels()),
        "alpha.png": Image.fromarray(random_pixels(4)),
        "grey_alpha.png": Image.fromarray(random_pixels(2)),
        "palette.png": color.quantize(7),
        "palette.gif": color.quantize(7),
        "print.jpg": color.convert("CMYK"),
        "deep.png": Image.fromarray(random_pixels(high=2**16, dtype="uint16")),
        "deeper.tif": Image.fromarray(random_pixels(high=2**20, dtype="int32")),
        "float.tif": Image.fromarray(random_pixels(dtype="float32")),
        "bits.png": color.convert("1"),
        "pixel.png": color.crop((0, 0, 1, 1)),
    }
    for name, image in images.items():
        image.save(folder / name)
    color.save(folder / "turned.jpg", exif=exif)
    return {name: folder / name for name in [*images, "turned.jpg"]}


def assert_same_image(ours: Image.Image, expected: Image.Image) -> None:
    assert (ours.mode, ours.size) == (expected.mode, expected.size)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
def test_every_kind_of_file_loads_as_in_keras(keras_image: ModuleType, tmp_path: Path, color_mode: str):
    for path in write_images(tmp_path).values():
        assert_same_image(load_img(path, color_mode), keras_image.load_img(path, color_mode))


@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("target_size", [(9, 13), (5, 5), (31, 4), (4, 31), (18, 26), (1, 1)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resizing_as_in_keras(
    keras_image: ModuleType,
    tmp_path: Path,
    interpolation: str,
    target_size: tuple[int, int],
    keep_aspect_ratio: bool,
):
    path = tmp_path / "rgb.png"
    Image.fromarray(random_pixels(3)).save(path)
    arguments = {
        "target_size": target_size,
        "interpolation": interpolation,
        "keep_aspect_ratio": keep_aspect_ratio,
    }
    ours = load_img(path, **arguments)
    assert ours.size == target_size[::-1]
    assert_same_image(ours, keras_image.load_img(path, **arguments))


def test_resizing_deep_grey_as_in_keras(keras_image: ModuleType, tmp_path: Path):
    path = write_images(tmp_path)["deep.png"]
    arguments = {"color_mode": "grayscale", "target_size": (4, 5), "interpolation": "nearest"}
    assert_same_image(load_img(path, **arguments), keras_image.load_img(path, **arguments))


def test_exif_orientation_is_ignored(tmp_path: Path):
    assert load_img(write_images(tmp_path)["turned.jpg"]).size == SIZE


def test_deep_grey_is_clipped_as_rgb_and_kept_as_grayscale(tmp_path: Path):
    path = write_images(tmp_path)["deep.png"]
    deep = random_pixels(high=2**16, dtype="uint16")
    np.testing.assert_array_equal(np.asarray(load_img(path))[..., 0], np.minimum(deep, 255))
    np.testing.assert_array_equal(img_to_array(load_img(path, "grayscale"))[..., 0], deep)


def test_every_way_to_name_a_file(tmp_path: Path):
    path = write_images(tmp_path)["rgb.png"]
    expected = load_img(path)
    buffer = io.BytesIO(path.read_bytes())
    buffer.seek(0, io.SEEK_END)  # as after writing
    with path.open("rb") as file:
        for way in (str(path), os.fsencode(path), buffer, file):
            assert_same_image(load_img(way), expected)


def test_the_image_outlives_its_file(tmp_path: Path):
    path = write_images(tmp_path)["palette.gif"]
    with path.open("rb") as file:
        image = load_img(file)
    path.unlink()
    assert image.resize((3, 3)).size == (3, 3)


def test_truncated_jpeg_fails_while_loading(tmp_path: Path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"cut\.jpg.*truncated") as caught:
        load_img(path)
    assert isinstance(caught.value.__cause__, OSError)
    with path.open("rb") as file, pytest.raises(ImageError, match=r"cut\.jpg"):
        load_img(file)


@pytest.mark.parametrize("content", [b"", b"not an image\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_not_an_image(tmp_path: Path, content: bytes):
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"text\.png") as caught:
        load_img(path)
    assert caught.value.__cause__ is not None
    assert issubclass(ImageError, ValueError)


def test_damaged_files_raise_nothing_but_image_error(tmp_path: Path):
    random = np.random.default_rng(0)
    for path in write_images(tmp_path).values():
        for _ in range(20):
            content = bytearray(path.read_bytes())
            for position in random.integers(0, min(60, len(content)), 3):
                content[position] = random.integers(0, 256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about the damage
                with contextlib.suppress(ImageError):
                    load_img(io.BytesIO(content))


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_images(tmp_path)["rgb.png"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"rgb\.png.*decompression bomb") as caught:
        load_img(path)
    assert isinstance(caught.value.__cause__, Image.DecompressionBombError)


def test_a_file_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flaxapps.runtime.image_files.LARGEST_FILE", 1 << 22)
    with pytest.raises(ImageError, match=r"/dev/zero: more than 4,194,304 bytes, too many for a photo"):
        load_img("/dev/zero")


def test_inconvertible_image(tmp_path: Path):
    path = tmp_path / "lab.tif"
    Image.new("LAB", (2, 2)).save(path)
    with pytest.raises(ImageError, match=r"lab\.tif.*'grayscale'.*LAB"):
        load_img(path, "grayscale")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        load_img(tmp_path / "missing.png")
    with pytest.raises(IsADirectoryError):
        load_img(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"color_mode": "RGB"}, 'must be "grayscale", "rgb", or "rgba". Received: color_mode=\'RGB\''),
        ({"target_size": (4, 4, 3)}, r"\(4, 4, 3\)"),
        ({"target_size": (0, 4)}, r"\(height, width\), both positive"),
        ({"target_size": (4, 4), "interpolation": "cubic"}, "cubic specified.*nearest.*lanczos"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        load_img(write_images(tmp_path)["rgb.png"], **arguments)


def test_contents_given_as_a_name(tmp_path: Path):
    with pytest.raises(ValueError, match="BytesIO"):
        load_img(write_images(tmp_path)["rgb.png"].read_bytes())


def test_neither_name_nor_binary_file():
    with pytest.raises(TypeError, match="int"):
        load_img(3)
    with pytest.raises(TypeError, match="binary mode"):
        load_img(io.StringIO("text"))


@pytest.mark.parametrize("dtype", [None, "float16", "float64", "uint8", "int32"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_img_to_array_as_in_keras(keras_image: ModuleType, tmp_path: Path, data_format: str, dtype: str | None):
    for path in write_images(tmp_path).values():
        with Image.open(path) as image:
            if dtype == "float16" and image.mode in ("I", "I;16"):
                continue  # its values do not fit
            image.load()
            ours = img_to_array(image, data_format=data_format, dtype=dtype)
            expected = keras_image.img_to_array(image, data_format=data_format, dtype=dtype)
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


def test_img_to_array_of_something_else():
    with pytest.raises(ValueError, match=r"Unsupported image shape: \(3,\)"):
        img_to_array(np.zeros(3))


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
def test_settings_of_keras_json(keras_home: Path, floatx: str):
    (keras_home / "keras.json").write_text(f'{{"floatx": "{floatx}", "image_data_format": "channels_first"}}')
    array = img_to_array(Image.fromarray(random_pixels(3)))
    assert array.shape == (3, 9, 13)
    assert array.dtype == jnp.dtype(floatx)
    assert array_to_img(array, scale=False).size == SIZE


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_array_to_img_as_in_keras(
    keras_image: ModuleType, data_format: str, channels: int, scale: bool, dtype: str | None
):
    shape = (9, 13, channels) if data_format == "channels_last" else (channels, 9, 13)
    x = np.random.default_rng(0).uniform(0, 255, shape)
    before = x.copy()
    arguments = {"data_format": data_format, "scale": scale, "dtype": dtype}
    assert_same_image(array_to_img(x, **arguments), keras_image.array_to_img(x, **arguments))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("value", [0.0, 7.9, 255.0, 70000.0])
def test_constant_grey_as_in_keras(keras_image: ModuleType, value: float, scale: bool):
    x = np.full((3, 4, 1), value)
    ours = array_to_img(x, scale=scale)
    assert ours.mode == ("I" if value > 255 and not scale else "L")
    assert_same_image(ours, keras_image.array_to_img(x, scale=scale))


def test_integer_type_is_scaled_too():
    x = np.array([[[1], [3]]], "uint8")
    np.testing.assert_array_equal(np.asarray(array_to_img(x, dtype="uint8")), [[0, 255]])


def test_jax_arrays_and_lists():
    x = random_pixels(3)
    expected = array_to_img(x)
    assert_same_image(array_to_img(jnp.asarray(x)), expected)
    assert_same_image(array_to_img(x.tolist()), expected)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 3)])
def test_array_of_wrong_rank(keras_image: ModuleType, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="rank 3") as ours:
        array_to_img(np.zeros(shape))
    with pytest.raises(ValueError, match="rank 3") as keras_own:
        keras_image.array_to_img(np.zeros(shape))
    assert str(ours.value) == str(keras_own.value)


def test_array_with_wrong_channels():
    with pytest.raises(ValueError, match=r"Unsupported channel number: 2 .*\(4, 4, 2\).*1, 3, 4"):
        array_to_img(np.zeros((4, 4, 2)))


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.bmp", "a.gif", "a.webp"])
def test_saved_files_are_those_of_keras(keras_image: ModuleType, tmp_path: Path, name: str, scale: bool):
    ours, expected = tmp_path / "ours" / name, tmp_path / "keras" / name
    for path in (ours, expected):
        path.parent.mkdir()
    save_img(ours, random_pixels(3), scale=scale)
    keras_image.save_img(expected, random_pixels(3), data_format="channels_last", scale=scale)
    assert ours.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_round_trip(tmp_path: Path, channels: int):
    x = random_pixels(channels)
    color_mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[channels]
    for path in (tmp_path / "a.png", str(tmp_path / "b.tif"), os.fsencode(tmp_path / "c.png")):
        save_img(path, x, scale=False)
        np.testing.assert_array_equal(img_to_array(load_img(path, color_mode)), x)


def test_options_reach_pillow(tmp_path: Path):
    for quality in (5, 95):
        save_img(tmp_path / f"{quality}.jpg", random_pixels(3), quality=quality)
    assert (tmp_path / "5.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


@pytest.mark.parametrize("file_format", ["png", "PNG", "jpg", "JPEG", "tif"])
def test_format_given(tmp_path: Path, file_format: str):
    buffer = io.BytesIO()
    save_img(buffer, random_pixels(3), file_format=file_format)
    save_img(tmp_path / "a.bin", random_pixels(3), file_format=file_format)
    assert (tmp_path / "a.bin").read_bytes() == buffer.getvalue()
    assert Image.open(buffer).format == {"jpg": "JPEG", "tif": "TIFF"}.get(file_format, file_format.upper())


def test_open_file_with_a_name(tmp_path: Path):
    with (tmp_path / "a.png").open("wb") as file:
        save_img(file, random_pixels(3))
    assert load_img(tmp_path / "a.png").size == SIZE


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.jpe"])
def test_transparency_in_jpeg(tmp_path: Path, name: str):
    with pytest.warns(UserWarning, match="JPEG format does not support RGBA"):
        save_img(tmp_path / name, random_pixels(4))
    assert load_img(tmp_path / name).size == SIZE


@pytest.mark.parametrize(("name", "file_format"), [("a", None), ("a.xyz", None), ("a.png", "xyz")])
def test_unknown_format(tmp_path: Path, name: str, file_format: str | None):
    with pytest.raises(ValueError, match=r"Cannot tell the image format.*JPEG.*PNG"):
        save_img(tmp_path / name, random_pixels(3), file_format=file_format)
    assert not (tmp_path / name).exists()


def test_pillow_is_imported_late():
    command = "import sys, flaxapps.image; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)
