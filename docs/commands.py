"""MkDocs hook: generate a page for each command from its parser, so that the site and `--help` say the same."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flaxapps.cli.commands import new_flaxapps_parser
from flaxapps.cli.parsers import HelpFormatter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

COLUMNS = 88  # of code on a page
SEVERAL = (
    "flaxapps evaluate by_class/ --model resnet50 \\\n    --coordinator 10.0.0.1:8476 --num-processes 2 --process-id 0"
)
# Of options that no help text has an example of.
EXAMPLES = {
    "--antialias": "flaxapps predict photos/ --model mine.keras --no-antialias --no-orientation",
    "--batch-size": "flaxapps predict photos/ --model resnet50 --batch-size 128 --device gpu",
    **dict.fromkeys(("--coordinator", "--num-processes", "--process-id"), SEVERAL),
    "--describe": "flaxapps summary resnet50 --describe --batch-size 32",
    "--distributed": "srun flaxapps evaluate photos_by_class/ --model resnet50 --distributed",
    "--interpolation": "flaxapps predict photos/ --model resnet50 --interpolation nearest",
    "--labels": "flaxapps predict photos/ --model mine.keras --labels names.txt --preprocess tf",
    "--on-error": "flaxapps evaluate photos_by_class/ --model resnet50 --on-error raise",
    "--optimize": "flaxapps evaluate photos_by_class/ --model resnet50 --optimize fast",
    "--orientation": "flaxapps predict photos/ --model mine.keras --no-antialias --no-orientation",
    "--precision": "flaxapps predict photos/ --model resnet50 --precision bfloat16",
    "--resize": "flaxapps predict photos/ --model resnet50 --resize 256",
    "--crop": "flaxapps predict photos/ --model mobilenet_v2_any_size.keras --resize 256 --crop 224",
    "--size": "flaxapps predict photos/ --model any_size.keras --size 299 299",
    "--weights": "flaxapps predict photos/ --model vgg16 --weights vgg16_finetuned.weights.h5",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages of the commands to the navigation, below the overview."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Commands" in entry:
            entry["Commands"] = [
                "commands/index.md",
                {"Options": "commands/options.md"},
                *({name: f"commands/{name}.md"} for name in commands()),
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the written ones."""
    from mkdocs.structure.files import File  # here, so that the pages can be tested without MkDocs

    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    return files


def commands() -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of every command by its name."""
    (action,) = (each for each in new_flaxapps_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def pages() -> Iterator[tuple[str, str]]:
    """Yields the path in `docs` and the text of every page."""
    parsers = commands()
    rows = [f"| [{name}]({name}.md) | {escaped(summary(parser))} |" for name, parser in parsers.items()]
    text = "Options that several commands have, such as `--resize` and `--format`: [options](options.md)."
    yield "commands/index.md", "\n".join(["# Commands", "", "| command | |", "|---|---|", *rows, "", text, ""])
    yield "commands/options.md", shared(parsers)
    for name, parser in parsers.items():
        yield f"commands/{name}.md", page(name, parser)


def shared(parsers: dict[str, argparse.ArgumentParser]) -> str:
    """Formats the page of the options that several commands have, with an example of each."""
    where: dict[str, dict[str, argparse.Action]] = {}
    for name, parser in parsers.items():
        for action in parser._actions:
            if action.option_strings and action.help != argparse.SUPPRESS and action.dest != "help":
                where.setdefault(action.option_strings[0], {})[name] = action
    lines = [
        "# Options of several commands",
        "",
        "An option means the same, with the same default, in all commands. Two defaults differ: `--batch-size` of "
        "`finetune` is fixed because the learning rate depends on it, and `--preprocess` of `export` is `none`.",
        "",
    ]
    for option, found in sorted(where.items()):
        if len(found) > 1:
            name = "predict" if "predict" in found else next(iter(found))
            links = ", ".join(f"[{each}]({each}.md)" for each in found)
            lines += [f"## {option}", "", f"{spelled(found[name])} of {links}".replace("\\|", "|"), ""]
            lines += [sentence(described(found[name], parsers[name])), "", "```sh", example(option, parsers), "```", ""]
    return "\n".join(lines)


def example(option: str, parsers: dict[str, argparse.ArgumentParser]) -> str:
    """Returns a command with an option: one of `EXAMPLES`, or else the shortest in the help texts.

    Raises:
        ValueError: The option has no example.
    """
    if option in EXAMPLES:
        return EXAMPLES[option]
    written = [
        line.partition("  #")[0].rstrip(" &").strip()
        for parser in parsers.values()
        for line in split_epilog((parser.epilog or "").replace("\\\n", ""))[0].splitlines()
        if f" {option} " in f"{line} "
    ]
    if not written:
        raise ValueError(f"no help text has an example with {option}: add one to EXAMPLES")
    return min(written, key=len)


def sentence(text: str) -> str:
    """Returns a help text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def page(name: str, parser: argparse.ArgumentParser) -> str:
    """Formats the page of a command."""
    lines = [f"# flaxapps {name}", "", parser.description or "", ""]
    fitted = HelpFormatter(name)._fill_text(parser.epilog or "", COLUMNS, "")
    examples, notes = split_epilog(fitted)
    if examples:
        lines += ["```sh", commented(examples), "```", ""]
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS and each.dest != "help"]
        if actions:
            title = {"positional arguments": "Arguments", "options": "Options"}.get(group.title or "", group.title)
            rows = [f"| {spelled(action)} | {described(action, parser)} |" for action in actions]
            lines += [f"## {str(title).capitalize()}", "", group.description or "", "", "| | |", "|---|---|", *rows, ""]
    if notes:
        lines += ["## Notes", "", "```text", notes, "```", ""]
    return "\n".join(lines)


def split_epilog(epilog: str) -> tuple[str, str]:
    """Splits the end of a help text into the examples, and what follows them."""
    text = epilog.partition("examples:\n")[2]
    examples, *notes = re.split(r"\n\n(?=\S)", text, maxsplit=1)  # examples are indented
    return "\n".join(line.removeprefix("  ") for line in examples.splitlines()), "\n".join(notes).strip()


def commented(examples: str) -> str:
    """Makes the explanations below the examples comments, so that a block can be copied as a whole."""
    lines: list[str] = []
    for line in examples.splitlines():
        explains = line.startswith("  ") and not (lines and lines[-1].endswith("\\"))
        lines.append(f"# {line.strip()}" if explains else line)
    return "\n".join(lines)


def spelled(action: argparse.Action) -> str:
    """Formats an argument as it is typed."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    values = action.metavar or ("" if action.nargs == 0 else "|".join(map(str, action.choices or ())))
    if isinstance(values, tuple):
        values = " ".join(values)
    return escaped(f"`{', '.join(action.option_strings)}{f' {values}' if values else ''}`")


def described(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Formats the help of an argument, with its defaults filled in."""
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return escaped(text)


def summary(parser: argparse.ArgumentParser) -> str:
    """Returns the first sentence of a description."""
    return re.split(r"(?<=\.)\s", " ".join((parser.description or "").split()), maxsplit=1)[0]


def escaped(text: str) -> str:
    """Escapes what would end a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
