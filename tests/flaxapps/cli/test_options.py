"""One set of options over all commands, what they do, and terminals of 80 columns."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.cli.arguments import choices
from flaxapps.cli.commands import main, new_flaxapps_parser
from flaxapps.cli.finetune.optimizer import OPTIMIZERS
from flaxapps.cli.parsers import SUMMARIES
from flaxapps.cli.running import RUNS
from flaxapps.image import INTERPOLATIONS
from flaxapps.quantization.calibrate import Calibration
from flaxapps.train.data.balance import BALANCED
from flaxapps.transforms.cut import cut_at
from flaxapps.transforms.optimize import Mode, Precision
from tests.arrays import read_npz
from tests.places import ROOT
from tests.terminal import run_in_terminal

SHARED = (
    "--weights", "--interpolation", "--antialias", "--orientation", "--size", "--resize", "--crop", "--layer",
    "--softmax", "--dtype", "--optimize", "--precision", "--batch-size", "--labels", "--device", "--on-error",
    "--preprocess", "--format",
)  # fmt: skip # kept on few lines on purpose
# finetune's own: a batch size has its learning rate.
OWN_DEFAULT = {("export", "--preprocess"), ("finetune", "--batch-size")}
OWN_VALUES = {("summary", "--batch-size"), *OWN_DEFAULT}


def parsers():
    (action,) = (each for each in new_flaxapps_parser()._actions if isinstance(each.choices, dict))
    return action.choices


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends in logits, with a convolution inside a nested model, and a folder of photos beside it."""
    image = Input((8, 8, 3))
    inner = Input((8, 8, 3))
    trunk = Model(inner, layers.MaxPooling2D()(layers.Conv2D(4, 3, name="conv")(inner)), name="trunk")
    x = layers.GlobalAveragePooling2D(name="pool")(trunk(image))
    model = Model(image, layers.Dense(3, name="classes")(x), name="logits")
    folder = tmp_path_factory.mktemp("logits")
    flaxapps.save_model(model, model.init_variables(), folder / "logits.keras")
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "photos" / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).save(folder / "photos" / name / "1.png")
    (folder / "photos" / "a" / "broken.png").write_bytes(b"no photo")
    (folder / "names.txt").write_text("a\nb\nc\n")
    return folder


HEAVY = ("jax", "numpy", "flax", "optax", "keras", "rich", "h5py", "PIL", "flaxapps.api", "flaxapps.cli.running")


def test_help_version_and_mistakes_import_nothing():
    """No timing: that they take a tenth of a second follows."""
    given = [["--help"], ["--version"], *([name, "--help"] for name in SUMMARIES)]
    wrong = [["nope"], ["predict"], ["predict", "a.jpg", "--model", "resnet50", "--tpo", "3"], ["verify", "a", "b"]]
    wrong += [["finetune", "photos", "--model", "resnet50", "--epochs", "many"], ["list", "--format", "xml"]]
    code = (
        "import sys; from flaxapps.cli import main\n"
        f"for given in {[*given, *wrong]}:\n"
        "    try: main(given)\n"
        "    except SystemExit as stop: print('stopped', stop.code)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    *lines, last = done.stdout.splitlines()
    assert last == "[]"
    assert [line for line in lines if line.startswith("stopped")] == ["stopped 0"] * len(given) + ["stopped 2"] * len(
        wrong
    )
    assert [f"usage: flaxapps {name} " in done.stdout for name in SUMMARIES] == [True] * len(SUMMARIES)
    for text in ("invalid choice: 'nope'", "unrecognized arguments: --tpo 3", "invalid int value: 'many'"):
        assert text in done.stderr
    assert len(done.stderr.splitlines()) == 2 * len(wrong)  # the mistake, and where to look


def test_every_command_can_be_parsed_and_run():
    assert list(parsers()) == list(SUMMARIES) == list(RUNS)


def test_choices_are_those_of_the_modules():
    assert get_args(Mode) == choices.MODES
    assert get_args(Precision) == choices.PRECISIONS
    assert get_args(Calibration) == choices.CALIBRATIONS
    assert choices.INTERPOLATIONS == INTERPOLATIONS
    assert choices.OPTIMIZERS == OPTIMIZERS
    assert choices.CLASS_WEIGHTS == (BALANCED,)


@pytest.mark.parametrize("option", SHARED)
def test_an_option_means_the_same_in_every_command(option):
    found = {
        name: action
        for name, parser in parsers().items()
        for action in parser._actions
        if option in action.option_strings
    }
    assert len(found) > 1
    defaults = {
        repr(action.default) for name, action in found.items() if (name, option) not in OWN_DEFAULT | OWN_VALUES
    }
    assert len(defaults) == 1
    if option != "--format":
        kinds = {
            (str(each.nargs), repr(each.choices)) for name, each in found.items() if (name, option) not in OWN_VALUES
        }
        if option == "--dtype":
            kinds -= {("None", "('float32', 'bfloat16')")}  # finetune computes in these two
        assert len(kinds) == 1
    formats = {value for action in found.values() for value in action.choices or ()} if option == "--format" else set()
    assert formats <= {"table", "csv", "json", "jsonl", "npz"}


def test_softmax_and_json(run, logits: Path):
    given = ("predict", logits / "photos", "--model", logits / "logits.keras", "--preprocess", "tf", "--format", "json")
    code, plain, _ = run(*given)
    assert code == 1  # for the broken photo
    _, softened, _ = run(*given, "--softmax", "--top", 3)
    assert [entry["file"] for entry in json.loads(plain)] == [entry["file"] for entry in json.loads(softened)]
    for before, after in zip(json.loads(plain), json.loads(softened), strict=True):
        assert sum(each["score"] for each in after["predictions"]) == pytest.approx(1, abs=1e-6)
        scores = np.array([each["score"] for each in before["predictions"]])
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose([each["score"] for each in after["predictions"]], expected, rtol=1e-5)


def test_layer_of_a_nested_model(run, logits: Path, tmp_path: Path):
    output = tmp_path / "features.npz"
    given = ("--model", logits / "logits.keras", "--preprocess", "none", "--format", "npz", "--output", output)
    run("predict", logits / "photos", *given, "--layer", "trunk/conv")
    assert read_npz(output)["outputs"].shape == (3, 6, 6, 4)
    model, variables = flaxapps.load_model(logits / "logits.keras")
    inner = cut_at(model, "trunk/conv")
    x = np.ones((1, 8, 8, 3), np.float32)
    kernel, bias = (variables["params"]["trunk"]["conv"][name] for name in ("kernel", "bias"))
    expected = kernel.sum((0, 1, 2)) + bias
    np.testing.assert_allclose(inner.apply(variables, x)[0, 3, 3], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="No layer is called 'nope'"):
        cut_at(model, "trunk/nope")


def test_export_of_probabilities(run, logits: Path, tmp_path: Path):
    file = tmp_path / "probabilities.stablehlo"
    code, *_ = run("export", logits / "logits.keras", "--softmax", "--image-dtype", "uint8", "--output", file)
    assert code == 0
    scores = flaxapps.load_exported(file)(np.zeros((2, 8, 8, 3), np.uint8))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)


def test_formats_of_evaluate(run, logits: Path, tmp_path: Path):
    given = ["evaluate", logits / "photos", "--model", logits / "logits.keras", "--preprocess", "tf", "--labels"]
    given += [logits / "names.txt", "--format"]
    whole = json.loads(run(*given, "json")[1])
    lines = [json.loads(line) for line in run(*given, "jsonl")[1].splitlines()]
    assert lines == whole["classes"]
    assert run(*given, "npz")[::2] == (1, "flaxapps: error: --format npz cannot be printed: give --output\n")
    run(*given, "npz", "--output", tmp_path / "all.npz")
    arrays = read_npz(tmp_path / "all.npz")
    assert arrays["confusion"].shape == (3, 3)
    assert arrays["confusion"].sum() == 3
    assert list(arrays["classes"]) == ["a", "b", "c"]
    code, _, err = run(*given, "json", "--on-error", "raise")
    assert code == 1
    assert "broken.png" in err
    assert json.loads(run(*given, "json", "--dtype", "bfloat16", "--device", "cpu")[1])["photos"] == 3


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_not_there(device, logits: Path):
    """In a process of its own: JAX chooses its devices once."""
    if any(map(os.path.exists, ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0"))):
        pytest.skip("this machine has one")
    command = [sys.executable, "-m", "flaxapps", "predict", "photos", "--model", "logits.keras", "--preprocess", "tf"]
    given = {"cwd": logits, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--device", device], check=False, **given)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"flaxapps: error: --device {device}: JAX finds none")


def test_cropping_in_predict(run, logits: Path):
    given = (
        "predict",
        logits / "photos" / "b",
        "--model",
        logits / "logits.keras",
        "--preprocess",
        "tf",
        "--format",
        "csv",
    )
    whole, cropped = (run(*given, *more)[1] for more in ((), ("--resize", 8)))
    assert whole != cropped
    assert "--crop is applied after --resize" in run(*given, "--crop", 8)[2]
    assert "--resize 7 is too small" in run(*given, "--resize", 7)[2]


def test_quantize_leaves_broken_photos_out(run, tmp_path: Path):
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no photo")
    image = Input((8, 8, 3))
    x = layers.Conv2D(16, 3)(layers.Conv2D(16, 3)(image))
    model = Model(image, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    flaxapps.save_model(model, model.init_variables(), tmp_path / "small.keras")
    given = ("quantize", tmp_path / "small.keras", photos, "--preprocess", "tf", "--output", tmp_path / "q.npz")
    code, _, err = run(*given)
    assert code == 0, err
    assert "left out: " in err
    assert "broken.png" in err
    assert run(*given, "--on-error", "raise")[0] == 1


def test_rows_of_tables(run, logits: Path):
    _, out, _ = run("list", "vgg*", "--format", "csv")
    assert [row["name"] for row in csv.DictReader(out.splitlines())] == ["vgg16", "vgg19"]
    assert json.loads(run("list", "vgg16", "--format", "json")[1])[0]["parameters"] == 138_357_544
    _, out, _ = run("inspect", logits / "logits.keras", "--format", "jsonl")
    assert {"(4, 3)", "(3, 3, 3, 4)"} <= {json.loads(line)["shape"] for line in out.splitlines()}
    code, out, _ = run("diff", logits / "logits.keras", logits / "logits.keras", "--format", "json")
    assert (code, json.loads(out)) == (0, [])
    assert run("diff", logits / "logits.keras", logits / "logits.keras", "--format", "csv")[1] == (
        "array,state,shape or largest difference\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["summary", "resnet50"],
        ["predict", "photos", "--model", "logits.keras", "--preprocess", "tf", "--labels", "names.txt"],
        ["evaluate", "photos", "--model", "logits.keras", "--preprocess", "tf", "--labels", "names.txt"],
        ["inspect", "logits.keras"],
        [
            "finetune",
            "photos",
            "--model",
            "logits.keras",
            "--preprocess",
            "tf",
            "--head",
            "0",
            "--validation-split",
            "0",
            "--epochs",
            "1",
            "--output",
            "o",
        ],
        ["--help"],
        *([name, "--help"] for name in ("predict", "evaluate", "finetune", "convert", "demo")),
    ],
    ids=" ".join,
)
def test_eighty_columns(arguments, logits: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything fits a terminal of 80 columns; of the libraries nothing is seen."""
    monkeypatch.chdir(logits)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code, lines = run_in_terminal(["-m", "flaxapps", *arguments])
    assert code in (0, 1)
    messages = "flaxapps: "  # hold paths, which stay whole
    assert [line for line in lines if len(line) > 80 and not line.startswith(messages)] == []
    text = "\n".join(lines)
    assert not [word for word in ("Warning", "WARNING", "absl", "Traceback", "/tmp/tmp") if word in text]
    if arguments[0] == "predict" and "--help" not in arguments:
        assert "the scores are logits; for probabilities, give --softmax" in text
    if arguments[0] == "finetune" and "--help" not in arguments:
        assert any(
            line.split() == [*["phase", "epochs", "loss", "accuracy", "val_loss", "val_accuracy"]] for line in lines
        )
        assert "Predicting" not in text  # while features are cached
    if arguments == ["list"]:
        assert any(line.split()[:2] == ["efficientnetv2-b0", "EfficientNetV2B0"] for line in lines)


def test_urls_are_whole(logits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _, lines = run_in_terminal(["-m", "flaxapps", "info", "resnet50"])
    assert any(line.endswith("_tf_kernels_notop.h5") and "https://" in line for line in lines)


@pytest.mark.parametrize("ending", ["png", "pdf", "PNG"])
def test_plots_by_their_endings(ending, run, logits: Path, tmp_path: Path):
    file = tmp_path / f"plot.{ending}"
    assert run("plot", logits / "logits.keras", "--full", "--output", file)[0] == 0
    assert file.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[ending.lower()])
    code, _, err = run("plot", logits / "logits.keras", "--output", tmp_path / "plot.gif")
    assert (code, "svg, .png or .pdf" in err) == (1, True)
