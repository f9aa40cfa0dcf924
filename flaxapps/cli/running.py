"""Runs any of the commands. Importing this imports all of them, and JAX."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType

from flaxapps.cli import demo, evaluate, export, networks, quantize
from flaxapps.cli.finetune import command as finetune
from flaxapps.cli.predict import command as predict
from flaxapps.cli.program import run_command
from flaxapps.cli.weights import command as weights
from flaxapps.registry import find_name

RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = MappingProxyType(
    {
        "list": networks.run_list,
        "info": networks.run_info,
        "summary": networks.run_summary,
        "plot": networks.run_plot,
        "predict": predict.run,
        "evaluate": evaluate.run,
        "export": export.run,
        "finetune": finetune.run,
        "quantize": quantize.run,
        "inspect": weights.run_inspect,
        "convert": weights.run_convert,
        "diff": weights.run_diff,
        "verify": weights.run_verify,
        "demo": demo.run,
    }
)


def run_parsed(program: str, arguments: argparse.Namespace) -> int:
    """Runs the command that the arguments are for.

    Args:
        program: Prefix of error messages.
        arguments: From a parser of `flaxapps.cli.commands`.

    Returns:
        The exit code, as for `run_command`.
    """
    if model := getattr(arguments, "model", None):
        arguments.model = find_name(model) or model  # "MobileNetV2" and other spellings
    return run_command(RUNS[arguments.command], program, arguments)
