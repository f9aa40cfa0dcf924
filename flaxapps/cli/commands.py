"""Entry point of the command `flaxapps`. The commands are imported only when one is given: --help answers at once."""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from flaxapps.cli.parsers import SUMMARIES, new_parser

EXAMPLES = """examples:
  flaxapps list
  flaxapps info resnet50
  flaxapps summary xception --no-top --input-shape 150 150
  flaxapps plot resnet50 --output resnet50.svg
  flaxapps predict photos/ --model resnet50 --top 3
  flaxapps finetune photos_by_class/ --model xception --output mine/
  flaxapps evaluate other_photos_by_class/ --model mine/
  flaxapps export resnet50 --output resnet50.stablehlo
  flaxapps quantize resnet50 photos/ --output resnet50_int8.npz
  flaxapps inspect mine.h5
  flaxapps demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: 0, 1 after an error, or 130 after an interruption. `diff` and `verify` return 1 if they find a
        difference; these two, `convert` and `inspect` return 2 after an error.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help and --version.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    named = any(each in SUMMARIES for each in given[:2])  # the second one after --debug
    if not named:
        new_flaxapps_parser(complete=False).parse_args(given)  # --help, --version, or an error: it exits
    from flaxapps.cli.complete import run_command
    from flaxapps.runtime.process import keep_freed_memory

    if argv is None:  # not called as a function, so the setting affects no other code in the process
        keep_freed_memory()
    return run_command(new_flaxapps_parser(), "flaxapps", argv)


def new_flaxapps_parser(*, complete: bool = True) -> argparse.ArgumentParser:
    """Creates the parser of `flaxapps`.

    Args:
        complete: Whether the commands have their arguments, for which all of them are imported.
    """
    parser, commands = new_parser("flaxapps", "Keras Applications in JAX.", EXAMPLES)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    if complete:
        from flaxapps.cli.complete import add_commands

        add_commands(commands)
    else:
        for name, summary in SUMMARIES.items():
            commands.add_parser(name, help=summary)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for, which takes a tenth of a second."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(f"flaxapps {_version()}")
        parser.exit()


def _version() -> str:
    try:
        return importlib.metadata.version("flaxapps")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
