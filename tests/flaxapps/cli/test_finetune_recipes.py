"""Recipes, the optimizer, the range test and the contact sheet of `flaxapps finetune`."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from flaxapps import load_model, predict
from flaxapps.cli.arguments.finetune import add_arguments
from flaxapps.cli.commands import main
from flaxapps.cli.finetune.folder import check_output
from flaxapps.cli.finetune.optimizer import OPTIMIZERS, build_optimizer, schedule_rate
from flaxapps.cli.finetune.plan import Plan, count_photos, make_plan
from flaxapps.cli.finetune.results import find_mistakes
from flaxapps.cli.finetune.settings import DEFAULTS, complete, list_recipes, load_recipe
from flaxapps.train.updates.averaged import AveragedState
from tests.flaxapps.cli.test_finetune import write_base, write_photos
from tests.train.small import small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three classes, of which the last has four, and a model."""
    place = tmp_path_factory.mktemp("recipes")
    write_photos(place / "colours", 16)
    for number in range(4, 16):
        (place / "colours" / "red" / f"{number}.png").unlink()
    write_base(place / "tiny.keras")
    return place


def command(folder: Path, output: object, *more: object) -> list[str]:
    options = ["--preprocess", "tf", "--batch-size", 8]
    return list(map(str, [folder / "colours", "--model", folder / "tiny.keras", "--output", output, *options, *more]))


def parsed(*texts: object, photos: int = 100) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(list(map(str, texts)))
    complete(arguments, lambda _: photos)
    return arguments


def plan_of(folder: Path, *more: object) -> tuple[Plan, argparse.Namespace]:
    arguments = parsed(*command(folder, folder / "nowhere", *more))
    return make_plan(arguments), arguments


def rate_at(rate: Any, step: int) -> float:
    with jax.numpy_dtype_promotion("standard"):  # as in a step
        return float(rate(np.int32(step)))


def test_what_is_given_wins_over_the_recipe_and_the_recipe_over_the_default():
    assert {name: getattr(parsed(), name) for name in DEFAULTS} == dict(DEFAULTS)
    recipe = load_recipe("convnext")["arguments"]
    found = parsed("--recipe", "convnext")
    assert {name: getattr(found, name) for name in DEFAULTS} == dict(DEFAULTS) | recipe
    # Also where what is given is the default.
    given = parsed("--recipe", "convnext", "--layer-decay", 1, "--no-flip", "--mixup", 0.3, "--epochs", 0, 2)
    assert (given.layer_decay, given.flip, given.mixup, given.epochs) == (1, False, 0.3, [0, 2])
    assert given.optimizer == "adamw"


@pytest.mark.parametrize(
    ("photos", "steps", "warmup", "mixup"),
    [(19_999, 500, 100, 0), (20_000, 10_000, 500, 0.1), (499_999, 10_000, 500, 0.1), (500_000, 20_000, 500, 0.1)],
)
def test_the_hyperrule_depends_on_the_number_of_photos(photos, steps, warmup, mixup):
    """`get_schedule` and `get_lr` of big_transfer's bit_hyperrule.py."""
    arguments = parsed("--recipe", "bit-hyperrule", photos=photos)
    assert (arguments.steps, arguments.mixup) == (steps, mixup)
    ends = [200, 300, 400] if steps == 500 else [steps * share // 10 for share in (3, 6, 9)]
    rate = schedule_rate(arguments, 0.003, steps)
    for step in (0, 1, warmup - 1, warmup, *(end - 1 for end in ends), *(end + 1 for end in ends), steps - 1):
        wanted = 0.003 * step / warmup if step < warmup else 0.003 * 0.1 ** sum(end < step for end in ends)
        assert rate_at(rate, step) == pytest.approx(wanted, rel=1e-4)  # float32


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_where_it_is_from_and_plans_a_run(name, folder):
    recipe = load_recipe(name)
    assert {"source", "note", "arguments"} <= set(recipe)
    for part in (recipe, *recipe.get("by_photos", ())):
        assert set(part["arguments"]) <= set(DEFAULTS)
    plan, arguments = plan_of(folder, "--recipe", name)
    last = plan.phases[-1]
    if arguments.steps:
        assert arguments.steps <= plan.steps(last, 8) < arguments.steps + plan.steps(last._replace(epochs=1), 8)
    else:
        assert tuple(phase.epochs for phase in plan.phases) == tuple(filter(None, arguments.epochs))
    rate = schedule_rate(arguments, last.learning_rate, plan.steps(last, 8))
    params = plan.model.init_variables()["params"]
    build_optimizer(arguments, plan.model, last.optimizer, rate).init(params)
    assert plan.augmentation is not None
    assert ("norm" in last.frozen) == (name == "keras-guide")


def test_a_recipe_is_printed_with_what_is_given(capsys):
    assert main(["finetune", "--recipe", "bit-hyperrule", "--print-recipe", "--mixup", "0.3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "1912.11370" in printed["source"]
    assert printed["arguments"]["mixup"] == 0.3
    assert [part["arguments"].get("mixup") for part in printed["by_photos"]] == [None, 0.3, 0.3]
    assert main(["finetune", "--print-recipe"]) == 0
    assert json.loads(capsys.readouterr().out)["arguments"] == dict(DEFAULTS)
    with pytest.raises(SystemExit):
        main(["finetune", "--recipe", "nothing"])
    assert "bit-hyperrule" in capsys.readouterr().err


def test_schedules_are_those_of_optax():
    steps = 50
    cosine = schedule_rate(parsed("--schedule", "cosine", "--warmup", 0.2), 0.1, steps)
    wanted = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, steps)
    linear = schedule_rate(parsed("--schedule", "linear", "--warmup", 10), 0.1, steps)
    for step in range(steps):
        assert rate_at(cosine, step) == pytest.approx(rate_at(wanted, step), abs=1e-7)
        assert rate_at(linear, step) == pytest.approx(0.1 * min(step / 10, (steps - step) / 40), abs=1e-7)
    assert schedule_rate(parsed(), 0.1, steps) == 0.1
    assert rate_at(schedule_rate(parsed("--warmup", 10), 0.1, steps), 5) == pytest.approx(0.05)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_and_clipping_of_each_optimizer(name):
    model = small_model()
    params = model.init_variables()["params"]

    def change(gradient: float, *options: object) -> Any:
        optimizer = build_optimizer(parsed("--optimizer", name, *options), model, "sgd", 0.1)
        with jax.numpy_dtype_promotion("standard"):
            gradients = jax.tree.map(lambda leaf: np.full_like(leaf, gradient), params)
            return optimizer.update(gradients, optimizer.init(params), params)[0]

    decayed = change(0.0, "--weight-decay", 0.5)
    assert np.abs(decayed["head"]["kernel"]).max() > 0
    assert not np.any(decayed["norm1"]["scale"])
    if name == "sgd":
        np.testing.assert_allclose(decayed["head"]["kernel"], -0.05 * params["head"]["kernel"], rtol=1e-5)
        clipped = change(5.0, "--clip", 1)
        np.testing.assert_allclose(optax.tree.norm(clipped), 0.1, rtol=1e-4)


def test_without_options_the_optimizer_is_the_one_that_it_was():
    """So that runs of earlier versions resume."""
    model = small_model()
    params = model.init_variables()["params"]
    for name, wanted in (("rmsprop", optax.rmsprop(0.1)), ("sgd", optax.sgd(0.1, momentum=0.9))):
        found = build_optimizer(parsed(), model, name, 0.1).init(params)
        assert jax.tree.structure(found) == jax.tree.structure(wanted.init(params))
    averaged = build_optimizer(parsed("--ema", 0.9, "--layer-decay", 0.5), model, "sgd", 0.1)
    assert isinstance(averaged.init(params), AveragedState)


def test_all_that_is_wrong_is_told(folder, tmp_path, capsys):
    options = ("--ema", 1, "--layer-decay", 0, "--weight-decay", -1, "--decay-at", 2, "--steps", 0, "--mixup", -1)
    assert main(["finetune", *command(folder, tmp_path / "out", *options, "--label-smoothing", 2)]) == 1
    err = capsys.readouterr().err
    for name in ("--ema", "--layer-decay", "--weight-decay", "--decay-at", "--steps", "mixup", "--label-smoothing"):
        assert name in err
    assert main(["finetune", *command(folder, tmp_path / "out", "--randaugment", 1.5, 9)]) == 1
    assert "whole number of operations" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_everything(folder: Path, tmp_path: Path, capsys, monkeypatch):
    """The output folder says all that held, and best.keras is the average."""
    from flaxapps.cli.finetune import run as finetuning

    results, original = [], finetuning.fit

    def fit(*arguments: Any, **options: Any) -> Any:
        results.append(original(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(finetuning, "fit", fit)
    options = ["--recipe", "convnext", "--epochs", 0, 1, "--learning-rate", 1e-3, "--ema", 0.5, "--mixup", 0.2]
    options += ["--class-weights", "balanced", "--clip", 1, "--random-crop", 0.5, "--randaugment", 1, 5]
    assert main(["finetune", *command(folder, tmp_path / "out", *options)]) == 0
    printed = capsys.readouterr()
    assert "4 of 4 layers train, 363 of 363 parameters: first to dense" in printed.err
    assert "1 of 1 layers update their moving statistics: norm" in printed.err
    assert "The classes are unequal" not in printed.err
    held = json.loads((tmp_path / "out" / "arguments.json").read_text())
    assert {
        "recipe": "convnext",
        "mixup": 0.2,
        "ema": 0.5,
        "optimizer": "adamw",
        "layer_decay": 0.8,
    }.items() <= held.items()
    assert set(DEFAULTS) <= set(held)
    assert "mistakes.png" in printed.out
    with Image.open(tmp_path / "out" / "mistakes.png") as picture:
        assert picture.width > 500
    (result,) = results
    name = next(name for name in result.state.params if name.startswith("dense"))
    kernels = [
        tree["params"][name]["kernel"]
        for tree in (load_model(tmp_path / "out" / "best.keras").variables, result.variables, result.state.variables)
    ]
    np.testing.assert_array_equal(*kernels[:2])
    assert np.abs(kernels[0] - kernels[2]).max() > 0
    assert main(["finetune", "--resume", "--output", str(tmp_path / "out")]) == 0
    assert "is finished" in capsys.readouterr().out


def test_mistakes_are_named_and_the_most_certain_come_first(folder: Path, tmp_path: Path):
    """Also after a photo that cannot be read."""
    shutil.copytree(folder / "colours", tmp_path / "colours")
    (tmp_path / "colours" / "blue" / "0.png").write_bytes(b"nothing")
    plan, _ = plan_of(folder, "--validation", tmp_path / "colours", "--on-error", "skip")
    variables = plan.model.init_variables(1)
    with pytest.warns(UserWarning, match="1 image could not be read"):
        found = find_mistakes(plan, variables, plan.validation, 8)
    assert [each.confidence for each in found] == sorted((each.confidence for each in found), reverse=True)
    for each in found:
        with Image.open(tmp_path / "colours" / each.file) as picture:
            photo = np.asarray(picture.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR), np.float32)
        np.testing.assert_allclose(each.photo, photo, atol=1)
        assert plan.data.class_names[each.own] == Path(each.file).parts[0]
        assert each.taken != each.own
    outputs = predict(plan.model, variables, np.stack([each.photo for each in found]), preprocess="tf")
    assert list(outputs.argmax(axis=-1)) == [each.taken for each in found]
    assert len(found) > 10


def test_a_run_of_an_earlier_version_can_be_resumed(folder: Path, tmp_path: Path):
    """Its record has no recipe and no EMA, and null where there was no crop."""
    arguments = parsed(*command(folder, tmp_path, "--resume"))
    old = {"epochs": [5], "head": 1024, "dropout": 0.0, "learning_rate": [1e-3, 1e-4], "batch_size": 8, "flip": False}
    old |= {"random_crop": None, "brightness": None, "freeze_until": None, "patience": 0}
    same = (
        "model",
        "preprocess",
        "validation_split",
        "seed",
        "cache_features",
        "on_error",
        "freeze_as_saved",
        "tensorboard",
    )
    old |= {name: getattr(arguments, name) for name in same}
    (tmp_path / "arguments.json").write_text(json.dumps(old))
    check_output(arguments)
    arguments.ema = 0.9
    with pytest.raises(ValueError, match=r"had other arguments: ema was 0\.0, is 0\.9$"):
        check_output(arguments)


def test_rates_are_tested_and_no_run_is_begun(folder: Path, tmp_path: Path, capsys):
    assert main(["finetune", *command(folder, tmp_path / "out", "--find-rate", "--head", 8, "--ema", 0.9)]) == 0
    printed = capsys.readouterr()
    assert "blue has 13 photos, red 3" in printed.err.replace("\n", " ")
    assert "--class-weights balanced" in printed.err
    assert "Testing learning rates on the new head alone" in printed.out
    assert "Suggested: --learning-rate " in printed.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rates.png"]


def test_photos_are_counted_without_reading_them(folder: Path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(command(folder, "nowhere", "--validation-split", "0.25"))
    assert count_photos(arguments) == 27
