"""Entry point of the command `flaxapps`."""

import argparse
import importlib.metadata

from flaxapps.cli import demo, evaluate, export, networks, quantize
from flaxapps.cli.finetune import command as finetune
from flaxapps.cli.predict import command as predict
from flaxapps.cli.program import add_command, new_parser, run_command
from flaxapps.cli.weights.command import add_weight_commands
from flaxapps.runtime.process import keep_freed_memory

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


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        The exit code: 0, 1 after an error, or 130 after an interruption. `diff` and `verify` return 1 if they find a
        difference; these two, `convert` and `inspect` return 2 after an error.

    Raises:
        SystemExit: With code 2 for invalid arguments, with 0 after --help and --version.
    """
    if argv is None:  # not called as a function, so the setting affects no other code in the process
        keep_freed_memory()
    return run_command(new_flaxapps_parser(), "flaxapps", argv)


def new_flaxapps_parser() -> argparse.ArgumentParser:
    """Creates the parser of `flaxapps`, with all commands."""
    parser, commands = new_parser("flaxapps", "Keras Applications in JAX.", EXAMPLES)
    parser.add_argument("--version", action="version", version=f"flaxapps {_version()}")
    networks.add_commands(commands)
    predict.add_arguments(add_command(commands, "predict", predict.run, "classify photos", predict.EXAMPLES))
    evaluate.add_arguments(
        add_command(commands, "evaluate", evaluate.run, "measure accuracy on labelled photos", evaluate.EXAMPLES)
    )
    export.add_arguments(
        add_command(commands, "export", export.run, "write a network as a StableHLO file", export.EXAMPLES)
    )
    finetune.add_arguments(
        add_command(commands, "finetune", finetune.run, "train a network for classes of your own", finetune.EXAMPLES)
    )
    quantize.add_arguments(
        add_command(commands, "quantize", quantize.run, "write a network in int8, for CPUs", quantize.EXAMPLES)
    )
    add_weight_commands(commands, "flaxapps")
    demo.add_arguments(
        add_command(commands, "demo", demo.run, "classify real photos with a real Keras model, then train it")
    )
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("flaxapps")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
