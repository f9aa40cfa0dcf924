"""`flaxapps predict`: write predictions to one file, or to shards computed by several processes."""

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import jax

from flaxapps.applications.imagenet_utils import class_names
from flaxapps.cli.costs import write_costs
from flaxapps.cli.models import ResolvedModel, adapted, resolve_model
from flaxapps.cli.options import check_resize, given_resizing, given_size, usual_batch_size
from flaxapps.cli.predict.files import PredictedFile
from flaxapps.cli.predict.shards import Shards, open_shards, shard_size
from flaxapps.cli.predict.stream import Outcome, predict_stream, readable
from flaxapps.inference.compile import estimate_costs
from flaxapps.inference.pieces import optimize_for_batches
from flaxapps.model import Model
from flaxapps.photos.files import describe_left_out, find_photos
from flaxapps.runtime.console import describe_error
from flaxapps.runtime.distributed import is_first, start_distributed
from flaxapps.runtime.files import as_path, replacing
from flaxapps.runtime.manifests import fingerprint_of
from flaxapps.runtime.process import keep_compilations
from flaxapps.runtime.progress import PhotoProgress
from flaxapps.transforms.logits import last_activation
from flaxapps.transforms.optimize import Mode

INTERRUPTED = 130  # the exit code after Ctrl-C
STREAMED = ("csv", "jsonl")  # formats that are written line by line
MANY_PHOTOS = 64  # for fewer, compiling in mode "fast" takes longer than it saves


def predict_photos(arguments: argparse.Namespace) -> int:
    """Computes predictions for photos and prints or writes them.

    Returns:
        The exit code: 1 if photos could not be read, else 0.

    Raises:
        ValueError: The model does not take photos or classify them; the arguments do not fit it or each other; or a
            photo cannot be read, with `--on-error raise`.
        OSError: A file does not exist, or cannot be read or written.
    """
    _check(arguments)
    process, processes = _place(arguments)
    paths, left_out = find_photos(arguments.images)
    resolved = _resolve(arguments)
    mode: Mode = arguments.optimize or ("default" if len(paths) < MANY_PHOTOS else "fast")
    file = PredictedFile(arguments.format, resolved.class_names, arguments.top)
    if arguments.output_folder:
        failed = _predict_shards(arguments, resolved, mode, file, paths, process, processes)
        return _tell_missing(failed, len(paths), left_out)
    with ExitStack() as stack:
        output = sys.stdout
        if arguments.output:
            output = stack.enter_context(replacing(arguments.output, "wb" if file.is_binary else "w"))
        outcomes = _compute(arguments, resolved, mode, paths, len(paths))
        failed, done = _write(file, output, outcomes, resolved.model.output_shape[-1])
    _tell_unnamed(file, resolved.model)
    code = _tell_missing(failed, len(paths), left_out)
    if done == len(paths):
        return code
    print(f"flaxapps: interrupted after {done} of {len(paths)} photos, whose predictions are written", file=sys.stderr)
    return INTERRUPTED


def _write(file: PredictedFile, output: IO[Any], outcomes: Iterator[Outcome], columns: int) -> tuple[int, int]:
    """Writes predictions, on a screen as they come; after Ctrl-C those that there are.

    Returns:
        The number of photos that could not be read, and of all that were looked at.
    """
    kept: list[Outcome] = []
    failed = done = 0
    streams = output is sys.stdout and file.form in STREAMED
    try:
        for path, row in outcomes:
            done += 1
            failed += isinstance(row, Exception)
            if not streams:
                kept.append((path, row))
            elif not isinstance(row, Exception):
                file.write(output, [path], row[None], header=done - failed == 1)
                output.flush()
    except KeyboardInterrupt:
        if not done:
            raise
    if not streams or done == failed:
        file.write(output, *readable(kept, columns))
    return failed, done


def _resolve(arguments: argparse.Namespace) -> ResolvedModel:
    """Resolves the model, cut at --layer and in --dtype, and checks that its outputs can be written."""
    resolved = resolve_model(
        arguments.model,
        weights=arguments.weights,
        size=given_size(arguments),
        labels=arguments.labels,
        preprocess=arguments.preprocess,
        resizing={**given_resizing(arguments), "draft": arguments.draft},
    )
    model = adapted(resolved.model, arguments)
    resolved = replace(resolved, model=model)
    if arguments.format == "npz" and not isinstance(model.output_shape, tuple):
        raise ValueError(f"{model.name!r} has several outputs: choose one with --layer")
    if arguments.format != "npz":
        _ = resolved.classes  # raises if it is not a classifier
    check_resize(arguments, resolved.photo_format)
    _ = resolved.preprocess
    resolved.resizing.check()
    return resolved


def _place(arguments: argparse.Namespace) -> tuple[int, int]:
    """Returns (process index, process count)."""
    if not arguments.distributed:
        return arguments.process_id, arguments.num_processes
    start_distributed()
    return jax.process_index(), jax.process_count()


def _predict_shards(
    arguments: argparse.Namespace,
    resolved: ResolvedModel,
    mode: Mode,
    file: PredictedFile,
    paths: list[Path],
    process: int,
    processes: int,
) -> int:
    size = arguments.shard_size or shard_size(len(paths))
    facts = _facts(arguments, resolved, mode, file)
    shards = open_shards(as_path(arguments.output_folder), file, paths, size, facts)
    missing = shards.missing()
    if missing:
        if len(missing) < shards.count:
            print(f"flaxapps: {len(missing)} of {shards.count} shards are missing", file=sys.stderr)
        # An estimate for the progress bar: other processes may finish more or less than their share.
        count = sum(len(shards.photos_of(number)) for number in missing) // processes
        started: deque[int] = deque()
        photos = _photos(shards, shards.work(process, processes), started)
        outcomes = _compute(arguments, resolved, mode, photos, count)
        for first in outcomes:
            number = started.popleft()
            shards.write(number, [first, *islice(outcomes, len(shards.photos_of(number)) - 1)])
    if arguments.no_join:
        failed = shards.count_unreadable()
    elif missing or not shards.joined.exists():
        failed = shards.join()
        print(shards.joined)
    else:
        failed = shards.count_unreadable()
        print(shards.joined)
    return failed


def _photos(shards: Shards, work: Iterator[int], started: deque[int]) -> Iterator[Path]:
    """Yields the photos of the shards, and appends the number of each shard to `started` before its first photo."""
    for number in work:
        started.append(number)
        yield from shards.photos_of(number)


def _compute(
    arguments: argparse.Namespace, resolved: ResolvedModel, mode: Mode, paths: Iterable[Path], count: int
) -> Iterator[Outcome]:
    """Loads the weights and yields the outcomes; shows progress and unreadable photos."""
    form, preprocess = resolved.photo_format, resolved.preprocess
    batch_size = arguments.batch_size or usual_batch_size()
    network = resolved.model, resolved.load()
    model, variables = optimize_for_batches(*network, mode, batch_size, jax.local_devices(), arguments.precision)
    if arguments.describe:
        dtype = resolved.resizing.dtype(form.channels)
        given: dict[str, Any] = {"dtype": dtype, "preprocess": preprocess, "variables": variables}
        write_costs(sys.stderr, estimate_costs(model, batch_size, form.shape, **given), batch_size)
    with PhotoProgress("Predicting", count) as progress:
        for path, result in predict_stream(
            model, variables, paths, form, resolved.resizing, batch_size=batch_size, preprocess=preprocess
        ):
            if isinstance(result, Exception):
                if arguments.on_error == "raise":
                    raise result
                progress.fail(describe_error(result))
            else:
                progress.advance()
            yield path, result


def _facts(arguments: argparse.Namespace, resolved: ResolvedModel, mode: Mode, file: PredictedFile) -> dict[str, str]:
    """Returns everything that must match for a run to reuse existing shards."""
    names = fingerprint_of({str(index): name for index, name in enumerate(file.labels or ())})[:8]
    classes = "" if file.is_binary else f", {file.top} classes, names {names if file.labels else 'by default'}"
    rounded = "" if arguments.precision == "float32" else f", products in {arguments.precision}"
    return {
        "model": resolved.identity,
        "layer": f"{arguments.layer or 'the last'}{', with softmax' if arguments.softmax else ''}",
        "format": f"{file.form}{classes}",
        "photo size": " x ".join(map(str, resolved.photo_format.shape)),
        "resizing": resolved.resizing.describe(),
        "preprocessing": resolved.preprocess or "none",
        "computing": f"{arguments.dtype or 'as the model'}, {mode}{rounded}",
    }


def _check(arguments: argparse.Namespace) -> None:
    binary, folder, distributed = arguments.format == "npz", arguments.output_folder, arguments.distributed
    problem = None
    if arguments.output and folder:
        problem = "--output and --output-folder exclude each other: give one of them"
    elif binary and not (arguments.output or folder):
        problem = "--format npz cannot be printed: give --output or --output-folder"
    elif arguments.layer and not binary:
        problem = f"--layer needs --format npz, got --format {arguments.format}"
    elif folder and arguments.format in ("table", "json"):
        problem = f"--output-folder needs --format csv, jsonl or npz, got --format {arguments.format}"
    elif not folder and (distributed or arguments.num_processes > 1 or arguments.process_id or arguments.shard_size):
        problem = "--distributed, --process-id, --num-processes and --shard-size need --output-folder"
    elif distributed and (arguments.num_processes > 1 or arguments.process_id):
        problem = "--distributed replaces --process-id and --num-processes: give one or the other"
    elif not 0 <= arguments.process_id < arguments.num_processes:
        problem = f"--process-id must be from 0 to {arguments.num_processes - 1}, got {arguments.process_id}"
    if problem:
        raise ValueError(problem)


def _tell_unnamed(file: PredictedFile, model: Model) -> None:
    """Names, on a terminal, the options that make labels and scores easier to read."""
    if file.is_binary or not sys.stderr.isatty():
        return
    if file.labels is None and model.output_shape[-1] != len(class_names()):
        print("flaxapps: the class names are not known; give a file of them, one per line: --labels", file=sys.stderr)
    if last_activation(model) == "linear":
        print("flaxapps: the scores are logits; for probabilities, give --softmax", file=sys.stderr)


def _tell_missing(failed: int, count: int, left_out: Mapping[str, int]) -> int:
    if left_out and is_first():
        print(f"flaxapps: {describe_left_out(left_out)}", file=sys.stderr)
    if failed:
        print(f"flaxapps: {failed} of {count} photos could not be read", file=sys.stderr)
    return 1 if failed else 0


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps predict`."""
    keep_compilations()
    return predict_photos(arguments)
