"""`flaxapps inspect`, `convert`, `diff` and `verify`, also as `python -m weight_port`."""

import argparse
import sys
from typing import Any

from flaxapps.cli.models import stored_model
from flaxapps.cli.rows import write_rows
from flaxapps.cli.weights.compare import compare_files
from flaxapps.cli.weights.convert import convert
from flaxapps.cli.weights.verify import first_beyond, verify_file
from flaxapps.runtime.console import new_table, open_console, printable
from flaxapps.saving.load import examine
from weight_port.formats import is_whole_model
from weight_port.inspecting import inspect_file
from weight_port.readers import is_json


def run_inspect(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps inspect`."""
    file = stored_model(arguments.file)
    if arguments.format != "table":
        arrays = inspect_file(file).arrays
        values = [(each.layer, each.name, str(each.shape), each.size, each.dtype) for each in arrays]
        _write(("layer", "array", "shape", "parameters", "dtype"), values, arguments.format)
        return 0
    whole = is_json(file) or is_whole_model(file)
    if whole:
        _print_examination(file)
        if is_json(file):
            return 0
    contents = inspect_file(file)
    for heading, fact in contents.facts.items():
        print(f"{heading:<15}{printable(fact)}")
    rows: list[tuple[str, ...]] = []
    last = None
    for array in contents.arrays:
        layer = "" if array.layer == last else array.layer
        rows.append((layer, array.name, str(array.shape), f"{array.size:,}", array.dtype))
        last = array.layer
    _write(("layer", "array", "shape", "parameters", "dtype"), rows, "table")
    return 0


def _print_examination(path: str) -> None:
    """Prints whether flaxapps can import a file, with the reasons and warnings."""
    found = examine(path)
    lines = [f"refused: {line}" for line in found.refused] + [f"warning: {line}" for line in found.warned]
    print(f"{'written by':<15}{printable(found.version)}")
    print(f"{'flaxapps':<15}{'cannot import it' if found.refused else 'imports it'}")
    for line in lines:
        print(f"  {printable(line)}")


def run_convert(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps convert`."""
    convert(stored_model(arguments.source), arguments.target, _model(arguments), top=not arguments.no_top)
    print(f"{arguments.target} is written")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps diff`."""
    first, second = stored_model(arguments.first), stored_model(arguments.second)
    equal, differences = compare_files(first, second, _model(arguments), top=not arguments.no_top)
    _write(("array", "state", "shape or largest difference"), differences, arguments.format)
    if arguments.format == "table":
        print(f"{equal:,} arrays are equal, {len(differences):,} are not")
    return 1 if differences else 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps verify`."""
    differences = verify_file(stored_model(arguments.file))
    worst = max(differences, key=lambda each: each.relative if each.relative == each.relative else float("inf"))
    headings = "layer", "kind", "relative difference"
    if arguments.format != "table":
        _write(headings, differences, arguments.format)
        return 0 if first_beyond(differences, arguments.tolerance) is None else 1
    _write(headings, [(name, kind, f"{value:.2g}") for name, kind, value in differences], "table")
    print(f"largest relative difference: {worst.relative:.2g} in layer {printable(worst.layer)!r}")
    beyond = first_beyond(differences, arguments.tolerance)
    if beyond is None:
        return 0
    print(f"first beyond {arguments.tolerance:g}: layer {printable(beyond.layer)!r} of kind {beyond.kind}")
    return 1


def _model(arguments: argparse.Namespace) -> str | None:
    return stored_model(arguments.model) if arguments.model else None


def _write(headings: tuple[str, ...], rows: Any, form: str) -> None:
    if form != "table":
        write_rows(sys.stdout, form, (dict(zip(headings, row, strict=True)) for row in rows), headings)
        return
    if not rows:
        return
    table = new_table()
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "parameters" else "left")
    for row in rows:
        table.add_row(*map(printable, row))
    open_console().print(table)
