"""`flaxapps finetune` from a bucket to a bucket: gcsfs, tensorstore and Orbax against a server on this machine."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import jax
import numpy as np
import pytest

from flaxapps import load_model
from tests.flaxapps.cli.test_finetune import command, write_base, write_photos
from tests.processes import run, started

pytest.importorskip("gcp_storage_emulator", reason="a bucket needs gcp-storage-emulator and gcsfs")
pytest.importorskip("gcsfs", reason="a bucket needs gcp-storage-emulator and gcsfs")

from tests.bucket_server import bucket_server

pytestmark = pytest.mark.slow

OPTIONS = ("--checkpoint-every", 1, "--epochs", 2, "--tensorboard")
PROGRAM = ("-m", "flaxapps")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and a model on this machine."""
    folder = tmp_path_factory.mktemp("files")
    write_photos(folder / "colours")
    write_base(folder / "tiny.keras")
    return folder


@pytest.fixture
def read(files: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The same in gs://mine, for processes that are started; reads an object, or tells that there is none."""
    with bucket_server("mine") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        address = environment["STORAGE_EMULATOR_HOST"]
        for path in filter(Path.is_file, files.rglob("*")):
            name = quote(str(path.relative_to(files)), safe="")
            place = f"{address}/upload/storage/v1/b/mine/o?uploadType=media&name={name}"
            urlopen(Request(place, path.read_bytes(), method="POST"))

        def contents(name: str) -> bytes | None:
            try:
                with urlopen(f"{address}/storage/v1/b/mine/o/{quote(name, safe='')}?alt=media") as answer:
                    return bytes(answer.read())
            except HTTPError:
                return None

        yield contents


def test_a_killed_run_goes_on_from_the_bucket(files: Path, read: Callable[[str], bytes | None], tmp_path: Path):
    """Two processes are killed in the second phase; one with another number of devices ends what they began."""
    alone, bucket = tmp_path / "alone", "gs://mine"
    run([*PROGRAM, *command(files / "colours", files / "tiny.keras", alone, *OPTIONS)], 1, devices=4)
    whole = [*PROGRAM, *command(f"{bucket}/colours", f"{bucket}/tiny.keras", f"{bucket}/run", *OPTIONS)]
    with started(whole, 2, devices=2, output=subprocess.DEVNULL) as running:
        while read("run/top/1/commit_success.txt") is None:
            assert all(process.poll() is None for process in running)
            time.sleep(0.05)
    assert read("run/last.keras") is None
    (said,) = run([*PROGRAM, "finetune", "--resume", "--output", f"{bucket}/run"], 1, devices=1, timeout=200)
    assert f"Next: flaxapps predict PHOTOS --model {bucket}/run" in said
    (tmp_path / "last.keras").write_bytes(read("run/last.keras") or b"")
    models = [load_model(folder / "last.keras").variables for folder in (tmp_path, alone)]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), *models)
    for name in ("curves.png", "confusion.png", "history.csv", "recipe.json", "class_names.json"):
        assert len(read(f"run/{name}") or b"") > 20, name
    (said,) = run([*PROGRAM, "predict", f"{bucket}/colours/red", "--model", f"{bucket}/run"], 1, devices=1)
    assert "gs://mine/colours/red/9.png" in said
