"""`flaxapps inspect`, `convert`, `diff` and `verify`, also as `python -m weight_port`."""

import argparse
import sys
from typing import Any

from flaxapps.cli.models import stored_model
from flaxapps.cli.options import add_format, network_or_file
from flaxapps.cli.parsers import add_command, new_parser
from flaxapps.cli.program import run_command
from flaxapps.cli.rows import ROW_FORMATS, write_rows
from flaxapps.cli.weights.compare import compare_files
from flaxapps.cli.weights.convert import convert
from flaxapps.cli.weights.verify import first_beyond, verify_file
from flaxapps.runtime.console import new_table, open_console, printable
from flaxapps.saving.load import examine
from weight_port.formats import is_whole_model
from weight_port.inspecting import inspect_file
from weight_port.readers import is_json

PROGRAM = "python -m weight_port"
EXAMPLES = """examples:
  {program} inspect vgg16_weights.h5
  {program} convert mine.keras mine.npz
  {program} diff before.weights.h5 after.weights.h5
  {program} verify mine.keras

The exit code is 0, 1 if diff or verify find a difference, or 2 after an error.
"""
CONVERT_EXAMPLES = """examples:
  {program} convert mine.keras mine.weights.h5
  {program} convert vgg16_notop.h5 vgg16.npz --model vgg16 --no-top
  {program} convert checkpoint/ mine.keras --model original.keras

The name of OUT decides the format: x.h5 (Keras 2), x.weights.h5, x.keras, x.npz, or an Orbax folder for a name
without suffix or with a slash at its end. OUT is replaced atomically. Values are copied bit for bit.
"""
DIFF_EXAMPLES = """examples:
  {program} diff before.weights.h5 after.weights.h5
  {program} diff vgg16.h5 vgg16.weights.h5 --model vgg16

Files of the same format are compared by the names stored in them. With --model, or if formats differ and one file is
a whole model, both are matched with the model's layers, as in loading. Exit code: 0 equal, 1 different, 2 error.
"""
VERIFY_EXAMPLES = """examples:
  {program} verify mine.keras
  {program} verify mine.h5 --tolerance 1e-4

Needs Keras 3 and flaxapps. Exit code: 0 within the tolerance, 1 beyond, 2 error.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command of `python -m weight_port`.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: 0; 1 if `diff` or `verify` find a difference; 2 after an error; 130 after an interruption.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help.
    """
    description = "Inspects, converts, compares and verifies Keras weight files."
    parser, commands = new_parser(PROGRAM, description, EXAMPLES.format(program=PROGRAM))
    add_weight_commands(commands, PROGRAM)
    return run_command(parser, "weight_port", argv)


def add_weight_commands(commands: Any, program: str) -> None:
    """Adds `inspect`, `convert`, `diff` and `verify`.

    Args:
        commands: From `new_parser`.
        program: The command as users type it, for the examples.
    """

    def add(name: str, run: Any, examples: str) -> Any:
        return add_command(commands, name, run, examples.format(program=program), error_code=2)

    command = add("inspect", _inspect, EXAMPLES)
    command.add_argument(
        "file",
        type=stored_model,
        metavar="FILE|DIR",
        help=".h5, .weights.h5, .keras, .json, .npz, an Orbax folder, or a folder of `flaxapps finetune`",
    )
    add_format(command, ROW_FORMATS)

    command = add("convert", _convert, CONVERT_EXAMPLES)
    command.add_argument("source", type=stored_model, metavar="IN", help="weights of any format, recognized by content")
    command.add_argument("target", metavar="OUT", help="file to write; its name decides the format")
    _add_model(command)

    command = add("diff", _diff, DIFF_EXAMPLES)
    command.add_argument("first", type=stored_model, metavar="A", help="weights of any format")
    command.add_argument("second", type=stored_model, metavar="B", help="weights of any format")
    add_format(command, ROW_FORMATS)
    _add_model(command)

    command = add("verify", _verify, VERIFY_EXAMPLES)
    command.add_argument(
        "file", type=stored_model, metavar="FILE|DIR", help="a whole model, .keras or .h5; or a folder of finetune"
    )
    command.add_argument(
        "--tolerance",
        type=_tolerance,
        default=1e-5,
        metavar="X",
        help="largest difference allowed, relative to the layer's largest value (default: 1e-5)",
    )
    add_format(command, ROW_FORMATS)


def _add_model(command: Any) -> None:
    command.add_argument(
        "--model",
        type=_named_model,
        metavar="NAME|FILE.keras|DIR",
        help="the network: one of `flaxapps list`, a whole Keras model, or a folder of finetune",
    )
    command.add_argument("--no-top", action="store_true", help="take the network of that name without its classifier")


def _named_model(text: str) -> str:
    return network_or_file(stored_model(text))


def _tolerance(text: str) -> float:
    if not (number := float(text)) >= 0:
        raise argparse.ArgumentTypeError("should be at least 0")
    return number


_tolerance.__name__ = "number"  # argparse says "invalid number value: 'x'"


def _inspect(arguments: argparse.Namespace) -> int:
    if arguments.format != "table":
        arrays = inspect_file(arguments.file).arrays
        values = [(each.layer, each.name, str(each.shape), each.size, each.dtype) for each in arrays]
        _write(("layer", "array", "shape", "parameters", "dtype"), values, arguments.format)
        return 0
    whole = is_json(arguments.file) or is_whole_model(arguments.file)
    if whole:
        _print_examination(arguments.file)
        if is_json(arguments.file):
            return 0
    contents = inspect_file(arguments.file)
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


def _convert(arguments: argparse.Namespace) -> int:
    convert(arguments.source, arguments.target, arguments.model, top=not arguments.no_top)
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    equal, differences = compare_files(arguments.first, arguments.second, arguments.model, top=not arguments.no_top)
    _write(("array", "state", "shape or largest difference"), differences, arguments.format)
    if arguments.format == "table":
        print(f"{equal:,} arrays are equal, {len(differences):,} are not")
    return 1 if differences else 0


def _verify(arguments: argparse.Namespace) -> int:
    differences = verify_file(arguments.file)
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
