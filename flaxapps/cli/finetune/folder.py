"""The output folder of `flaxapps finetune`: what belongs to a run, and whether it may start, resume or overwrite."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from flaxapps.cli.finetune.settings import DEFAULTS
from flaxapps.cli.models import RECIPE_FILE
from flaxapps.cli.options import SETTINGS
from flaxapps.photos.class_names import FILE_NAME as CLASS_NAMES_FILE
from flaxapps.registry import list_models
from flaxapps.runtime.files import as_path, in_bucket, replacing
from flaxapps.train.checkpoints.checkpoints import checkpoint_folder

ARGUMENTS_FILE = "arguments.json"
HISTORY_FILE = "history.json"
BEST_FILE, LAST_FILE = "best.keras", "last.keras"
MISTAKES_FILE, RATES_FILE = "mistakes.png", "rates.png"
PHASES = ("head", "top")
# Everything that a run writes. Each of the phases also has a folder of checkpoints and its final model.
FILES = (
    ARGUMENTS_FILE, HISTORY_FILE, RECIPE_FILE, CLASS_NAMES_FILE, BEST_FILE, LAST_FILE, "model.keras", "history.csv",
    "curves.png", "confusion.png", MISTAKES_FILE, RATES_FILE, *(f"{phase}.keras" for phase in PHASES),
)  # fmt: skip # kept on few lines on purpose
FOLDERS = (*PHASES, "tensorboard")
# Arguments that do not change the result, or whose content is compared instead: checkpoints know the photos.
NOT_SETTINGS = (
    "command", "debug", "error_code", "resume", "overwrite", "keep_checkpoints", "output", "workers", "describe",
    "mesh", "shard_optimizer", "print_recipe", "find_rate", *SETTINGS,
)  # fmt: skip # kept on few lines on purpose
PLACES = ("data", "validation")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments that a resumed run takes over, with absolute paths, as it may start in another folder."""
    kept = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    for name in (*PLACES, "model", "weights"):
        value: Any = kept.get(name)
        local = value and not in_bucket(value) and not (name == "model" and value in list_models())
        if local and Path(value).exists():
            kept[name] = str(Path(value).absolute())
    return kept


def check_output(arguments: argparse.Namespace) -> None:
    """Checks that the run may write to its folder.

    Raises:
        ValueError: The folder holds a run, and is neither to be resumed nor to be overwritten; or it is to be resumed
            with other arguments, or with epochs of a phase that is finished.
    """
    folder = checkpoint_folder(arguments.output)
    file = folder / ARGUMENTS_FILE
    if not file.is_file() or arguments.overwrite:
        return
    if not arguments.resume:
        raise ValueError(
            f"{arguments.output} already holds a run: resume it with --resume, replace it with --overwrite, or give "
            "another folder"
        )
    stored, now = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(settings(arguments)))
    # Earlier versions did not know all settings, or wrote null for their defaults.
    before = {**DEFAULTS, **{name: value for name, value in stored.items() if value is not None}}
    compared = [name for name in now if name not in (*PLACES, "epochs")]
    changed = [f"{name} was {before.get(name)}, is {now[name]}" for name in compared if before.get(name) != now[name]]
    epochs = before["epochs"], now["epochs"]
    if is_finished(folder) and epochs[0] != epochs[1]:
        changed.append(f"epochs was {epochs[0]}, is {epochs[1]}, but it is finished: start another to train longer")
    elif (folder / f"{PHASES[0]}.keras").is_file() and epochs[0][0] != epochs[1][0]:
        changed.append(f"epochs of the first phase, which is finished, was {epochs[0][0]}, is {epochs[1][0]}")
    if changed:
        raise ValueError(f"The run in {arguments.output} had other arguments: {', '.join(changed)}")


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a run that was trained to its end."""
    return (folder / RECIPE_FILE).is_file() and (folder / ARGUMENTS_FILE).is_file()


def write_arguments(folder: Path, arguments: argparse.Namespace) -> None:
    """Marks the folder as that of a run, which `--resume` resumes."""
    with replacing(folder / ARGUMENTS_FILE) as stream:
        stream.write(json.dumps(settings(arguments), indent=1) + "\n")


def remove_run(folder: Path) -> None:
    """Deletes what an earlier run wrote to the folder, and nothing else."""
    for name in FOLDERS:
        if (folder / name).is_dir():
            _remove_tree(folder / name)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def remove_checkpoints(folder: Path) -> None:
    """Deletes the checkpoints and the models of the phases, which a finished run no longer needs."""
    for name in PHASES:
        if (folder / name).is_dir():
            _remove_tree(folder / name)
        (folder / f"{name}.keras").unlink(missing_ok=True)


def _remove_tree(folder: Path) -> None:
    if in_bucket(folder):
        as_path(folder).rmtree()  # type: ignore[attr-defined] # of etils' paths
    else:
        shutil.rmtree(folder)
