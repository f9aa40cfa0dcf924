"""`flaxapps finetune` from a folder of photos to a model, with a network of a few filters."""

import csv
import json
import os
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
from flaxapps.cli import main
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
    assert main(command(photos, base, output, "--epochs", 3, 2, "--learning-rate", 0.03, 0.01)) == 0
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
    final = load_model(finished / "model.keras").variables
    jax.tree.map(np.testing.assert_array_equal, final, top)


def test_the_model_is_known_to_the_other_commands(finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(photos), "--model", str(finished), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == 1
    assert main(["predict", str(photos / "red"), "--model", str(finished), "--top", "1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count(",red,") == 10


def test_optimized_frozen_layers_train_the_same(finished: Path, photos: Path, base: Path, tmp_path: Path):
    options = ("--epochs", 3, 2, "--learning-rate", 0.03, 0.01, "--cache-features", "no", "--optimize-frozen", "fast")
    assert main(command(photos, base, tmp_path / "out", *options)) == 0
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4),
        variables_of(tmp_path / "out"),
        variables_of(finished),
    )


def variables_of(output: Path) -> dict:
    return load_model(output / "model.keras").variables


def test_resuming_a_finished_run_changes_nothing(finished: Path, capsys: pytest.CaptureFixture[str]):
    before = variables_of(finished)
    assert main(["finetune", "--resume", "--output", str(finished)]) == 0
    jax.tree.map(np.testing.assert_array_equal, variables_of(finished), before)
    assert main(["finetune", "--resume", "--output", str(finished), "--epochs", "9"]) == 1
    assert "had other arguments: epochs was [3, 2], is [9]" in capsys.readouterr().err


def test_a_run_is_not_overwritten(finished: Path, photos: Path, base: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(photos, base, finished)) == 1
    assert "--resume goes on with it" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", ["head", "top"])
def test_interrupted_and_resumed(stopped_in: str, photos: Path, base: Path, tmp_path: Path, monkeypatch, capsys):
    """Ctrl-C in either phase: the folder is in order, the message says how to go on, and the end is the same."""
    import train.finetuning as finetuning

    assert main(command(photos, base, tmp_path / "whole")) == 0
    steps = []

    def interrupt(event: object) -> None:
        steps.append(event)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)

    original = finetuning.fit

    def fit(*arguments, **options):
        options["callbacks"] = [interrupt] if options["checkpoint_dir"].name == stopped_in else []
        return original(*arguments, **options)

    monkeypatch.setattr(finetuning, "fit", fit)
    assert main(command(photos, base, tmp_path / "parts")) == 130
    err = capsys.readouterr().err
    assert (
        f"interrupted by SIGINT; what was reached is kept, and `flaxapps finetune --resume --output {tmp_path}/parts`"
        in err
    )
    assert not (tmp_path / "parts" / "model.keras").exists()
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
        "shares, from 0 to below 1",
        "there is no file nowhere.h5",
        "at least 71x71",
        "no images in 'cat', 'dog'",
        "crop is (smallest, largest) share",
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
        (["--validation-split", 0, "--patience", 2], "--patience watches the validation"),
        (["--epochs", 0], "no epoch at all"),
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
    assert "finetune needs DATA and --model" in capsys.readouterr().err


@pytest.mark.slow
def test_one_phase_of_a_table_with_augmentation(photos: Path, base: Path, tmp_path: Path):
    rows = [f"{photos / colour}/{number}.png,{colour}" for colour in COLOURS for number in range(10)]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    options = ("--validation", photos, "--epochs", 0, 1, "--freeze-until", 0, "--flip", "--head", 0, "--tensorboard")
    assert main(command(tmp_path / "table.csv", base, tmp_path / "out", *options)) == 0
    assert any((tmp_path / "out" / "tensorboard" / "top").iterdir())
    assert not (tmp_path / "out" / "head").exists()
    statistics = [load_model(path).variables["batch_stats"] for path in (base, tmp_path / "out" / "model.keras")]
    assert np.abs(statistics[0]["norm"]["mean"] - statistics[1]["norm"]["mean"]).max() > 0


def test_a_network_by_name(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without its weights; from the plan alone, since training it would take long."""
    import argparse

    from train.commands import add_arguments
    from train.planning import make_plan

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--weights", "none", "--image-size", "139", "150", "--freeze-until", "249"]
    plan = make_plan(parser.parse_args([str(photos), "--model", "inception_v3", "--output", str(tmp_path), *options]))
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
    assert "what comes out" in printed


def test_describe_says_what_a_step_takes_and_ends(photos: Path, base: Path, tmp_path: Path, capsys):
    output = tmp_path / "out"
    assert main(command(photos, base, output, "--describe", "--mesh", "data=4,model=2", "--shard-optimizer")) == 0
    printed = capsys.readouterr().out
    assert "Training the new head alone" in printed
    assert "Training from what follows norm on" in printed
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
    models = [load_model(folder / "model.keras").variables for folder in (shared, alone)]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), *models)
    assert main(["finetune", "--resume", "--output", str(shared)]) == 0
