"""Predictions of a folder in shards: by one process or several, interrupted, gone on with, refused."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import flaxapps.cli.predict.command
from flaxapps import Input, Model, layers, save_model
from flaxapps.cli.commands import main
from flaxapps.cli.predict.files import PredictedFile
from flaxapps.cli.predict.shards import Shards, shard_size
from flaxapps.photos.files import find_photos
from tests.arrays import read_npz

CLASSES, SIZE = 4, 8
FORMATS = ("csv", "jsonl", "npz")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.keras"
    image = Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(5, 3, activation="relu")(image))
    model = Model(image, layers.Dense(CLASSES, activation="softmax")(x), name="small")
    save_model(model, model.init_variables(), path)
    return path


def write_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    values = np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    for number, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 photos: with 32 in a shard, three shards of which the last is short."""
    return write_photos(tmp_path_factory.mktemp("photos") / "all", 75)


@pytest.fixture
def predict(model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object, folder: Path = photos, more: tuple[Path, ...] = ()) -> tuple[int, str, str]:
        command = ["predict", folder, *more, "--model", model_file, "--preprocess", "tf", *arguments]
        code = main([str(argument) for argument in command])
        return code, *capsys.readouterr()

    return run


def names_in(path: Path) -> list[str]:
    return [Path(name).name for name in PredictedFile(path.suffix[1:]).files_in(path)]


def shards_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").iterdir())


@pytest.mark.parametrize("form", FORMATS)
def test_parts_of_two_processes_are_what_one_file_has(form: str, predict, photos: Path, tmp_path: Path):
    one, out = tmp_path / f"one.{form}", tmp_path / "out"
    assert predict("--format", form, "--output", one) == (0, "", "")
    options = ("--format", form, "--output-folder", out, "--num-processes", 2)
    code, said, _ = predict(*options, "--process-id", 1)  # alone, it does what the other has not done
    assert (code, said) == (0, f"{out / f'predictions.{form}'}\n")
    assert shards_in(out) == [f"{number:05}-of-00003.{form}" for number in range(3)]
    joined = out / f"predictions.{form}"
    assert names_in(joined) == names_in(one) == [path.name for path in find_photos([photos]).photos]
    if form == "npz":
        ours, theirs = read_npz(joined), read_npz(one)
        for name in ("files", "outputs"):
            np.testing.assert_array_equal(ours[name], theirs[name])
    else:
        assert joined.read_bytes() == one.read_bytes()
    before = joined.stat().st_mtime_ns
    assert predict(*options, "--process-id", 0) == (0, f"{joined}\n", "")  # nothing is left to do
    assert joined.stat().st_mtime_ns == before


def test_each_process_makes_its_own_parts_first(tmp_path: Path):
    folder = Shards(tmp_path, PredictedFile("csv"), [tmp_path / f"{number}.png" for number in range(10)], 1)
    (tmp_path / "shards").mkdir()
    works = [folder.work(process, 3) for process in range(3)]
    done = []
    for _ in range(3):  # in turns, as if all were as fast
        for work in works:
            done.append(next(work))
            folder.path(done[-1]).touch()
    assert sorted(done) == list(range(9))
    assert next(works[1]) == 9  # not its own, but not there either
    assert list(works[1]) == []
    folder.path(9).touch()
    assert list(works[0]) == list(works[2]) == []


def test_processes_that_are_gone_are_replaced_from_the_end(tmp_path: Path):
    folder = Shards(tmp_path, PredictedFile("csv"), [tmp_path / f"{number}.png" for number in range(9)], 1)
    (tmp_path / "shards").mkdir()
    done = []
    for number in folder.work(0, 2):
        folder.path(number).touch()
        done.append(number)
    assert done == [0, 2, 4, 6, 8, 7, 5, 3, 1]


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (5, 3), (75, 7), (100, 1)])
def test_any_number_of_processes_leaves_nothing(count: int, processes: int, tmp_path: Path):
    folder = Shards(tmp_path, PredictedFile("csv"), [tmp_path / str(number) for number in range(count)], 3)
    (tmp_path / "shards").mkdir()
    for number in folder.work(processes - 1, processes):
        assert not folder.path(number).exists()
        folder.path(number).touch()
    assert folder.missing() == []
    assert [path for number in range(folder.count) for path in folder.photos_of(number)] == folder.photos


def test_part_sizes_fit_batches():
    for count in (1, 31, 33, 10_000, 99_999, 10_000_000):
        assert shard_size(count) % 32 == 0
        assert 32 <= shard_size(count) <= 1024


@pytest.mark.parametrize("form", FORMATS)
def test_an_interrupted_run_goes_on(form: str, predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped while it writes: neither the shard nor what it was to replace is half there."""
    out = tmp_path / "out"
    options = ("--format", form, "--output-folder", out, "--shard-size", 16)
    write = PredictedFile.write
    written = []

    def fail_at_the_third(self, stream, files, outputs):
        if len(written) == 2:
            stream.write(b"half of it" if form == "npz" else "half of it")
            raise OSError("disk full")
        written.append([path.name for path in files])
        write(self, stream, files, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(PredictedFile, "write", fail_at_the_third)
        assert predict(*options) == (1, "", "flaxapps: error: disk full\n")
    assert shards_in(out) == [f"{number:05}-of-00005.{form}" for number in (0, 1)]
    assert not (out / f"predictions.{form}").exists()
    stamps = [(out / "shards" / name).stat().st_mtime_ns for name in shards_in(out)]
    code, _, err = predict(*options)
    assert (code, err) == (0, "flaxapps: 3 of 5 shards are missing\n")
    assert [(out / "shards" / name).stat().st_mtime_ns for name in shards_in(out)[:2]] == stamps
    assert names_in(out / f"predictions.{form}") == [f"{number:03}.png" for number in range(75)]


def test_another_run_is_refused_with_the_difference(predict, photos: Path, tmp_path: Path, model_file: Path):
    folder = write_photos(tmp_path / "photos", 5)
    out = tmp_path / "out"
    options = ("--format", "jsonl", "--output-folder", out)
    assert predict(*options, folder=folder)[0] == 0
    before = (out / "predictions.jsonl").read_bytes()

    def refused(*more: object, folder: Path = folder) -> str:
        code, said, err = predict(*options, *more, folder=folder)
        assert (code, said) == (1, "")
        assert "give another --output-folder" in err
        assert (out / "predictions.jsonl").read_bytes() == before
        return err

    assert "format: was jsonl, 5 classes, names by default, is jsonl, 2 classes" in refused("--top", 2)
    assert "resizing: was bilinear, is nearest" in refused("--interpolation", "nearest")
    assert "preprocessing: was tf, is caffe" in refused("--preprocess", "caffe")
    assert "photos in a shard: was 32, is 16" in refused("--shard-size", 16)
    image = Input((SIZE, SIZE, 3))
    other = Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(image)))
    save_model(other, other.init_variables(), tmp_path / "other.keras")
    assert "model: was " in refused("--model", tmp_path / "other.keras")
    (folder / "new.png").write_bytes((photos / "000.png").read_bytes())
    assert f"file {folder / 'new.png'}: is new" in refused()
    (folder / "new.png").unlink()
    (folder / "000.png").unlink()
    assert f"file {folder / '000.png'}: was " in refused()


def test_unreadable_photos_are_listed_once(predict, tmp_path: Path):
    """Where shards begin and end as well, and a whole shard of them; they are not tried again."""
    folder = write_photos(tmp_path / "photos", 12)
    for number in (0, 3, 4, 5, 6, 7, 11):
        (folder / f"{number:03}.png").write_bytes(b"no photo")
    out = tmp_path / "out"
    options = ("--format", "csv", "--top", 1, "--output-folder", out, "--shard-size", 4, "--batch-size", 3)
    code, _, err = predict(*options, folder=folder)
    assert code == 1
    assert err.splitlines()[-1] == "flaxapps: 7 of 12 photos could not be read"
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [Path(row["file"]).name for row in rows] == [f"{number:03}.png" for number in (1, 2, 8, 9, 10)]
    listed = [Path(row["file"]).name for row in csv.DictReader((out / "unreadable.csv").read_text().splitlines())]
    assert listed == [f"{number:03}.png" for number in (0, 3, 4, 5, 6, 7, 11)]
    code, _, err = predict(*options, folder=folder)
    assert (code, err) == (1, "flaxapps: 7 of 12 photos could not be read\n")


def test_a_damaged_part_is_told_and_made_again(predict, tmp_path: Path):
    out = tmp_path / "out"
    options = ("--format", "jsonl", "--output-folder", out)
    assert predict(*options)[0] == 0
    whole = (out / "predictions.jsonl").read_bytes()
    shard = out / "shards" / "00001-of-00003.jsonl"
    for contents in (shard.read_bytes()[:-30], b"".join(shard.read_bytes().splitlines(keepends=True)[:-1])):
        (out / "predictions.jsonl").unlink()
        shard.write_bytes(contents)
        code, _, err = predict(*options)
        assert code == 1
        assert str(shard) in err
        assert not (out / "predictions.jsonl").exists()
        shard.unlink()
        assert predict(*options)[0] == 0
        assert (out / "predictions.jsonl").read_bytes() == whole


def test_features_of_a_layer(predict, model_file: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    options = ("--format", "npz", "--layer", "pool", "--output-folder", out)
    assert predict(*options)[0] == 0
    outputs = read_npz(out / "predictions.npz")["outputs"]
    model, variables = flaxapps.load_model(model_file)
    pool = Model(model.input, model.get_layer("pool").output)
    images = np.stack([np.asarray(Image.open(path)) for path in find_photos([photos]).photos]).astype("f4") / 127.5 - 1
    np.testing.assert_allclose(outputs, jax.jit(pool.apply)(variables, images), rtol=1e-4, atol=1e-5)
    assert predict("--format", "npz", "--layer", "conv2d", "--output", tmp_path / "maps.npz")[0] == 0
    assert read_npz(tmp_path / "maps.npz")["outputs"].shape == (75, SIZE - 2, SIZE - 2, 5)


def test_no_join(predict, tmp_path: Path):
    assert predict("--format", "csv", "--output-folder", tmp_path / "out", "--no-join") == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json.gz", "shards"]
    assert predict("--format", "csv", "--output-folder", tmp_path / "out")[0] == 0  # joins what is there
    assert len(names_in(tmp_path / "out" / "predictions.csv")) == 75


def test_a_photo_named_twice_is_predicted_once(predict, photos: Path, tmp_path: Path):
    options = ("--format", "csv", "--output-folder", tmp_path / "out")
    assert predict(*options, more=(photos / "003.png", photos))[0] == 0
    assert len(names_in(tmp_path / "out" / "predictions.csv")) == 75


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output-folder", "out", "--output", "out.csv"), "give one"),
        (("--format", "npz"), "npz cannot be printed"),
        (("--layer", "pool"), "--layer needs --format npz"),
        (("--output-folder", "out"), "needs --format csv, jsonl or npz"),
        (("--num-processes", "2"), "need --output-folder"),
        (("--distributed",), "need --output-folder"),
        (("--output-folder", "out", "--format", "csv", "--distributed", "--process-id", "1"), "one or the other"),
        (
            ("--format", "csv", "--output-folder", "out", "--process-id", "2", "--num-processes", "2"),
            "from 0 to 1, got 2",
        ),
    ],
)
def test_options_that_do_not_fit(options: tuple[str, ...], words: str, predict, tmp_path: Path):
    options = tuple(str(tmp_path / option) if option == "out" else option for option in options)
    code, out, err = predict(*options)
    assert (code, out) == (1, "")
    assert words in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_five_hundred_photos_by_two_processes_one_killed_twice(model_file: Path, tmp_path: Path):
    """At random moments, while the other goes on: every photo once, with the numbers of a run of one process."""
    photos = write_photos(tmp_path / "photos", 500)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    environment |= {"JAX_PLATFORMS": "cpu", "KERAS_HOME": str(tmp_path / "home")}

    def start(out: Path, process: int, processes: int) -> subprocess.Popen:
        command = ["predict", photos, "--model", model_file, "--preprocess", "tf", "--format", "jsonl"]
        command += ["--shard-size", 4, "--batch-size", 4, "--output-folder", out]
        command += ["--process-id", process, "--num-processes", processes]
        return subprocess.Popen([sys.executable, "-m", "flaxapps", *map(str, command)], env=environment)

    def made(out: Path) -> int:
        return len(list((out / "shards").iterdir())) if (out / "shards").exists() else 0

    def kill_at_random(process: subprocess.Popen) -> None:
        wanted = made(out) + choose.randint(1, 25)
        while made(out) < wanted:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    choose, out = random.Random(5), tmp_path / "out"
    kill_at_random(start(out, 1, 2))
    assert 0 < made(out) < 125
    other = start(out, 0, 2)
    kill_at_random(start(out, 1, 2))
    assert [process.wait(120) for process in (start(out, 1, 2), other)] == [0, 0]

    assert start(tmp_path / "whole", 0, 1).wait(120) == 0
    text = (out / "predictions.jsonl").read_text()
    names = [json.loads(line)["file"] for line in text.splitlines()]
    assert names == [str(path) for path in sorted(photos.iterdir())]
    assert text == (tmp_path / "whole" / "predictions.jsonl").read_text()


@pytest.mark.slow
def test_slurm_says_which_process_it_is(model_file: Path, photos: Path, tmp_path: Path):
    """Two processes that Slurm has started, as far as they can see; only the first one prints."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2"}
    environment |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"}
    command = ["predict", photos, "--model", model_file, "--preprocess", "tf", "--format", "csv", "--shard-size", 8]
    command += ["--output-folder", tmp_path / "out", "--distributed"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "flaxapps", *map(str, command)],
            env=environment | {"SLURM_PROCID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs == [f"{tmp_path / 'out' / 'predictions.csv'}\n", ""]
    assert names_in(tmp_path / "out" / "predictions.csv") == [path.name for path in find_photos([photos]).photos]
