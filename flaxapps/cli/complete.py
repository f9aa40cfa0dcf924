"""All commands of `flaxapps` with their arguments."""

from typing import Any

from flaxapps.cli import demo, evaluate, export, networks, quantize
from flaxapps.cli.finetune import command as finetune
from flaxapps.cli.options import add_device
from flaxapps.cli.parsers import add_command
from flaxapps.cli.predict import command as predict
from flaxapps.cli.program import run_command as run_command
from flaxapps.cli.weights.command import add_weight_commands


def add_commands(commands: Any) -> None:
    """Adds the commands, in the order of `SUMMARIES`.

    Args:
        commands: From `new_parser`.
    """
    networks.add_commands(commands)
    computing = {}
    for name, module in (
        ("predict", predict), ("evaluate", evaluate), ("export", export), ("finetune", finetune), ("quantize", quantize)
    ):  # fmt: skip # kept on few lines on purpose
        computing[name] = add_command(commands, name, module.run, module.EXAMPLES)
        module.add_arguments(computing[name])
    add_weight_commands(commands, "flaxapps")
    computing["demo"] = add_command(commands, "demo", demo.run)
    demo.add_arguments(computing["demo"])
    for command in computing.values():
        add_device(command)
