"""Photos that cannot be read are left out of a training, counted and named before it; too many are refused."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from flaxapps import train
from flaxapps.cli.commands import main
from flaxapps.cli.finetune.unreadable import tell_unreadable
from flaxapps.runtime.console import open_console
from flaxapps.runtime.image_files import ImageError, check_header
from tests.flaxapps.cli.test_finetune import write_base, write_photos


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unreadable")
    write_photos(place / "colours", 8)
    write_base(place / "tiny.keras")
    return place


def told(folder: Path) -> str:
    stream = io.StringIO()
    plan = SimpleNamespace(data=train.image_folder(folder, image_size=8, on_error="skip"), validation=None)
    tell_unreadable(open_console(stream, width=400), plan)
    return stream.getvalue()


@pytest.mark.filterwarnings("default:.*left out of this epoch")
def test_the_default_trains_without_broken_photos(intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    photos = tmp_path / "colours"
    shutil.copytree(intact / "colours", photos)
    (photos / "red" / "0.png").write_bytes(b"<html>not found</html>")
    cut = (photos / "blue" / "0.png").read_bytes()
    (photos / "blue" / "0.png").write_bytes(cut[: len(cut) // 2])
    given = ["finetune", photos, "--model", intact / "tiny.keras", "--preprocess", "tf", "--head", 0, "--epochs", 1]
    given += ["--validation-split", 0, "--output"]
    assert main(list(map(str, [*given, tmp_path / "out"]))) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "1 of 24 training photos cannot be read and are left out:" in err
    assert "2 images could not be read and were left out of this epoch" in err  # with the one that is cut short
    assert main(list(map(str, [*given, tmp_path / "strict", "--on-error", "raise"]))) == 1
    last = " ".join(capsys.readouterr().err.split("flaxapps: error: ")[-1].split())
    assert last.startswith("2 of a batch of 24 images cannot be read (on_error='skip', or --on-error skip, leaves")
    assert last.endswith("22 bytes)")  # without Grain's note


def test_too_many_are_refused(intact: Path, tmp_path: Path):
    shutil.copytree(intact / "colours", tmp_path / "colours")
    assert told(tmp_path / "colours") == ""
    for file in (tmp_path / "colours" / "green").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No training photo of green can be read: .*and 5 more"):
        told(tmp_path / "colours")
    for file in (tmp_path / "colours" / "red").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"16 of 24 training photos cannot be read: .*0 bytes"):
        told(tmp_path / "colours")


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_headers(form: str, tmp_path: Path):
    file = tmp_path / "photo"
    Image.new("RGB", (9, 7), "red").save(file, form)
    check_header(file)
    file.write_bytes(file.read_bytes()[:8])
    with pytest.raises(ImageError, match="photo"):
        check_header(file)
