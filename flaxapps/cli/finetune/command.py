"""`flaxapps finetune`: starts, resumes or describes a run."""

import argparse
import json

from flaxapps.cli.arguments.finetune import add_arguments
from flaxapps.cli.finetune.folder import ARGUMENTS_FILE
from flaxapps.cli.finetune.plan import count_photos
from flaxapps.cli.finetune.run import finetune
from flaxapps.cli.finetune.settings import complete, print_recipe
from flaxapps.cli.options import join_processes
from flaxapps.runtime.files import as_path
from flaxapps.runtime.process import keep_compilations


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps finetune`.

    Raises:
        ValueError: DATA or --model is missing, or as for `flaxapps.cli.finetune.run.finetune`.
    """
    if arguments.resume and arguments.overwrite:
        raise ValueError("--resume and --overwrite exclude each other: give one of them")
    if arguments.print_recipe:
        print_recipe(arguments)
        return 0
    if arguments.output is None:
        raise ValueError("finetune needs --output, a folder for the results")
    if arguments.resume:
        _take_over(arguments)
    missing = [name for name, value in (("DATA", arguments.data), ("--model", arguments.model)) if value is None]
    if missing:
        raise ValueError(f"finetune needs {' and '.join(missing)}")
    join_processes(arguments, preemption=True)
    keep_compilations()
    complete(arguments, count_photos)
    return finetune(arguments)


def _take_over(arguments: argparse.Namespace) -> None:
    """Takes arguments left at their defaults from the run that is resumed."""
    file = as_path(arguments.output) / ARGUMENTS_FILE
    if not file.is_file():
        if arguments.data is None:
            raise ValueError(f"There is no run in {arguments.output} to resume: give DATA and --model to start one")
        return  # the run was stopped before its first step
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, value in json.loads(file.read_text(encoding="utf-8")).items():
        if getattr(arguments, name, None) == parser.get_default(name):
            setattr(arguments, name, value)
