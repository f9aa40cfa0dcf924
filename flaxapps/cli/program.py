"""Parsers of the commands, and running one with error messages and exit codes."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flaxapps.runtime.console import describe_error, printable

Command = Callable[[argparse.Namespace], int]

FORMATTER = argparse.RawDescriptionHelpFormatter  # leaves examples as they are written


def new_parser(program: str, description: str, examples: str) -> tuple[argparse.ArgumentParser, Any]:
    """Creates a parser with subcommands.

    Returns:
        The parser, and its subparsers for `add_command`.
    """
    parser = argparse.ArgumentParser(prog=program, description=description, epilog=examples, formatter_class=FORMATTER)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(
    commands: Any, name: str, run: Command, summary: str, epilog: str | None = None, *, error_code: int = 1
) -> Any:
    """Adds a command.

    Args:
        commands: From `new_parser`.
        name: Name of the command.
        run: Takes the parsed arguments and returns the exit code.
        summary: One line of help, also the beginning of the command's own help text.
        epilog: The end of that help text.
        error_code: The exit code after an error.

    Returns:
        The parser of the command, for its arguments.
    """
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=description, epilog=epilog, formatter_class=FORMATTER)
    # SUPPRESS, because a default would overwrite a --debug given before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.set_defaults(run=run, error_code=error_code)
    return command


def run_command(parser: argparse.ArgumentParser, program: str, argv: Sequence[str] | None) -> int:
    """Runs the command named by `argv`; errors are printed as one line on stderr.

    Args:
        parser: From `new_parser`.
        program: Prefix of that line.
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: the command's own, its `error_code` after an error, or 130 after an interruption.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help and --version.
    """
    arguments = parser.parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold characters the terminal cannot encode
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, program)
            code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `flaxapps list | head -1`
        # Python flushes stdout once more at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(arguments.error_code)
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        print(f"{program}: error: {printable(describe_error(error))}", file=sys.stderr)
        return int(arguments.error_code)


def _show_warning(program: str, message: Warning | str, *origin: Any) -> None:
    """Prints a warning as one line, without the line of code that it comes from."""
    print(f"{program}: {printable(' '.join(str(message).split()))}", file=sys.stderr)
