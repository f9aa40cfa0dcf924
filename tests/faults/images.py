"""Photos that are damaged, odd or hostile, through `flaxapps predict`: the others are predicted as without them."""

import contextlib
import csv
import io
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import flaxapps
from flaxapps import Input, Model, layers
from tests.faults.hdf5_mutations import blocks, cut, lengths, some_bytes
from tests.faults.report import Row, at_most, tally
from tests.places import ROOT

SIZE = 48
LIKE_PIXELS, NAMED = "predicted as its pixels", "named and left out"
Photo = tuple[str, bytes]  # its name's ending, and its bytes


def small_model(path: Path) -> None:
    """A network whose every output depends on every pixel."""
    photo = Input((SIZE, SIZE, 3))
    model = Model(photo, layers.Dense(4, activation="softmax")(layers.Flatten()(photo)), name="small")
    flaxapps.save_model(model, model.init_variables(), path)


def pixels(source: random.Random, mode: str = "RGB") -> Image.Image:
    """A picture with structure: coarse noise, enlarged."""
    coarse = np.frombuffer(source.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def mutated(form: str, source: random.Random) -> Photo:
    """A photo damaged in one of the ways any file can be."""
    content = saved(pixels(source), form)
    return "." + form.lower(), source.choice((some_bytes, blocks, lengths, cut))(content, source)[1]


def large(width: int, height: int) -> bytes:
    """A PNG file of a few kilobytes or megabytes that says it has so many pixels, and has them, all black."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def moving(source: random.Random) -> list[Image.Image]:
    return [pixels(source) for _ in range(3)]


def animated(form: str, source: random.Random, **options: object) -> bytes:
    first, *others = moving(source)
    return saved(first, form, save_all=True, append_images=others, **options)


def sixteen_bits(source: random.Random) -> bytes:
    values = np.frombuffer(source.randbytes(SIZE * SIZE * 2), np.uint16).reshape(SIZE, SIZE)
    return saved(Image.fromarray(values), "PNG")


def turned(source: random.Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, which Keras does not do
    return saved(pixels(source), "JPEG", exif=exif)


def with_transparency(source: random.Random) -> bytes:
    return saved(pixels(source).quantize(16), "PNG", transparency=3)


def truncated(form: str, source: random.Random) -> bytes:
    content = saved(pixels(source), form)
    return content[: len(content) * 2 // 3]


# What is tried: the ending, the bytes, and what should become of it. Pillow's own pixels are what is right.
ODD: dict[str, tuple[str, Callable[[random.Random], bytes], str]] = {
    "a truncated JPEG file": (".jpg", lambda source: truncated("JPEG", source), NAMED),
    "a truncated PNG file": (".png", lambda source: truncated("PNG", source), NAMED),
    "a bomb: 400 million pixels in a PNG file": (".png", lambda source: large(20_000, 20_000), NAMED),
    "a header that says 2**31 by 2**31 pixels": (
        ".png",
        lambda source: large(8, 8).replace(struct.pack(">II", 8, 8), b"\x7f\xff\xff\xff" * 2),
        NAMED,
    ),
    "one pixel high, a million wide": (".png", lambda source: large(1_000_000, 1), LIKE_PIXELS),
    "an animated GIF file": (".gif", lambda source: animated("GIF", source), LIKE_PIXELS),
    "an animated PNG file": (".png", lambda source: animated("PNG", source), LIKE_PIXELS),
    "an animated WebP file": (".webp", lambda source: animated("WEBP", source, lossless=True), LIKE_PIXELS),
    "a JPEG file in CMYK": (".jpg", lambda source: saved(pixels(source, "CMYK"), "JPEG"), LIKE_PIXELS),
    "a grey JPEG file": (".jpg", lambda source: saved(pixels(source, "L"), "JPEG"), LIKE_PIXELS),
    "16-bit grey": (".png", sixteen_bits, LIKE_PIXELS),
    "one bit": (".png", lambda source: saved(pixels(source, "1"), "PNG"), LIKE_PIXELS),
    "a palette with a transparent colour": (".png", with_transparency, LIKE_PIXELS),
    "transparency": (".png", lambda source: saved(pixels(source, "RGBA"), "PNG"), LIKE_PIXELS),
    "a JPEG file to be shown turned (EXIF)": (".jpg", turned, LIKE_PIXELS),
    "no bytes at all": (".jpg", lambda source: b"", NAMED),
    "text named .jpg": (".jpg", lambda source: b"This is no photo.\n" * 100, NAMED),
    "a PNG file named .jpg": (".jpg", lambda source: saved(pixels(source), "PNG"), LIKE_PIXELS),
}


def predictions(folder: Path, model: Path, *options: str) -> tuple[int, dict[str, list[str]], str]:
    """The exit code of `flaxapps predict`, its rows by file name, and what it said."""
    output = folder.with_suffix(".csv")
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flaxapps", "predict", str(folder), "--model", str(model), "--format", "csv"]
    command += ["--output", str(output), "--optimize", "default", "--top", "4", "--preprocess", "tf", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if not output.exists():
        return done.returncode, {}, done.stderr
    found: dict[str, list[str]] = {}
    with output.open(newline="") as file:
        for name, *values in list(csv.reader(file))[1:]:
            found.setdefault(Path(name).name, []).extend(values)
    return done.returncode, found, done.stderr


def outcomes(photos: dict[str, Photo], folder: Path, model: Path) -> Iterator[tuple[str, str]]:
    """What becomes of each photo among ten good ones, beside its pixels as Pillow reads them."""
    source = random.Random(0)
    good = {f"good{number}.png": saved(pixels(source), "PNG") for number in range(10)}
    mixed, plain = folder / "mixed", folder / "plain"
    mixed.mkdir()
    plain.mkdir()
    for number, (ending, content) in enumerate(photos.values()):
        (mixed / f"{number:04}{ending}").write_bytes(content)
        if (reference := read_by_pillow(content)) is not None:
            reference.save(plain / f"{number:04}.png")
    for name, content in good.items():
        (mixed / name).write_bytes(content)
        (plain / name).write_bytes(content)
    code, found, said = predictions(mixed, model)
    _, right, _ = predictions(plain, model)
    left_out = 0
    for number, (label, (ending, _)) in enumerate(photos.items()):
        name = f"{number:04}{ending}"
        if name in found:
            same = found[name] == right.get(f"{number:04}.png")
            yield label, LIKE_PIXELS if same else f"{found[name]}, but its pixels {right.get(f'{number:04}.png')}"
        else:
            left_out += 1
            yield label, NAMED if name in said else f"neither predicted nor named: exit code {code}, {said[-1000:]}"
    kept = all(found.get(name) == right[name] for name in good)
    if not kept or code != bool(left_out):
        yield "the good ones among them", f"exit code {code}, kept {kept}, {said[-1000:]}"


def read_by_pillow(content: bytes) -> Image.Image | None:
    """The pixels, upright and with 8 bits, by Pillow alone; None where it refuses."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        with contextlib.suppress(Exception):  # damaged EXIF is none
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        return image.convert("RGB")
    except Exception:
        return None


def rows(count: int | None) -> Iterator[Row]:
    """What becomes of each kind of photo, and of the batches around it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "small.keras"
        small_model(model)
        for form in ("JPEG", "PNG"):
            source = random.Random(form)
            photos = {f"number {number}": mutated(form, source) for number in range(at_most(250, count))}
            (folder / form).mkdir()
            found = outcomes(photos, folder / form, model)
            yield tally(f"{form} files with bytes changed, left out, doubled, cut", found, {LIKE_PIXELS, NAMED})
        odd = {tried: (ending, content(random.Random(tried))) for tried, (ending, content, _) in ODD.items()}
        (folder / "odd").mkdir()
        for tried, outcome in outcomes(odd, folder / "odd", model):
            yield tally(tried, [(tried, outcome)], {ODD[tried][2]} if tried in ODD else set())
        yield tally("asked to stop at the first", [("", stops(folder, model))], {"stopped, the file named"})


def stops(folder: Path, model: Path) -> str:
    """`--on-error raise`."""
    code, found, said = predictions(folder / "odd" / "mixed", model, "--on-error", "raise")
    named = any(line.startswith("flaxapps: error:") and ".jpg" in line for line in said.splitlines())
    return "stopped, the file named" if code and not found and named else f"exit code {code}, {len(found)} rows, {said}"
