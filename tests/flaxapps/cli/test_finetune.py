"""`flaxapps finetune` from a folder of photos to a model, with a network of a few filters."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flaxapps import Input, Model, layers, load_model, save_model
from flaxapps.cli.commands import main
from tests.processes import run

COLOURS = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 60, 40)}


def write_photos(place: Path, count: int = 10, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for colour, value in COLOURS.items():
        (place / colour).mkdir(parents=True)
        for number in range(count):
            noise = random.integers(-30, 30, (9, 10, 3))
            Image.fromarray((np.array(value) + noise).clip(0, 255).astype(np.uint8)).save(
                place / colour / f"{number}.png"
            )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos") / "colours"
    write_photos(place)
    return place


def write_base(path: Path) -> None:
    """A model with a classifier of its own, which a new head takes the place of."""
    image = Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="second")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = Model(image, layers.Dense(7, activation="softmax")(x), name="tiny")
    save_model(model, model.init_variables(), path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.keras"
    write_base(path)
    return path


def command(photos: object, base: object, output: object, *more: object) -> list[str]:
    options = ["--preprocess", "tf", "--head", 8, "--batch-size", 8, "--epochs", 2, "--freeze-until", "norm"]
    return list(map(str, ["finetune", photos, "--model", base, "--output", output, *options, *more]))


@pytest.fixture(scope="module")
def finished(photos: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    options = ("--epochs", 3, 2, "--learning-rate", 0.03, 0.01, "--keep-checkpoints")
    assert main(command(photos, base, output, *options)) == 0
    return output


def test_everything_is_written(finished: Path):
    for name in ("curves.png", "confusion.png"):
        with Image.open(finished / name) as picture:
            picture.load()
            assert picture.width > 500
    with (finished / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        *(("head", f"{n}") for n in "123"),
        ("top", "1"),
        ("top", "2"),
    ]
    assert float(rows[-1]["val_accuracy"]) == 1
    assert json.loads((finished / "class_names.json").read_text()) == sorted(COLOURS)
    assert any((finished / "top").iterdir())


def test_phases_move_what_they_should(finished: Path, base: Path):
    """The first phase the head alone; the second what follows `norm`, whose statistics stand still."""
    before = load_model(base).variables
    head, top = (load_model(finished / f"{phase}.keras").variables for phase in ("head", "top"))
    for collection, layer in (("params", "first"), ("params", "norm"), ("batch_stats", "norm"), ("params", "second")):
        jax.tree.map(np.testing.assert_array_equal, head[collection][layer], before[collection][layer])
    for collection, layer in (("params", "first"), ("params", "norm"), ("batch_stats", "norm")):
        jax.tree.map(np.testing.assert_array_equal, top[collection][layer], before[collection][layer])
    assert np.abs(top["params"]["second"]["kernel"] - head["params"]["second"]["kernel"]).max() > 0
    assert "dense" not in top["params"]  # the old classifier is gone
    final = load_model(finished / "last.keras").variables
    jax.tree.map(np.testing.assert_array_equal, final, top)


def best_of(folder: Path) -> tuple[str, int]:
    """Phase and number of the epoch with the smallest validation loss."""
    with (folder / "history.csv").open(newline="") as stream:
        row = min(csv.DictReader(stream), key=lambda row: float(row["val_loss"]))
    return row["phase"], int(row["epoch"])


def test_the_best_epoch_is_kept_beside_the_last(photos: Path, base: Path, tmp_path: Path, capsys):
    """A rate that makes the last epochs worse, so that the best is in the middle."""
    options = ("--epochs", 3, 3, "--learning-rate", 0.03, 30.0, "--batch-size", 24)
    assert main(command(photos, base, tmp_path / "out", *options)) == 0
    printed = capsys.readouterr().out
    phase, epoch = best_of(tmp_path / "out")
    assert (phase, epoch) != ("top", 3)
    title = {"head": "the new head alone", "top": "the layers after norm"}[phase]
    assert f"of best.keras, epoch {epoch} of {title}" in printed.replace("\n", " ")
    # The same run, ended at the best epoch, has that model as its last.
    shorter = ("--epochs", *((epoch, 0) if phase == "head" else (3, epoch)), "--overwrite")
    assert main(command(photos, base, tmp_path / "short", *options, *shorter)) == 0
    wanted = variables_of(tmp_path / "short")
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "out" / "best.keras").variables, wanted)
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["model"] == "best.keras"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"arguments.json", "best.keras", "last.keras", "class_names.json", "recipe.json", "history.json",
                     "history.csv", "curves.png", "confusion.png"}  # fmt: skip # kept on few lines on purpose


def test_train_and_val_are_parts_and_not_classes(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part, count in (("train", 6), ("val", 3)):
        write_photos(tmp_path / "data" / part, count)
    assert main(command(tmp_path / "data", base, tmp_path / "out", "--epochs", 1, 0)) == 0
    err = capsys.readouterr().err
    assert "18 photos of 3 classes to train on, 9 to validate on: blue 6, green 6, red 6" in err
    assert main(["evaluate", str(tmp_path / "data"), "--model", str(tmp_path / "out")]) == 1
    assert f"parts of a data set, train and val, not classes: give the folder of one, such as {tmp_path}" in (
        capsys.readouterr().err
    )


def test_a_run_that_could_not_start_can_be_started_again(photos: Path, base: Path, tmp_path: Path, monkeypatch):
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Model, "init_variables", lambda *_, **__: 1 / 0)
        assert main(command(photos, base, output)) == 1
    assert not output.exists()
    assert main(command(photos, base, output, "--epochs", 1, 0)) == 0


def test_overwriting_deletes_a_run_and_nothing_else(photos: Path, base: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert main(command(photos, base, output, "--epochs", 1, 0)) == 0
    (output / "notes.txt").write_text("mine")
    before = variables_of(output)
    assert main(command(photos, base, output, "--epochs", 1, 0, "--seed", 5, "--overwrite")) == 0
    assert (output / "notes.txt").read_text() == "mine"
    assert np.abs(before["params"]["dense_1"]["kernel"] - variables_of(output)["params"]["dense_1"]["kernel"]).max() > 0


@pytest.fixture
def interrupted_once(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C after the first step of `fit`; a second one would end the run at once, without saving."""
    import flaxapps.cli.finetune.run as finetuning

    original, once = finetuning.fit, iter([signal.SIGINT])

    def interrupt(event: object) -> None:
        for received in once:
            signal.raise_signal(received)

    monkeypatch.setattr(
        finetuning, "fit", lambda *arguments, **options: original(*arguments, **options | {"callbacks": [interrupt]})
    )


@pytest.mark.usefixtures("interrupted_once")
def test_an_added_photo_is_one_sentence(photos: Path, base: Path, tmp_path: Path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    assert main(command(tmp_path / "photos", base, tmp_path / "out", "--epochs", 2, 0)) == 130
    shutil.copy(photos / "red" / "1.png", tmp_path / "photos" / "red" / "new.png")
    capsys.readouterr()
    assert main(["finetune", "--resume", "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"flaxapps: error: The run in {tmp_path / 'out'} cannot be resumed, because it had other settings or photos: "
    )
    assert "red/new.png: is new" in said
    assert said.endswith("or start a run with --overwrite or another --output")
    assert len(said) < 700


@pytest.mark.usefixtures("interrupted_once")
def test_a_run_resumes_from_elsewhere(photos: Path, base: Path, tmp_path: Path, monkeypatch):
    """Started with relative paths and interrupted; gone on with from another folder, after the photos were moved."""
    shutil.copytree(photos, tmp_path / "here" / "photos")
    shutil.copy(base, tmp_path / "here" / "base.keras")
    monkeypatch.chdir(tmp_path / "here")
    assert main(command("photos", "base.keras", "out", "--epochs", 2, 0)) == 130
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "photos").rename(tmp_path / "moved")
    assert any((tmp_path / "here" / "out" / "head").glob("[0-9]*"))
    assert main(["finetune", "moved", "--resume", "--output", "here/out", "--epochs", "3", "0"]) == 0
    assert main(command("moved", "here/base.keras", "whole", "--epochs", 3, 0)) == 0
    jax.tree.map(
        np.testing.assert_array_equal, variables_of(tmp_path / "here" / "out"), variables_of(tmp_path / "whole")
    )


def test_the_model_is_known_to_the_other_commands(finished: Path, photos: Path, tmp_path: Path, capsys):
    assert main(["evaluate", str(photos), "--model", str(finished), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == 1
    assert main(["predict", str(photos / "red"), "--model", str(finished), "--top", "1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count(",red,") == 10
    assert main(["inspect", str(finished)]) == 0
    assert "second" in capsys.readouterr().out
    for name in ("summary", "plot", "export"):
        output = [] if name == "summary" else ["--output", str(tmp_path / name)]
        assert main([name, str(finished), *output]) == 0
    assert main(["convert", str(finished), str(tmp_path / "mine.npz")]) == 0
    assert main(["diff", str(finished), str(tmp_path / "mine.npz")]) == 0


def test_optimized_frozen_layers_train_the_same(finished: Path, photos: Path, base: Path, tmp_path: Path):
    options = ("--epochs", 3, 2, "--learning-rate", 0.03, 0.01, "--cache-features", "no", "--optimize-frozen", "fast")
    assert main(command(photos, base, tmp_path / "out", *options)) == 0
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4),
        variables_of(tmp_path / "out"),
        variables_of(finished),
    )


def variables_of(output: Path) -> dict:
    return load_model(output / "last.keras").variables


def test_resuming_a_finished_run_changes_nothing(finished: Path, capsys: pytest.CaptureFixture[str]):
    before = variables_of(finished)
    assert main(["finetune", "--resume", "--output", str(finished)]) == 0
    jax.tree.map(np.testing.assert_array_equal, variables_of(finished), before)
    assert main(["finetune", "--resume", "--output", str(finished), "--epochs", "9"]) == 1
    assert "epochs was [3, 2], is [9], but it is finished: start another" in capsys.readouterr().err


def test_a_run_is_not_overwritten(finished: Path, photos: Path, base: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(photos, base, finished)) == 1
    assert "resume it with --resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", ["head", "top"])
def test_interrupted_and_resumed(stopped_in: str, photos: Path, base: Path, tmp_path: Path, monkeypatch, capsys):
    """Ctrl-C in either phase: the folder is in order, the message says how to go on, and the end is the same."""
    import flaxapps.cli.finetune.run as finetuning

    assert main(command(photos, base, tmp_path / "whole")) == 0
    steps = []

    def interrupt(event: object) -> None:
        steps.append(event)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)

    original = finetuning.fit

    def fit(*arguments, **options):
        options["callbacks"] = [interrupt] if options["checkpoint_dir"].path.name == stopped_in else []
        return original(*arguments, **options)

    monkeypatch.setattr(finetuning, "fit", fit)
    assert main(command(photos, base, tmp_path / "parts")) == 130
    err = capsys.readouterr().err
    assert (
        f"interrupted by SIGINT; progress is saved, resume with `flaxapps finetune --resume --output {tmp_path}/parts`"
        in err
    )
    assert not (tmp_path / "parts" / "last.keras").exists()
    monkeypatch.setattr(finetuning, "fit", original)
    assert main(["finetune", "--resume", "--output", str(tmp_path / "parts")]) == 0
    jax.tree.map(np.testing.assert_array_equal, variables_of(tmp_path / "parts"), variables_of(tmp_path / "whole"))


@pytest.mark.slow
def test_killed_and_resumed(photos: Path, base: Path, tmp_path: Path):
    """SIGKILL at some moment of each phase, then --resume: the same parameters to the last bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--checkpoint-every", 1, "--epochs", 3)
    run = [sys.executable, "-m", "flaxapps"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([*run, *command(photos, base, whole, *options)], check=True, env=environment, capture_output=True)
    for phase in ("head", "top"):
        process = subprocess.Popen(
            [*run, *command(photos, base, parts, *options, "--resume")], env=environment, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not any((parts / phase).glob("*/*")):
            time.sleep(0.01)
        process.kill()
        process.wait()
    subprocess.run([*run, "finetune", "--resume", "--output", parts], check=True, env=environment, capture_output=True)
    jax.tree.map(np.testing.assert_array_equal, variables_of(parts), variables_of(whole))


def test_all_that_is_wrong_is_told_before_anything_is_done(tmp_path: Path, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("this is too early to make arrays")

    monkeypatch.setattr(Model, "init_variables", fail)
    monkeypatch.setattr("weight_port.fetch", fail)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "dog").mkdir()
    options = ["--epochs", "0", "0", "5", "--dropout", "1", "--weights", "nowhere.h5", "--image-size", "20", "20"]
    options += ["--random-crop", "7"]
    code = main(
        ["finetune", str(tmp_path / "photos"), "--model", "xception", "--output", str(tmp_path / "out"), *options]
    )
    assert code == 1
    err = capsys.readouterr().err
    for problem in (
        "take a number for each of the two phases",
        "should be from 0 to below 1",
        "there is no file nowhere.h5",
        "at least 71x71",
        "no images in 'cat', 'dog'",
        "crop should be (smallest, largest) share",
    ):
        assert problem in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--freeze-until", "third"], "No layer is called 'third'"),
        (["--features", "third"], "No layer is called 'third'"),
        (["--image-size", 9, 9], "takes photos of 8 x 8, got 9 x 9"),
        (["--preprocess", "auto"], "give --preprocess"),
        (["--weights", "imagenet"], "for the networks of `flaxapps list`"),
        (["--validation-split", 0, "--patience", 2], "--patience needs validation data"),
        (["--epochs", 0], "for at least one phase"),
        (["--model", "nothing.keras"], "neither a network"),
        (["--validation", "nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit(more: list[object], message: str, photos: Path, base: Path, tmp_path: Path, capsys):
    assert main(command(photos, base, tmp_path / "out", *more)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_and_model_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["finetune", "--output", str(tmp_path / "out"), "--resume"]) == 1
    assert f"There is no run in {tmp_path / 'out'} to resume" in capsys.readouterr().err
    assert main(["finetune", "--output", str(tmp_path / "out")]) == 1
    assert "finetune needs DATA and --model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_phase_of_a_table_with_augmentation(photos: Path, base: Path, tmp_path: Path):
    rows = [f"{photos / colour}/{number}.png,{colour}" for colour in COLOURS for number in range(10)]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    options = ("--validation", photos, "--epochs", 0, 1, "--freeze-until", 0, "--flip", "--head", 0, "--tensorboard")
    assert main(command(tmp_path / "table.csv", base, tmp_path / "out", *options)) == 0
    assert any((tmp_path / "out" / "tensorboard" / "top").iterdir())
    assert not (tmp_path / "out" / "head").exists()
    statistics = [load_model(path).variables["batch_stats"] for path in (base, tmp_path / "out" / "last.keras")]
    assert np.abs(statistics[0]["norm"]["mean"] - statistics[1]["norm"]["mean"]).max() > 0


def test_a_network_by_name(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without its weights; from the plan alone, since training it would take long."""
    import argparse

    from flaxapps.cli.arguments.finetune import add_arguments
    from flaxapps.cli.finetune.plan import count_photos, make_plan
    from flaxapps.cli.finetune.settings import complete

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--weights", "none", "--image-size", "139", "150", "--freeze-until", "249"]
    arguments = parser.parse_args([str(photos), "--model", "inception_v3", "--output", str(tmp_path), *options])
    complete(arguments, count_photos)
    plan = make_plan(arguments)
    assert plan.preprocess == "tf"
    assert plan.model.input_shape == (None, 139, 150, 3)
    assert plan.data.options.image_size == (139, 150)
    head, top = plan.phases
    assert len(head.frozen) == 311
    assert len(top.frozen) == 249
    assert "mixed8" in top.frozen
    assert (len(plan.data), len(plan.validation or ())) == (24, 6)


def test_help_teaches(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--freeze-until mixed8" in printed
    assert "files in --output" in printed


def test_describe_says_what_a_step_takes_and_ends(photos: Path, base: Path, tmp_path: Path, capsys):
    output = tmp_path / "out"
    assert main(command(photos, base, output, "--describe", "--mesh", "data=4,model=2", "--shard-optimizer")) == 0
    printed = capsys.readouterr().out
    assert "Training the new head alone" in printed
    assert "Training the layers after norm" in printed
    assert printed.count("devices: 4 along data, 2 along model") == 2
    momentum = next(line.split() for line in printed.splitlines() if "trace/second/kernel" in line)
    assert momentum[1:] == ["(3,", "3,", "4,", "6)", "-,", "-,", "data,", "-", "0.000864", "MB", "0.000216", "MB"]
    for row in ("parameters that train", "intermediate values", "memory", "operations"):
        assert printed.count(f"\n {row} ") == 2
    assert not output.exists()
    assert main(command(photos, base, output, "--describe", "--mesh", "data=3")) == 1
    assert "data=3 should multiply to the number of devices, which is 8" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_what_one_does(photos: Path, base: Path, tmp_path: Path):
    """Both phases, with features that are kept; then one process finds the run at its end."""
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    first, second = run(["-m", "flaxapps", *command(photos, base, shared)], 2, devices=2)
    assert "Next: flaxapps predict" in first
    assert all(line.startswith("[Gloo]") for line in second.splitlines())
    assert main(command(photos, base, alone)) == 0
    assert {path.name for path in shared.iterdir()} == {path.name for path in alone.iterdir()}
    histories = [json.loads((folder / "history.json").read_text()) for folder in (shared, alone)]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), *histories)
    models = [load_model(folder / "last.keras").variables for folder in (shared, alone)]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), *models)
    assert main(["finetune", "--resume", "--output", str(shared)]) == 0
