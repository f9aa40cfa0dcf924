"""Arguments and help texts of `flaxapps list`, `info`, `summary` and `plot`."""

from typing import Any

from flaxapps.cli.arguments.shared import ROW_FORMATS, add_architecture, add_format, positive
from flaxapps.cli.parsers import add_command

LIST_EXAMPLES = """examples:
  flaxapps list
  flaxapps list "resnet*v2"
  flaxapps list --format csv
"""
INFO_EXAMPLES = """examples:
  flaxapps info resnet50
"""
SUMMARY_EXAMPLES = """examples:
  flaxapps summary vgg16
  flaxapps summary inception_v3 --no-top --input-shape 200 300
  flaxapps summary mine.keras
"""
PLOT_EXAMPLES = """examples:
  flaxapps plot resnet50 --output resnet50.svg
  flaxapps plot inception_v3 --no-top --full --output layers.svg
  flaxapps plot mine.keras --output mine.png
"""


def add_networks(commands: Any) -> None:
    """Adds `list`, `info`, `summary` and `plot`."""
    command = add_command(commands, "list", LIST_EXAMPLES)
    command.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help='such as "mobilenet*"')
    add_format(command, ROW_FORMATS)
    command = add_command(commands, "info", INFO_EXAMPLES)
    command.add_argument("name", metavar="NAME", help="a network of `flaxapps list`")

    command = add_command(commands, "summary", SUMMARY_EXAMPLES)
    add_architecture(command)
    command.add_argument("--describe", action="store_true", help="also show operations and memory of one batch")
    command.add_argument("--batch-size", type=positive, default=1, metavar="N", help="for --describe (default: 1)")

    command = add_command(commands, "plot", PLOT_EXAMPLES)
    add_architecture(command)
    command.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="file to write: .svg, .png or .pdf",
    )
    command.add_argument("--full", action="store_true", help="every layer, also in nested models (default: blocks)")
