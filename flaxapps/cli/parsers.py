"""Parsers of the commands. Imports nothing else of ours, so that `flaxapps --help` answers at once."""

import argparse
import re
import textwrap
from types import MappingProxyType
from typing import Any, NoReturn

# One line of help for each command, in the order of `flaxapps --help`.
SUMMARIES = MappingProxyType(
    {
        "list": "list the networks",
        "info": "show facts about a network and its weight files",
        "summary": "list the layers of a network",
        "plot": "draw a network as SVG, PNG or PDF",
        "predict": "classify photos",
        "evaluate": "measure accuracy on labelled photos",
        "export": "write a network as a StableHLO file",
        "finetune": "train a network for classes of your own",
        "quantize": "write a network in int8, for CPUs",
        "inspect": "list the contents of a weight or model file, and what cannot be imported",
        "convert": "write weights in another format",
        "diff": "compare two files of weights",
        "verify": "compare every layer of a model with real Keras",
        "demo": "classify real photos with a real Keras model, then train it",
    }
)


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in two lines: the usage of `finetune` would hide it below forty."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and a message that names the argument."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help shows the arguments\n")


class HelpFormatter(argparse.HelpFormatter):
    """Fits help texts to the terminal: paragraphs flow, and examples, which are indented, break before an option."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs: list[list[str]] = []
        flows = False  # whether the last line was one of a paragraph
        for line in text.strip("\n").splitlines():
            indented = not line or line.startswith(" ")
            if indented or not flows:
                paragraphs.append([line])
            else:
                paragraphs[-1].append(line)
            flows = not indented
        return "\n".join(indent + line for each in paragraphs for line in _fitted(" ".join(each), width - len(indent)))


def _fitted(text: str, width: int) -> list[str]:
    """Wraps a paragraph, a line of an example or an entry of a list."""
    if not re.match(r" +(flaxapps|python) ", text):
        start = re.match(r" *(\S+( \S+)*   +)?", text)
        hanging = " " * len(start[0] if start else "")
        return textwrap.wrap(text, width, subsequent_indent=hanging, break_long_words=False) or [""]
    line, lines = re.sub("  +#", "  #", text), []
    while len(line) > width and (place := line.rfind(" --", 8, width - 1)) > 0:
        lines.append(f"{line[:place]} \\")
        line = f"      {line[place + 1 :]}"
    return [*lines, line]


def new_parser(program: str, description: str, examples: str) -> tuple[argparse.ArgumentParser, Any]:
    """Creates a parser with subcommands.

    Returns:
        The parser, and its subparsers for `add_command`.
    """
    parser = Parser(prog=program, description=description, epilog=examples, formatter_class=HelpFormatter)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(commands: Any, name: str, epilog: str | None = None, *, error_code: int = 1) -> Any:
    """Adds a command.

    Args:
        commands: From `new_parser`.
        name: Name of the command, one of `SUMMARIES`.
        epilog: The end of its help text, which begins with its summary.
        error_code: The exit code after an error.

    Returns:
        The parser of the command, for its arguments.
    """
    summary = SUMMARIES[name]
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(
        name, help=summary, description=description, epilog=epilog, formatter_class=HelpFormatter
    )
    # SUPPRESS, because a default would overwrite a --debug given before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.set_defaults(command=name, error_code=error_code)
    return command
