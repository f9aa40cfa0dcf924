"""Photos, models and outputs in a bucket, which here is fsspec's memory behind etils' paths."""

import csv
import importlib.machinery
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import weight_port
from flaxapps import Input, Model, get_model, image, layers, load_model, save_model, train
from flaxapps.cli.commands import main
from flaxapps.cli.models import Recipe, write_recipe
from flaxapps.photos.files import find_photos
from flaxapps.photos.labelled import find_labelled
from flaxapps.photos.photo import AS_LOAD_IMG
from flaxapps.runtime import files as paths
from flaxapps.runtime.files import as_path, in_bucket, local_file, replacing
from tests.arrays import read_npz


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """An empty bucket, as gs://; the objects in it by name."""
    memory = pytest.importorskip("fsspec.implementations.memory", reason="buckets need fsspec")
    epath = pytest.importorskip("etils.epath", reason="buckets need etils")

    class Bucket(memory.MemoryFileSystem):
        protocol = ("gs",)
        store: dict = {}  # noqa: RUF012  (fsspec's own way)
        pseudo_dirs = [""]  # noqa: RUF012  (the same)
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).replace("gs://", "memory://", 1))

    monkeypatch.setattr(type(epath.backend.fsspec_backend), "fs", lambda self, path: Bucket())
    monkeypatch.setattr("fsspec.url_to_fs", lambda path: (Bucket(), path))
    monkeypatch.setattr(epath.gpath, "_is_tf_installed", lambda: False)
    found = importlib.machinery.ModuleSpec("gcsfs", None)
    find = paths.find_spec
    monkeypatch.setattr(paths, "find_spec", lambda name: found if name == "gcsfs" else find(name))
    return Bucket.store


@pytest.fixture
def sent(bucket, tmp_path: Path):
    """A model folder and photos in the bucket, one of them in a folder below, one hidden, one damaged."""
    picture = Input((8, 8, 3))
    model = Model(picture, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(picture)))
    (tmp_path / "model").mkdir()
    save_model(model, model.init_variables(), tmp_path / "model" / "model.keras")
    write_recipe(tmp_path / "model", Recipe("model.keras", ["cup", "fork", "pan"], "tf", AS_LOAD_IMG))
    (tmp_path / "photos" / "below").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("b.png", "c.png", "below/a.png", "._c.png"):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "photos" / "notes.txt").write_text("no photo either")
    for path in sorted(tmp_path.rglob("*.*")):
        with replacing(f"gs://mine/{path.relative_to(tmp_path)}", "wb") as stream:
            stream.write(path.read_bytes())
    return tmp_path


def test_paths_of_this_machine_are_pathlibs():
    for text in ("photos/cat.jpg", "/photos", "a://b", "http://x/y.jpg", Path("x")):
        assert type(as_path(text)) is type(Path())
        assert not in_bucket(text)
        assert local_file(text) == str(text)


@pytest.mark.parametrize(("text", "package"), [("gs://mine/x.jpg", "gcsfs"), ("s3://mine/x.jpg", "s3fs")])
def test_a_missing_package_is_named(text: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys):
    find = paths.find_spec
    monkeypatch.setattr(paths, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ImportError, match=rf"{text} .* needs {package}: pip install etils fsspec {package}"):
        as_path(text)
    assert main(["predict", text, "--model", "vgg16"]) == 1
    assert f"pip install etils fsspec {package}" in capsys.readouterr().err


def test_photos_of_a_bucket(sent):
    found = [str(path) for path in find_photos(["gs://mine/photos"]).photos]
    assert found == [f"gs://mine/photos/{name}" for name in ("b.png", "below/a.png", "broken.jpg", "c.png")]
    ours, theirs = (image.load_img(path) for path in (found[1], sent / "photos/below/a.png"))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert len(find_photos(["gs://mine/photos/b.png", sent / "photos"]).photos) == 5
    with pytest.raises(FileNotFoundError):
        find_photos(["gs://mine/absent"])


def test_files_are_there_as_a_whole_or_not_at_all(bucket):
    def fail():
        with replacing("gs://mine/labels.txt") as stream:
            stream.write("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not bucket
    with replacing("gs://mine/labels.txt") as stream:
        stream.write("Öl\n")
    assert as_path("gs://mine/labels.txt").read_bytes() == "Öl\n".encode()
    with pytest.raises(OSError, match="disk full"):
        fail()
    assert as_path("gs://mine/labels.txt").read_bytes() == "Öl\n".encode()


@pytest.mark.parametrize("form", ["csv", "npz"])
def test_prediction_from_bucket_to_bucket(form: str, sent, bucket, capsys: pytest.CaptureFixture[str]):
    """A run in shards is gone on with, and is what the same files on this machine give."""

    def predict(place: str) -> int:
        command = ["predict", f"{place}/photos", "--model", f"{place}/model", "--format", form, "--shard-size", "2"]
        return main([*command, "--output-folder", f"{place}/out"])

    assert predict("gs://mine") == predict(str(sent)) == 1  # one photo is broken
    name = f"predictions.{form}"
    there, here = (as_path(f"{place}/out") for place in ("gs://mine", sent))
    if form == "csv":
        theirs, ours = ((folder / name).read_bytes().decode().splitlines() for folder in (there, here))
        assert [row.replace("gs://mine", str(sent)) for row in theirs] == ours
        assert len(list(csv.DictReader(ours))) == 9
    else:
        with (there / name).open("rb") as stream:
            np.testing.assert_array_equal(read_npz(stream)["outputs"], read_npz(here / name)["outputs"])
    assert "broken.jpg" in (there / "unreadable.csv").read_bytes().decode()
    for path in (there / name, there / "shards" / f"00001-of-00002.{form}"):
        path.unlink()
    capsys.readouterr()
    assert predict("gs://mine") == 1
    assert "1 of 2 shards are missing" in capsys.readouterr().err
    assert (there / name).exists()
    assert main(["predict", "gs://mine/photos", "--model", "gs://mine/model", "--output", "gs://mine/one.txt"]) == 1
    assert "cup" in as_path("gs://mine/one.txt").read_bytes().decode()


def test_models_of_a_bucket(bucket, tmp_path: Path):
    picture = Input((8, 8, 3))
    model = Model(picture, layers.Dense(3)(layers.Flatten()(picture)), name="one")
    variables = model.init_variables()
    save_model(model, variables, "gs://mine/models/one.keras")
    loaded = load_model("gs://mine/models/one.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4")
    np.testing.assert_array_equal(loaded.model.apply(loaded.variables, x), model.apply(variables, x))
    with pytest.raises(FileNotFoundError):
        load_model("gs://mine/models/absent.keras")
    others = model.init_variables(1)
    save_model(model, others, "gs://mine/models/one.keras")
    loaded = load_model("gs://mine/models/one.keras")
    np.testing.assert_array_equal(loaded.model.apply(loaded.variables, x), model.apply(others, x))


def test_no_checkpoints_where_orbax_writes_none(bucket, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["finetune", str(tmp_path), "--model", "xception", "--output", "s3://mine/run"]) == 1
    assert "Orbax cannot write checkpoints to s3://, got s3://mine/run" in capsys.readouterr().err


def test_weights_of_a_bucket(bucket, tmp_path: Path):
    options = {"include_top": False, "input_shape": (48, 48, 3), "data_format": "channels_last"}
    network = get_model("vgg16", weights=None, **options)
    weight_port.save_weights(tmp_path / "own.weights.h5", *network)
    with replacing("gs://mine/own.weights.h5", "wb") as stream:
        stream.write((tmp_path / "own.weights.h5").read_bytes())
    loaded = get_model("vgg16", weights="gs://mine/own.weights.h5", **options)
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.variables), dict(network.variables))
    with pytest.raises(ValueError, match="path to the weights file"):
        get_model("vgg16", weights="gs://mine/none.weights.h5", **options)


@pytest.fixture
def classes(bucket, tmp_path: Path) -> Path:
    """A folder for each class, one with folders of its own; on this machine and in the bucket."""
    random = np.random.default_rng(1)
    for name in ("cup/2.png", "cup/old/1.png", "fork/3.png", "fork/.hidden/4.png", "pan/b/5.png", "pan/a.png"):
        path = tmp_path / "labelled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        with replacing(f"gs://mine/labelled/{name}", "wb") as stream:
            stream.write(path.read_bytes())
    return tmp_path / "labelled"


def test_training_photos_of_a_bucket(classes):
    """The same files in the same order, with the same fingerprint, as Keras orders them on a disk."""
    here, there = (train.image_folder(place, image_size=(8, 8)) for place in (classes, "gs://mine/labelled"))
    assert there.files == here.files == ["cup/2.png", "cup/old/1.png", "fork/3.png", "pan/a.png", "pan/b/5.png"]
    assert there.manifest() == here.manifest()
    assert there.fingerprint == here.fingerprint
    for ours, theirs in zip(
        next(iter(there.batches(5, seed=None))), next(iter(here.batches(5, seed=None))), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("table", ["gs://mine/labelled/table.csv", "table.csv"])
def test_tables_in_a_bucket_and_of_a_bucket(table: str, classes, monkeypatch: pytest.MonkeyPatch):
    """A table on this machine, with photos in a bucket, is what Google's services read and write."""
    monkeypatch.chdir(classes)
    begin = "" if in_bucket(table) else "gs://mine/labelled/"
    with replacing(table) as stream:
        stream.write(f"{begin}cup/2.png,cup\n{begin}pan/a.png,pan\n")
    data = train.image_table(table, image_size=(8, 8))
    here = train.image_folder(classes, image_size=(8, 8), class_names=["cup", "pan"])
    images, labels = next(iter(data.batches(2, seed=None)))
    np.testing.assert_array_equal(images, next(iter(here.batches(4, seed=None)))[0][[0, 2]])
    assert labels.tolist() == [0, 1]
    assert [str(photo.path) for photo in find_labelled(table)] == [
        f"gs://mine/labelled/{name}" for name in ("cup/2.png", "pan/a.png")
    ]
    with replacing(table) as stream:
        stream.write(f"{begin}cup/2.png,cup\n{begin}pan/none.png,pan\n")
    with pytest.raises(ValueError, match=r"line 2: there is no file gs://mine/labelled/pan/none\.png"):
        train.image_table(table, image_size=(8, 8))


def test_evaluation_of_a_bucket(sent, classes, capsys: pytest.CaptureFixture[str]):
    results = []
    for place in ("gs://mine/model", "gs://mine/labelled"), (sent / "model", classes):
        model, data = map(str, place)
        assert main(["evaluate", data, "--model", model, "--format", "json"]) == 0
        results.append(capsys.readouterr().out)
    assert results[0] == results[1]
    assert '"photos": 5' in results[0]
