"""`flaxapps predict`: photos to one file, or in parts that several processes make."""

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import jax

from flaxapps.classification import settle_recipe
from flaxapps.compilation import estimate_costs
from flaxapps.distributed import start_distributed
from flaxapps.manifests import fingerprint_of
from flaxapps.optimizing import optimize
from flaxapps.parts import Parts, open_parts, part_size
from flaxapps.paths import as_path
from flaxapps.photos import find_photos
from flaxapps.predicted_files import PredictedFile
from flaxapps.prediction import Outcome, Plan, identity, plan_prediction, readable
from flaxapps.recipe import Recipe
from flaxapps.reports import describe_error, open_progress, replacing, write_costs


def predict_photos(arguments: argparse.Namespace) -> int:
    """Predicts what is on photos and prints or writes it.

    Args:
        arguments: Those of the command, as `flaxapps predict --help` says.

    Returns:
        1 where photos could not be read, else 0.

    Raises:
        ValueError: The model does not take photos or classify them, or the arguments do not fit it or each other; with
            `--on-error raise`, a photo cannot be read.
        OSError: A file is not there, or cannot be read or written.
    """
    _check(arguments)
    process, processes = _place(arguments)
    paths = find_photos(arguments.images)
    recipe = settle_recipe(arguments)
    file = PredictedFile(arguments.format, recipe.class_names, arguments.top)
    if arguments.output_folder:
        return _predict_parts(arguments, recipe, file, paths, process, processes)
    with ExitStack() as stack:
        mode = "wb" if file.is_binary else "w"
        output = stack.enter_context(replacing(arguments.output, mode)) if arguments.output else sys.stdout
        plan = plan_prediction(arguments, recipe, len(paths))
        outcomes = list(_compute(arguments, plan, paths, len(paths)))
        read, outputs = readable(outcomes, plan.model.output_shape[-1])
        file.write(output, read, outputs)
    return _tell_failures(len(paths) - len(read), len(paths))


def _place(arguments: argparse.Namespace) -> tuple[int, int]:
    """Which process this is, and of how many."""
    if not arguments.distributed:
        return arguments.process_id, arguments.num_processes
    start_distributed()
    return jax.process_index(), jax.process_count()


def _predict_parts(
    arguments: argparse.Namespace,
    recipe: Recipe,
    file: PredictedFile,
    paths: list[Path],
    process: int,
    processes: int,
) -> int:
    plan = plan_prediction(arguments, recipe, len(paths))
    size = arguments.part_size or part_size(len(paths))
    parts = open_parts(as_path(arguments.output_folder), file, paths, size, _facts(arguments, recipe, plan, file))
    missing = parts.missing()
    if missing:
        if len(missing) < parts.count:
            print(f"flaxapps: {len(missing)} of {parts.count} parts are missing", file=sys.stderr)
        count = sum(len(parts.photos_of(number)) for number in missing) // processes
        started: deque[int] = deque()
        outcomes = _compute(arguments, plan, _photos(parts, parts.work(process, processes), started), count)
        for first in outcomes:
            number = started.popleft()
            parts.write(number, [first, *islice(outcomes, len(parts.photos_of(number)) - 1)])
    if arguments.no_join:
        failed = parts.count_unreadable()
    elif missing or not parts.joined.exists():
        failed = parts.join()
        print(parts.joined)
    else:
        failed = parts.count_unreadable()
        print(parts.joined)
    return _tell_failures(failed, len(parts.photos))


def _photos(parts: Parts, work: Iterator[int], started: deque[int]) -> Iterator[Path]:
    """The photos of the parts, each of which is noted when it begins."""
    for number in work:
        started.append(number)
        yield from parts.photos_of(number)


def _compute(arguments: argparse.Namespace, plan: Plan, paths: Iterable[Path], count: int) -> Iterator[Outcome]:
    """Loads the weights and computes; shows how far it is and what cannot be read."""
    model, variables = optimize(plan.model, plan.load(), plan.mode)
    if arguments.describe:
        given: dict[str, Any] = {"dtype": plan.form.dtype, "preprocess": plan.preprocess, "variables": variables}
        write_costs(sys.stderr, estimate_costs(model, plan.batch_size, plan.form.shape, **given), plan.batch_size)
    with open_progress() as progress:
        task = progress.add_task("Predicting", total=count)
        for path, result in plan.outcomes(model, variables, paths):
            if isinstance(result, Exception):
                if arguments.on_error == "raise":
                    raise result
                progress.console.print(f"flaxapps: cannot read {describe_error(result)}")
            progress.advance(task)
            yield path, result


def _facts(arguments: argparse.Namespace, recipe: Recipe, plan: Plan, file: PredictedFile) -> dict[str, str]:
    """What makes predictions others than those of another run."""
    names = fingerprint_of({str(index): name for index, name in enumerate(file.labels or ())})[:8]
    classes = "" if file.is_binary else f", {file.top} classes, names {names if file.labels else 'by default'}"
    return {
        "model": identity(recipe.model, arguments.weights),
        "layer": arguments.layer or "the last",
        "format": f"{file.form}{classes}",
        "photo size": " x ".join(map(str, plan.form.shape)),
        "resizing": f"{plan.interpolation}{' of drafts' if plan.draft else ''}",
        "preprocessing": str(plan.preprocess),
        "computing": f"{arguments.dtype or 'as the model'}, {plan.mode}",
    }


def _check(arguments: argparse.Namespace) -> None:
    binary, folder, distributed = arguments.format == "npz", arguments.output_folder, arguments.distributed
    problem = None
    if arguments.output and folder:
        problem = "--output and --output-folder are two ways to write: give one"
    elif binary and not (arguments.output or folder):
        problem = "--format npz is not for a terminal: give --output or --output-folder"
    elif arguments.layer and not binary:
        problem = f"--layer is for --format npz, got {arguments.format}"
    elif folder and arguments.format == "table":
        problem = "--output-folder takes --format csv, jsonl or npz"
    elif not folder and (distributed or arguments.num_processes > 1 or arguments.process_id or arguments.part_size):
        problem = "--distributed, --process-id, --num-processes and --part-size are for --output-folder"
    elif distributed and (arguments.num_processes > 1 or arguments.process_id):
        problem = "--distributed finds out what --process-id and --num-processes say: give one or the other"
    elif not 0 <= arguments.process_id < arguments.num_processes:
        problem = f"--process-id is from 0 to {arguments.num_processes - 1}, got {arguments.process_id}"
    if problem:
        raise ValueError(problem)


def _tell_failures(failed: int, count: int) -> int:
    if failed:
        print(f"flaxapps: {failed} of {count} images could not be read", file=sys.stderr)
    return 1 if failed else 0
