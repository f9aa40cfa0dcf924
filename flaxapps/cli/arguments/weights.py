"""Arguments and help texts of `flaxapps inspect`, `convert`, `diff` and `verify`."""

from typing import Any

from flaxapps.cli.arguments.shared import ROW_FORMATS, add_format, at_least
from flaxapps.cli.parsers import add_command

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


def add_weight_commands(commands: Any, program: str) -> None:
    """Adds `inspect`, `convert`, `diff` and `verify`.

    Args:
        commands: From `new_parser`.
        program: The command as users type it, for the examples.
    """

    def add(name: str, examples: str) -> Any:
        return add_command(commands, name, examples.format(program=program), error_code=2)

    command = add("inspect", EXAMPLES)
    command.add_argument(
        "file",
        metavar="FILE|DIR",
        help=".h5, .weights.h5, .keras, .json, .npz, an Orbax folder, or a folder of `flaxapps finetune`",
    )
    add_format(command, ROW_FORMATS)

    command = add("convert", CONVERT_EXAMPLES)
    command.add_argument("source", metavar="IN", help="weights of any format, recognized by content")
    command.add_argument("target", metavar="OUT", help="file to write; its name decides the format")
    _add_model(command)

    command = add("diff", DIFF_EXAMPLES)
    command.add_argument("first", metavar="A", help="weights of any format")
    command.add_argument("second", metavar="B", help="weights of any format")
    add_format(command, ROW_FORMATS)
    _add_model(command)

    command = add("verify", VERIFY_EXAMPLES)
    command.add_argument("file", metavar="FILE|DIR", help="a whole model, .keras or .h5; or a folder of finetune")
    command.add_argument(
        "--tolerance",
        type=at_least(0, float),
        default=1e-5,
        metavar="X",
        help="largest difference allowed, relative to the layer's largest value (default: 1e-5)",
    )
    add_format(command, ROW_FORMATS)


def _add_model(command: Any) -> None:
    command.add_argument(
        "--model",
        metavar="NAME|FILE.keras|DIR",
        help="the network: one of `flaxapps list`, a whole Keras model, or a folder of finetune",
    )
    command.add_argument("--no-top", action="store_true", help="take the network of that name without its classifier")
