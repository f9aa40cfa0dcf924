"""The command line, run in this process on small models that Keras wrote."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from PIL import Image

import flaxapps.cli.models
import flaxapps.cli.predict.files
import flaxapps.cli.predict.stream
from flaxapps import Input, Model, get_model, layers, list_models, load_exported, load_model, save_model
from flaxapps.applications.imagenet_utils import class_names
from flaxapps.cli.commands import main
from weight_port import WeightError, save_weights
from weight_port.published import published_file

CLASSES = 4

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it saves


def write_keras_model(path: Path, size: int | None = 8, channels: int = 3, classes: int = CLASSES, name: str = "tiny"):
    import keras

    with jax.numpy_dtype_promotion("standard"):
        keras.utils.set_random_seed(0)
        image = keras.Input((size, size, channels))
        features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3, activation="relu")(image))
        model = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(features), name=name)
        model.save(path)
    return model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    write_keras_model(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """b.png, a.jpg below a folder, and files that are no photos."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    random = np.random.default_rng(0)
    for name in ("b.png", "below/a.JPG", "c.png"):
        Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / name)
    (folder / "._b.png").write_text("what another system leaves beside a photo")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def predict(run, tiny: Path):
    """Runs `flaxapps predict` on the tiny model."""
    return lambda *arguments: run("predict", *arguments, "--model", tiny, "--preprocess", "none")


def read_json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_names_every_network(run):
    code, out, _ = run("list")
    assert code == 0
    for name in list_models():
        assert re.search(rf"^ *{name} ", out, re.MULTILINE)
    assert "arxiv.org/abs/1512.03385" in out
    assert "CC BY 4.0 (Oxford VGG)" in out


def test_list_of_some_networks(run):
    code, out, _ = run("list", "ResNet*V2")
    assert code == 0
    assert re.findall(r"^ *(\w+) +ResNet", out, re.MULTILINE) == ["resnet50v2", "resnet101v2", "resnet152v2"]
    code, out, _ = run("list", "mobilenet_v*")
    assert re.search(r"mobilenet_v2 .*\n +\n +mobilenet_v3", out)  # families apart
    check_error(run("list", "swin*"), "No network fits 'swin*'")


def test_names_in_other_spellings(run):
    assert run("summary", "MobileNetV2") == run("summary", "mobilenet-v2") == run("summary", "mobilenet_v2")
    code, out, _ = run("info", "MobileNetV2")
    assert code == 0
    assert "0.35_96" in out


def test_info_tells_what_is_cached(run, keras_home: Path):
    file = published_file("resnet50", include_top=False)
    code, out, _ = run("info", "resnet50")
    assert code == 0
    assert file.url in out
    assert file.md5 in out
    assert 'with the classifier, variant="keras2"' in out
    assert out.count("in the cache   no") == 4
    cached = keras_home / "models" / file.filename
    cached.parent.mkdir()
    with cached.open("wb") as stream:
        stream.truncate(file.size)
    assert f"in the cache   {cached}" in run("info", "resnet50")[1]


def test_summary_of_a_network_makes_no_weights(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flaxapps.model.Model.init_variables", None)
    code, out, _ = run("summary", "vgg16", "--no-top", "--input-shape", 64, 96)
    assert code == 0
    assert "(None, 2, 3, 512)" in out
    assert "predictions" not in out
    assert "138,357,544" in run("summary", "vgg16")[1]


def test_summary_of_a_file(run, tiny: Path):
    code, out, _ = run("summary", tiny)
    assert code == 0
    assert "Conv2D" in out
    code, _, err = run("summary", tiny, "--no-top")
    assert code == 1
    assert "--no-top" in err


def test_export_of_a_file(run, tiny: Path, tmp_path: Path):
    output = tmp_path / "tiny.stablehlo"
    code, out, _ = run(
        "export", tiny, "--output", output, "--image-dtype", "uint8", "--preprocess", "tf", "--weights-beside"
    )
    assert (code, out) == (0, f"{output} is written, for cpu, cuda, tpu\n")
    network = load_exported(output)
    assert network.lowered.platforms == ("cpu", "cuda", "tpu")
    photos = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    model, variables = load_model(tiny)
    expected = model.apply(variables, photos.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(network(photos), expected, rtol=1e-5)


@pytest.mark.slow
def test_export_of_a_network(run, tmp_path: Path):
    """With a weight file of its own, without the classifier, for one platform."""
    network = get_model("vgg16", weights=None, include_top=False)
    save_weights(tmp_path / "vgg16.weights.h5", *network)
    options = ("--no-top", "--input-shape", 64, 48, "--weights", tmp_path / "vgg16.weights.h5", "--platforms", "tpu")
    code, _, err = run("export", "vgg16", "--output", tmp_path / "vgg16.stablehlo", *options)
    assert (code, err) == (0, "")
    lowered = jax.export.deserialize(bytearray((tmp_path / "vgg16.stablehlo").read_bytes()))
    assert lowered.platforms == ("tpu",)
    assert [str(each.shape) for each in (*lowered.in_avals, *lowered.out_avals)] == [
        "(batch, 64, 48, 3)",
        "(batch, 2, 1, 512)",
    ]


def test_export_says_what_is_wrong(run, tiny: Path, tmp_path: Path):
    output = tmp_path / "tiny.stablehlo"
    for options, words in (
        (("--no-top",), "--no-top"),
        (("--preprocess", "auto"), "--preprocess caffe, tf, torch, rescale"),
        (("--image-dtype", "text"), "dtype should be numeric"),
        (("--dtype", "uint8"), "give --image-dtype uint8 for the images"),
        (("--layer", "nope"), "No layer is called 'nope'"),
    ):
        code, _, err = run("export", tiny, "--output", output, *options)
        assert code == 1
        assert words in err
    assert not output.exists()


def test_json_lines_are_what_keras_predicts(predict, tiny: Path, photos: Path):
    import keras

    code, out, err = predict(photos, "--format", "jsonl", "--top", 9)
    assert (code, err) == (0, "")
    rows = read_json_lines(out)
    files = [Path(row["file"]) for row in rows]
    assert files == [photos / "b.png", photos / "below" / "a.JPG", photos / "c.png"]
    batch = np.stack([np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR)) for file in files])
    with jax.numpy_dtype_promotion("standard"):
        expected = keras.saving.load_model(tiny).predict(batch.astype("float32"), verbose=0)
    for row, scores in zip(rows, expected, strict=True):
        found = {entry["label"]: entry["score"] for entry in row["predictions"]}
        assert list(found.values()) == sorted(found.values(), reverse=True)
        np.testing.assert_allclose([found[f"class_{index}"] for index in range(CLASSES)], scores, rtol=1e-4, atol=1e-6)


def test_csv(predict, photos: Path, tmp_path: Path):
    labels = tmp_path / "labels.txt"
    labels.write_text("red, green\nblue\nÖl 油\n[bold]\n", encoding="utf-8")
    code, out, _ = predict(photos / "b.png", "--format", "csv", "--labels", labels, "--top", 4)
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    assert list(rows[0]) == ["file", "rank", "label", "score"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["label"] for row in rows} == {"red, green", "blue", "Öl 油", "[bold]"}
    assert sum(float(row["score"]) for row in rows) == pytest.approx(1)


def test_table_shows_names_as_they_are(predict, photos: Path, tmp_path: Path):
    photo = tmp_path / "[red]cat:smile:.png"
    photo.write_bytes((photos / "b.png").read_bytes())
    code, out, _ = predict(photo, photos / "c.png", "--top", 2)
    assert code == 0
    assert "[red]cat:smile:.png" in out.replace("\n", "")
    assert len(re.findall(r"class_\d +\d\.\d{4}", out)) == 4


@pytest.mark.parametrize(
    "content", ['["a", "b", "c", "d"]', '{"3": "d", "0": "a", "1": "b", "2": "c"}'], ids=["list", "object"]
)
def test_labels_in_json(content: str, predict, photos: Path, tmp_path: Path):
    labels = tmp_path / "labels.json"
    labels.write_text(content)
    _, by_number, _ = predict(photos / "b.png", "--format", "csv")
    _, by_name, _ = predict(photos / "b.png", "--format", "csv", "--labels", labels)
    for index, name in enumerate("abcd"):
        by_number = by_number.replace(f",class_{index},", f",{name},")
    assert by_name == by_number


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", "one\ntwo\n", "2 labels for the 4 classes of 'tiny'"),
        ("labels.json", '{"a": 0}', "not a list of labels"),
        ("labels.json", "[1, 2, 3, 4]", "should hold a list of names"),
        ("labels.json", "cat", "not a list of labels"),
    ],
)
def test_bad_labels(name: str, content: str, message: str, predict, photos: Path, tmp_path: Path):
    (tmp_path / name).write_text(content)
    code, out, err = predict(photos, "--labels", tmp_path / name)
    assert (code, out) == (1, "")
    assert message in err


def test_a_thousand_classes_are_those_of_imagenet(run, photos: Path, tmp_path: Path):
    write_keras_model(tmp_path / "thousand.keras", classes=1000)
    arguments = ("--model", tmp_path / "thousand.keras", "--preprocess", "torch", "--top", 1)
    _, out, _ = run("predict", photos / "b.png", *arguments, "--format", "jsonl")
    (best,) = read_json_lines(out)[0]["predictions"]
    assert (best["wnid"], best["label"]) in class_names()
    _, out, _ = run("predict", photos / "b.png", *arguments, "--format", "csv")
    assert out.splitlines()[0] == "file,rank,wnid,label,score"


def test_any_size_and_any_order_of_batches(run, photos: Path, tmp_path: Path):
    write_keras_model(tmp_path / "free.keras", size=None)
    arguments = ("predict", photos, "--model", tmp_path / "free.keras", "--preprocess", "tf", "--format", "csv")
    code, _, err = run(*arguments)
    assert code == 1
    assert "--size HEIGHT WIDTH" in err
    code, out, _ = run(*arguments, "--size", 9, 12)
    assert code == 0
    assert run(*arguments, "--size", 9, 12, "--interpolation", "lanczos")[1] == out  # the photos are of this size
    assert run(*arguments, "--size", 6, 6)[1] != out
    two_by_two = run(*arguments, "--size", 9, 12, "--batch-size", 2)[1]
    for row, expected in zip(csv.DictReader(two_by_two.splitlines()), csv.DictReader(out.splitlines()), strict=True):
        assert float(row.pop("score")) == pytest.approx(float(expected.pop("score")), rel=1e-5)
        assert row == expected


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels: int, run, photos: Path, tmp_path: Path):
    write_keras_model(tmp_path / "model.keras", channels=channels)
    assert run("predict", photos, "--model", tmp_path / "model.keras", "--preprocess", "none")[0] == 0


def test_keras_json_does_not_matter(predict, photos: Path, keras_home: Path):
    _, expected, _ = predict(photos, "--format", "csv")
    (keras_home / "keras.json").write_text('{"image_data_format": "channels_first"}')
    assert predict(photos, "--format", "csv") == (0, expected, "")


def test_other_weights_for_a_file(run, predict, tiny: Path, photos: Path, tmp_path: Path):
    import keras

    with jax.numpy_dtype_promotion("standard"):
        model = keras.saving.load_model(tiny)
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        model.save_weights(tmp_path / "zero.weights.h5")
    code, out, _ = predict(photos / "b.png", "--weights", tmp_path / "zero.weights.h5", "--format", "csv")
    assert code == 0
    assert {row["score"] for row in csv.DictReader(out.splitlines())} == {"0.25"}


@pytest.mark.slow
def test_a_network_by_name_with_weights_of_a_file(run, photos: Path, tmp_path: Path, keras_home: Path):
    import keras

    from flaxapps.resnet50 import preprocess_input

    with jax.numpy_dtype_promotion("standard"):
        keras.utils.set_random_seed(1)
        model = keras.applications.ResNet50(weights=None)
        model.save_weights(tmp_path / "resnet50.weights.h5")
        photo = np.asarray(Image.open(photos / "b.png").resize((224, 224), Image.Resampling.BILINEAR))
        expected = model.predict(preprocess_input(photo[None].astype("float32")), verbose=0)[0]
    (keras_home / "keras.json").write_text('{"image_data_format": "channels_first"}')
    arguments = ("--model", "resnet50", "--weights", tmp_path / "resnet50.weights.h5", "--top", 3, "--format", "jsonl")
    code, out, err = run("predict", photos / "b.png", *arguments)
    assert (code, err) == (0, "")
    best = read_json_lines(out)[0]["predictions"]
    order = expected.argsort()[::-1][:3]
    assert [entry["wnid"] for entry in best] == [class_names()[index][0] for index in order]
    np.testing.assert_allclose([entry["score"] for entry in best], expected[order], rtol=1e-4)


def test_output_is_written_as_a_whole_or_not_at_all(
    predict, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "folder" / "labels.csv"
    code, _, err = predict(photos, "--format", "csv", "--output", output)
    assert code == 1
    assert "folder: No such folder" in err
    output.parent.mkdir()
    code, out, _ = predict(photos, "--format", "csv", "--output", output)
    assert (code, out) == (0, "")
    written = output.read_text()
    assert len(written.splitlines()) == 1 + 3 * CLASSES

    def fail(stream, *_):
        stream.write("half of it")
        raise OSError("disk full")

    monkeypatch.setattr(flaxapps.cli.predict.files, "_write_table", fail)
    code, _, err = predict(photos, "--output", output)
    assert (code, err) == (1, "flaxapps: error: disk full\n")
    assert output.read_text() == written
    assert list(output.parent.iterdir()) == [output]


def test_output_to_a_device_leaves_the_device(predict, photos: Path):
    assert predict(photos, "--output", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


def test_unreadable_photos_are_named_and_counted(predict, photos: Path, tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "half.png").write_bytes((photos / "b.png").read_bytes()[:200])
    (tmp_path / "good.png").write_bytes((photos / "b.png").read_bytes())
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, out, err = predict(tmp_path, photos / "c.png", "--format", "jsonl", "--batch-size", 2)
    assert code == 1
    assert [Path(row["file"]).name for row in read_json_lines(out)] == ["good.png", "c.png"]
    lines = err.splitlines()
    assert [re.search(r"cannot read .*/(\w+\.\w+):", line)[1] for line in lines[:-1]] == [
        "empty.jpg",
        "gone.png",
        "half.png",
    ]
    assert lines[-1] == "flaxapps: 3 of 5 photos could not be read"


def test_only_unreadable_photos(predict, tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    for form, expected in {"table": "", "jsonl": "", "csv": "file,rank,label,score\n"}.items():
        code, out, err = predict(tmp_path, "--format", form)
        assert (code, out) == (1, expected)
        assert err.endswith("1 of 1 photos could not be read\n")


def check_error(result: tuple[int, str, str], message: str) -> None:
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("flaxapps: error: ")
    assert message in err


def test_errors_are_one_line(run, predict, tiny: Path, photos: Path, tmp_path: Path):
    check_error(run("info", "alexnet"), "No network is called 'alexnet'")
    check_error(run("summary", "absent.keras"), "'absent.keras' is neither a network of `flaxapps list` nor a file")
    check_error(run("summary", "mobilnet"), "nor a file. Did you mean 'mobilenet'?")
    check_error(predict("absent.jpg"), "absent.jpg: No such file or directory")
    check_error(predict(tmp_path), f"There are no images in {tmp_path}")
    check_error(run("predict", photos, "--model", "alexnet"), "neither a network of `flaxapps list` nor a file")
    (photos.parent / "notes.txt").write_text("no model")
    check_error(run("predict", photos, "--model", photos.parent / "notes.txt"), "notes.txt")
    check_error(run("predict", photos, "--model", tiny), "--preprocess caffe, tf, torch, rescale")
    check_error(predict(photos, "--size", 9, 9), "takes photos of 8 x 8")
    check_error(run("predict", photos, "--model", "vgg16", "--weights", "absent.h5"), "absent.h5")
    check_error(run("predict", photos, "--model", "vgg16", "--size", 9, 9), "takes photos of 224 x 224")


def test_models_that_do_not_classify_photos(run, photos: Path, tmp_path: Path):
    import keras

    with jax.numpy_dtype_promotion("standard"):
        vector, image = keras.Input((5,)), keras.Input((8, 8, 3))
        keras.Model(vector, keras.layers.Dense(2)(vector)).save(tmp_path / "vector.keras")
        keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(tmp_path / "map.keras")
    check_error(run("predict", photos, "--model", tmp_path / "vector.keras"), "its input is (None, 5)")
    check_error(run("predict", photos, "--model", tmp_path / "map.keras"), "got (None, 6, 6, 2)")


def test_weights_of_another_network(run, photos: Path, tmp_path: Path):
    write_keras_model(tmp_path / "other.keras")
    code, out, err = run("predict", photos, "--model", "xception", "--weights", tmp_path / "other.keras")
    assert (code, out) == (1, "")
    assert "other.keras does not fit" in err
    assert "Traceback" not in err


def test_long_lists_of_weights_are_cut(run, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: str) -> None:
        raise WeightError("It does not fit.", missing=[f"layer_{index}/kernel" for index in range(13)])

    monkeypatch.setattr(flaxapps.cli.models, "open_file", fail)
    code, _, err = run("summary", "file.keras")
    assert code == 1
    assert err.splitlines() == [
        "flaxapps: error: It does not fit.",
        "missing (13):",
        *(f"  layer_{index}/kernel" for index in range(10)),
        "  and 3 more",
    ]


def test_no_network(run, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FLAXAPPS_MIRROR", str(tmp_path))
    check_error(run("predict", photos, "--model", "resnet50"), "FLAXAPPS_MIRROR")


@pytest.mark.parametrize("arguments", [["--debug", "info", "alexnet"], ["info", "alexnet", "--debug"]])
def test_debug_lets_the_error_through(arguments: list[str]):
    with pytest.raises(ValueError, match="alexnet"):
        main(arguments)


def test_what_nobody_expected_is_one_line_too(run, monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr("flaxapps.cli.networks.model_info", fail)
    check_error(run("info", "vgg16"), "unexpected RuntimeError: out of memory and more (--debug ")


def test_interruption(predict, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(model, variables, batches, **_):
        next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(flaxapps.cli.predict.stream, "predict_batches", interrupt)
    output = tmp_path / "labels.csv"
    assert predict(photos, "--output", output) == (130, "", "flaxapps: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "table", "npz"])
@pytest.mark.parametrize("to_file", [True, False])
def test_what_was_predicted_before_an_interruption_is_kept(
    form: str, to_file: bool, predict, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = flaxapps.cli.predict.stream.predict_batches

    def interrupted(*arguments, **options):
        batches = original(*arguments, **options)
        yield next(batches)
        raise KeyboardInterrupt

    if form == "npz" and not to_file:
        return
    options = ("--format", form, "--batch-size", 2)
    monkeypatch.setattr(flaxapps.cli.predict.stream, "predict_batches", interrupted)
    more = ("--output", tmp_path / "out") if to_file else ()
    code, out, err = predict(photos, *options, *more)
    assert code == 130
    assert err == "flaxapps: interrupted after 2 of 3 photos, whose predictions are written\n"
    if form == "npz":
        with np.load(tmp_path / "out") as arrays:
            assert len(arrays["files"]) == len(arrays["outputs"]) == 2
        return
    text = (tmp_path / "out").read_text() if to_file else out
    assert [name in text for name in ("b.png", "a.JPG", "c.png")] == [True, True, False]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_is_streamed_to_a_screen_is_what_is_written_to_a_file(form: str, predict, photos: Path, tmp_path: Path):
    code, out, _ = predict(photos, "--format", form)
    assert predict(photos, "--format", form, "--output", tmp_path / "out")[0] == code == 0
    assert out == (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["info"],
        ["predict", "a.jpg"],
        ["predict", "a.jpg", "--model", "vgg16", "--top", "0"],
        ["predict", "a.jpg", "--model", "vgg16", "--batch-size", "many"],
        ["predict", "a.jpg", "--model", "vgg16", "--format", "xml"],
        ["predict", "a.jpg", "--model", "vgg16", "--size", "9"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert re.match(r"flaxapps( \w+)?: error: .*\nflaxapps( \w+)? --help", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["", "list", "info", "summary", "predict", "demo"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: flaxapps {command}".rstrip())


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("flaxapps ")


def test_as_a_module_into_a_pipe_that_closes():
    # More than a pipe holds, and a reader that leaves after a byte.
    command = [sys.executable, "-m", "flaxapps", "summary", "xception"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


def test_a_second_process_compiles_nothing(tiny: Path, photos: Path, tmp_path: Path):
    """What the first one compiled is in the Keras folder, and serves the second, which adds nothing."""
    command = [sys.executable, "-m", "flaxapps", "predict", str(photos), "--model", str(tiny), "--preprocess", "none"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1", "KERAS_HOME": str(tmp_path / "home")}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # such a tiny network may compile in no time
    kept, outputs = [], []
    for _ in range(2):
        process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        outputs.append(process.stdout)
        kept.append({file.name for file in (tmp_path / "home/flaxapps/compiled").iterdir() if "atime" not in file.name})
        hits = process.stderr.count("Persistent compilation cache hit")
    assert any("forward" in name for name in kept[0])
    assert kept[0] == kept[1]
    assert hits == len(kept[0])
    assert outputs[0] == outputs[1]


def test_describe(predict, run, tiny: Path, photos: Path):
    code, out, err = predict(photos, "--describe", "--batch-size", 2, "--format", "csv")
    assert code == 0
    assert "MB" not in out
    assert re.search(r"a batch of 2.*operations.*GFLOP.*weights.*MB.*memory of the device", err, re.DOTALL)
    code, out, _ = run("summary", tiny, "--describe", "--batch-size", 4)
    assert code == 0
    assert "a batch of 4" in out
    code, _, err = run("summary", "vgg16", "--no-top", "--describe")
    assert code == 1
    assert "give input_shape" in err


def test_what_is_no_photo_is_counted(predict, photos: Path, tmp_path: Path):
    shutil.copy(photos / "b.png", tmp_path)
    for name in ("a.mp4", "b.MP4", "notes.txt"):
        (tmp_path / name).touch()
    code, out, err = predict(tmp_path, "--format", "jsonl")
    assert code == 0
    assert len(read_json_lines(out)) == 1
    assert err == "flaxapps: left out 3 files that are not images: 2 .mp4, 1 .txt\n"


def test_photos_are_upright_or_as_they_are_stored(predict, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "stored.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "upright.png")
    Image.fromarray(pixels).save(tmp_path / "plain.png")

    def scores(name: str, *options: object) -> object:
        code, out, _ = predict(tmp_path / name, "--format", "jsonl", *options)
        assert code == 0
        return read_json_lines(out)[0]["predictions"]

    assert scores("stored.png") == scores("upright.png") != scores("plain.png")
    assert scores("stored.png", "--no-orientation") == scores("plain.png")


def test_dtype_and_draft(run, tiny: Path, photos: Path):
    command = ("predict", photos, "--model", tiny, "--preprocess", "tf", "--format", "jsonl", "--top", 1)
    code, halved, _ = run(*command, "--dtype", "bfloat16")
    assert code == 0
    texts = (run(*command)[1], halved)
    scores, others = ([row["predictions"][0]["score"] for row in read_json_lines(text)] for text in texts)
    assert scores != others
    assert scores == pytest.approx(others, abs=0.02)
    assert run(*command, "--draft", "--interpolation", "box")[0] == 0
    assert run(*command, "--draft")[0] == 0
    code, _, err = run(*command, "--draft", "--interpolation", "nearest")
    assert code == 1
    assert "interpolation that averages" in err


def test_precision(run, photos: Path, tmp_path: Path):
    x = image = Input((8, 8, 3))
    for number in range(2):
        x = layers.Conv2D(16, 1, activation="relu", name=f"conv_{number}")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = Model(image, x)
    save_model(model, model.init_variables(), tmp_path / "model.keras")
    command = ("predict", photos, "--model", tmp_path / "model.keras", "--preprocess", "tf", "--format", "jsonl")
    texts = [run(*command, "--precision", precision)[1] for precision in ("float32", "bfloat16")]
    exact, rounded = ([row["predictions"][0]["score"] for row in read_json_lines(text)] for text in texts)
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=1e-2)
    shards = ("--output-folder", tmp_path / "shards")
    assert run(*command, *shards)[0] == 0
    code, _, err = run(*command, *shards, "--precision", "bfloat16")
    assert code == 1
    assert "products in bfloat16" in err
