"""Entry points of the commands `flaxapps` and `python -m weight_port`.

The parsers import nothing, and what a command runs is imported after its arguments are parsed: --help and errors in
arguments answer at once.
"""

import argparse
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from flaxapps.cli.arguments import demo, evaluate, export, finetune, predict, quantize
from flaxapps.cli.arguments.networks import add_networks
from flaxapps.cli.arguments.shared import add_device
from flaxapps.cli.arguments.weights import EXAMPLES as WEIGHT_EXAMPLES
from flaxapps.cli.arguments.weights import add_weight_commands
from flaxapps.cli.parsers import add_command, new_parser

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
WEIGHTS_PROGRAM = "python -m weight_port"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command of `flaxapps`.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: 0, 1 after an error, or 130 after an interruption. `diff` and `verify` return 1 if they find a
        difference; these two, `convert` and `inspect` return 2 after an error.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help and --version.
    """
    arguments = new_flaxapps_parser().parse_args(argv)
    from flaxapps.cli.running import run_parsed
    from flaxapps.runtime.process import keep_freed_memory

    if argv is None:  # not called as a function, so the setting affects no other code in the process
        keep_freed_memory()
    return run_parsed("flaxapps", arguments)


def weights_main(argv: Sequence[str] | None = None) -> int:
    """Runs a command of `python -m weight_port`.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: 0; 1 if `diff` or `verify` find a difference; 2 after an error; 130 after an interruption.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help.
    """
    description = "Inspects, converts, compares and verifies Keras weight files."
    parser, commands = new_parser(WEIGHTS_PROGRAM, description, WEIGHT_EXAMPLES.format(program=WEIGHTS_PROGRAM))
    add_weight_commands(commands, WEIGHTS_PROGRAM)
    arguments = parser.parse_args(argv)
    from flaxapps.cli.running import run_parsed

    return run_parsed("weight_port", arguments)


def new_flaxapps_parser() -> argparse.ArgumentParser:
    """Creates the parser of `flaxapps`, with all commands in the order of `SUMMARIES`."""
    parser, commands = new_parser("flaxapps", "Keras Applications in JAX.", EXAMPLES)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_networks(commands)
    computing = {}
    for name, module in (
        ("predict", predict), ("evaluate", evaluate), ("export", export), ("finetune", finetune), ("quantize", quantize)
    ):  # fmt: skip # kept on few lines on purpose
        computing[name] = add_command(commands, name, module.EXAMPLES)
        module.add_arguments(computing[name])
    add_weight_commands(commands, "flaxapps")
    computing["demo"] = add_command(commands, "demo")
    demo.add_arguments(computing["demo"])
    for command in computing.values():
        add_device(command)
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
