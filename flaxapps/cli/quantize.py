"""`flaxapps quantize`: write a network with int8 layers, and report what that changes."""

import argparse
import sys
from pathlib import Path

from flaxapps.cli.models import Recipe, resolve_model
from flaxapps.cli.options import check_resize, given_resizing, given_size
from flaxapps.photos.files import find_photos
from flaxapps.photos.reading import read_photos
from flaxapps.quantization.quantize import quantization_report, quantize
from flaxapps.runtime.console import describe_error, printable
from flaxapps.runtime.files import as_path
from flaxapps.runtime.process import keep_compilations
from flaxapps.saving.graph_file import SUFFIX, save_graph

REPORTED = 4  # every n-th photo is for the report, if no others are given


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps quantize`."""
    keep_compilations()
    if not arguments.output.endswith(SUFFIX):
        raise ValueError(f"--output should end in {SUFFIX}, got {arguments.output}")
    if not as_path(arguments.output).parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {as_path(arguments.output).parent}")
    photos, held_out = _split(arguments)
    resolved = resolve_model(
        arguments.model,
        weights=arguments.weights,
        size=given_size(arguments),
        labels=arguments.labels,
        preprocess=arguments.preprocess,
        resizing=given_resizing(arguments),
    )
    model, form, preprocess = resolved.model, resolved.photo_format, resolved.preprocess
    check_resize(arguments, form)
    unreadable = None if arguments.on_error == "raise" else _skip
    batches, others = (
        [batch for _, batch in read_photos(paths, form, resolved.resizing, unreadable=unreadable)]
        for paths in (photos, held_out)
    )
    variables = resolved.load()
    quantized = quantize(
        model,
        variables,
        batches,
        preprocess=preprocess,
        calibration=arguments.calibration,
        keep_float=arguments.keep_float,
        held_out=others or None,
        largest_change=arguments.largest_change,
        agreement=arguments.agreement,
    )
    recipe = Recipe(arguments.output, resizing=resolved.resizing)
    names = None if resolved.class_names is None else list(resolved.class_names)
    settings = {"class_names": names, "preprocess": preprocess or "none", **recipe.kept_resizing}
    save_graph(*quantized, arguments.output, settings)  # `read_recipe` reads the settings
    if others:
        print(quantization_report(model, variables, quantized, others, preprocess=preprocess))
    else:
        print("flaxapps: no report: give more photos, or others with --held-out", file=sys.stderr)
    print(f"{arguments.output} holds the quantized model: flaxapps predict PHOTOS --model {arguments.output}")
    return 0


def _skip(path: Path, error: Exception) -> None:
    print(f"flaxapps: left out: {printable(describe_error(error))}", file=sys.stderr)


def _split(arguments: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Returns the photos to measure ranges on, and those for the report."""
    photos = find_photos(arguments.images).photos
    if arguments.held_out:
        return photos, find_photos(arguments.held_out).photos
    return [photo for index, photo in enumerate(photos) if index % REPORTED != REPORTED - 1], photos[
        REPORTED - 1 :: REPORTED
    ]
