"""The command `python -m weight_port`.

What a command needs is imported when it runs, so that --help and errors in arguments answer at once.
"""

import argparse
import os
import sys
from typing import Any

FORMATTER = argparse.RawDescriptionHelpFormatter  # leaves examples as they are written
ENTRIES_SHOWN = 5  # of each list in an error about weights
WIDTH_OF_FILES = 140  # columns; a file or a pipe has no width of its own
EXAMPLES = """examples:
  python -m weight_port inspect vgg16_weights.h5
  python -m weight_port convert mine.keras mine.npz
  python -m weight_port diff before.weights.h5 after.weights.h5
  python -m weight_port verify mine.keras

The exit code is 0, or 1 where diff or verify find a difference, or 2 after an error.
"""
CONVERT_EXAMPLES = """examples:
  python -m weight_port convert mine.keras mine.weights.h5
  python -m weight_port convert vgg16_notop.h5 vgg16.npz --model vgg16 --no-top
  python -m weight_port convert checkpoint/ mine.keras --model original.keras

The name of OUT says what is written: x.h5 (Keras 2), x.weights.h5, x.keras, x.npz, or an Orbax folder for a name
without suffix or with a slash at its end. OUT is replaced when it is complete; values stay the same to the bit.
"""
DIFF_EXAMPLES = """examples:
  python -m weight_port diff before.weights.h5 after.weights.h5
  python -m weight_port diff vgg16.h5 vgg16.weights.h5 --model vgg16

Files of one form are compared by the names stored in them. With --model, or where one of two forms is a whole model,
both are matched with the model's layers, as loading does. Exit code: 0 equal, 1 different, 2 error.
"""
VERIFY_EXAMPLES = """examples:
  python -m weight_port verify mine.keras
  python -m weight_port verify mine.h5 --tolerance 1e-4

Needs Keras 3 and flaxapps. Exit code: 0 within the tolerance, 1 beyond, 2 error.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code: 0; 1 where things differ; 2 after an error; 130 after an interruption.

    Raises:
        SystemExit: With 2 for arguments that make no sense, with 0 after --help.
    """
    arguments = _parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name the terminal cannot show is no error
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
        return 2
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("weight_port: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        print(f"weight_port: error: {_printable(_describe(error))}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m weight_port",
        description="Inspects, converts, compares and verifies Keras weight files.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _add_command(commands, "inspect", _inspect, "what is in a file", EXAMPLES)
    command.add_argument("file", metavar="FILE", help=".h5, .weights.h5, .keras, .npz or an Orbax folder")

    command = _add_command(commands, "convert", _convert, "write weights in another form", CONVERT_EXAMPLES)
    command.add_argument("source", metavar="IN", help="weights of any form, told by content")
    command.add_argument("target", metavar="OUT", help="what to write; its name says the form")
    _add_model(command)

    command = _add_command(commands, "diff", _diff, "what differs between two files", DIFF_EXAMPLES)
    command.add_argument("first", metavar="A", help="weights of any form")
    command.add_argument("second", metavar="B", help="weights of any form")
    _add_model(command)

    command = _add_command(commands, "verify", _verify, "compare every layer with real Keras", VERIFY_EXAMPLES)
    command.add_argument("file", metavar="FILE", help="a whole model: .keras or .h5")
    command.add_argument(
        "--tolerance",
        type=_tolerance,
        default=1e-5,
        metavar="X",
        help="largest difference allowed, relative to the layer's largest value (default: 1e-5)",
    )
    return parser


def _add_command(commands: Any, name: str, run: Any, summary: str, epilog: str) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=description, epilog=epilog, formatter_class=FORMATTER)
    # SUPPRESS: the default must not undo a --debug before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.set_defaults(run=run)
    return command


def _add_model(command: Any) -> None:
    command.add_argument(
        "--model", metavar="NAME|FILE.keras", help="the network: one of `flaxapps list`, or a whole model of Keras"
    )
    command.add_argument("--no-top", action="store_true", help="the network of that name is without its classifier")


def _tolerance(text: str) -> float:
    if not (number := float(text)) >= 0:
        raise argparse.ArgumentTypeError("should be at least 0")
    return number


_tolerance.__name__ = "number"  # argparse says "invalid number value: 'x'"


def _inspect(arguments: argparse.Namespace) -> int:
    from weight_port.inspecting import inspect_file

    contents = inspect_file(arguments.file)
    for heading, fact in contents.facts.items():
        print(f"{heading:<15}{_printable(fact)}")
    rows = []
    last = None
    for array in contents.arrays:
        layer = "" if array.layer == last else array.layer
        rows.append((layer, array.name, str(array.shape), f"{array.size:,}", array.dtype))
        last = array.layer
    _print_table(("layer", "array", "shape", "parameters", "dtype"), rows)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from weight_port.forms import convert

    convert(arguments.source, arguments.target, arguments.model, top=not arguments.no_top)
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from weight_port.comparing import compare_files

    equal, differences = compare_files(arguments.first, arguments.second, arguments.model, top=not arguments.no_top)
    _print_table(("array", "state", "shape or largest difference"), differences)
    print(f"{equal:,} arrays are equal, {len(differences):,} are not")
    return 1 if differences else 0


def _verify(arguments: argparse.Namespace) -> int:
    from weight_port.verifying import first_departure, verify_file

    departures = verify_file(arguments.file)
    worst = max(departures, key=lambda each: each.relative if each.relative == each.relative else float("inf"))
    _print_table(("layer", "kind", "relative difference"), [(n, k, f"{value:.2g}") for n, k, value in departures])
    print(f"largest relative difference: {worst.relative:.2g} in layer {_printable(worst.layer)!r}")
    departed = first_departure(departures, arguments.tolerance)
    if departed is None:
        return 0
    print(f"first beyond {arguments.tolerance:g}: layer {_printable(departed.layer)!r} of kind {departed.kind}")
    return 1


def _print_table(headings: tuple[str, ...], rows: Any) -> None:
    if not rows:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "parameters" else "left")
    for row in rows:
        table.add_row(*map(_printable, row))
    # Without a width rich takes a pipe for a terminal of 80 columns.
    width = None if sys.stdout.isatty() else WIDTH_OF_FILES
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(table)


def _printable(text: str) -> str:
    """The text without what would steer a terminal: names come out of files of unknown origin."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _describe(error: Exception) -> str:
    """One line on an error."""
    from weight_port.errors import WeightError

    if isinstance(error, WeightError):
        parts = [" ".join(error.message.split())]
        for heading in ("missing", "unexpected", "misshapen"):
            entries = getattr(error, heading)
            more = f" and {len(entries) - ENTRIES_SHOWN} more" if len(entries) > ENTRIES_SHOWN else ""
            parts += [f"{heading} ({len(entries)}): {', '.join(entries[:ENTRIES_SHOWN])}{more}"] if entries else []
        return "; ".join(parts)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError | ImportError):
        message = f"unexpected {type(error).__name__}: {message} (--debug shows where it comes from)"
    return message
