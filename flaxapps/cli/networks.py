"""`flaxapps list`, `info`, `summary` and `plot`: inspect networks."""

import argparse
import itertools
import sys
from typing import Any

from flaxapps.cli.costs import write_costs
from flaxapps.cli.models import architecture_options, resolve_model
from flaxapps.cli.options import add_architecture, positive
from flaxapps.cli.program import add_command
from flaxapps.inference.compile import estimate_costs
from flaxapps.model import Model
from flaxapps.registry import list_models, model_info
from flaxapps.runtime.console import new_table, open_console
from flaxapps.runtime.process import keep_compilations
from weight_port.published import PublishedFile, cache_folder

MOST_FILES = 6  # of weights, shown in full by `info`
LIST_EXAMPLES = """examples:
  flaxapps list
  flaxapps list "resnet*v2"
"""
SUMMARY_EXAMPLES = """examples:
  flaxapps summary vgg16
  flaxapps summary inception_v3 --no-top --input-shape 200 300
  flaxapps summary mine.keras
"""
PLOT_EXAMPLES = """examples:
  flaxapps plot resnet50 --output resnet50.svg
  flaxapps plot inception_v3 --no-top --full --output layers.svg
  flaxapps plot mine.keras --output mine.svg
"""


def add_commands(commands: Any) -> None:
    """Adds `list`, `info`, `summary` and `plot`."""
    command = add_command(commands, "list", _list, "list the networks", LIST_EXAMPLES)
    command.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help='such as "mobilenet*"')
    command = add_command(commands, "info", _info, "show the facts about a network and its weight files")
    command.add_argument("name", metavar="NAME", help="a network of `flaxapps list`")

    command = add_command(commands, "summary", _summary, "list the layers of a network", SUMMARY_EXAMPLES)
    add_architecture(command)
    command.add_argument("--describe", action="store_true", help="also show operations and memory of one batch")
    command.add_argument("--batch-size", type=positive, default=1, metavar="N", help="for --describe (default: 1)")

    command = add_command(commands, "plot", _plot, "draw a network as SVG", PLOT_EXAMPLES)
    add_architecture(command)
    command.add_argument("--output", required=True, metavar="FILE.svg", help="file to write")
    command.add_argument("--full", action="store_true", help="every layer, also in nested models (default: blocks)")


def _list(arguments: argparse.Namespace) -> int:
    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"No network fits {arguments.pattern!r}; `flaxapps list` shows all")
    table = new_table(caption="size: default and smallest, in pixels; top-1, top-5: % on ImageNet, published by Keras")
    for heading in ("name", "function", "size", "params", "top-1", "top-5", "licence of weights", "reference"):
        right = heading in ("size", "params", "top-1", "top-5")
        wraps = heading in ("licence of weights", "reference")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=not wraps)
    for _, family in itertools.groupby(map(model_info, names), key=lambda info: info.family):
        table.add_section()
        for info in family:
            licences = dict.fromkeys(file.licence for file in info.weight_files)
            table.add_row(
                info.name,
                info.function,
                f"{info.default_size}, {info.min_size}",
                f"{info.parameters / 1e6:.1f}M",
                "" if info.top1 is None else str(info.top1),
                "" if info.top5 is None else str(info.top5),
                ", ".join(licences),
                info.reference.removeprefix("https://"),
            )
    open_console().print(table)
    return 0


def _info(arguments: argparse.Namespace) -> int:
    info = model_info(arguments.name)
    default, smallest = info.default_size, info.min_size
    facts = {
        "function": f"{info.module}.{info.function}",
        "image size": f"{default} x {default} by default, at least {smallest} x {smallest}",
        "preprocessing": info.preprocessing,
        "data formats": "channels_last, channels_first" if info.channels_first else "channels_last",
        "parameters": f"{info.parameters:,}",
        "depth": f"{info.depth} layers" if info.depth else "not published",
        "top-1, top-5": f"{_percent(info.top1)}, {_percent(info.top5)} (ImageNet, as published by Keras)",
        "reference": info.reference,
    }
    sections = {info.name: facts}
    for file in info.weight_files[:MOST_FILES]:
        variant = f', variant="{file.variant}"' if file.superseded else file.variant and f", {file.variant}"
        sections[f"weights {'with' if file.include_top else 'without'} the classifier{variant}"] = _file_facts(file)
    for number, (title, entries) in enumerate(sections.items()):
        print("\n" * bool(number) + title)
        for key, value in entries.items():
            print(f"  {key:<15}{value}")
    if more := dict.fromkeys(file.variant for file in info.weight_files[MOST_FILES:]):
        print(f"\nweights of other widths and image sizes (alpha, size)\n  {', '.join(more)}")
    return 0


def _percent(accuracy: float | None) -> str:
    return "not published" if accuracy is None else f"{accuracy} %"


def _file_facts(file: PublishedFile) -> dict[str, str]:
    names = dict.fromkeys((file.filename, file.alternative_name))
    paths = [cache_folder() / name for name in names]
    cached = [str(path) for path in paths if path.is_file() and file.size in (None, path.stat().st_size)]
    return {
        "URL": file.url,
        "size": f"{file.size / 2**20:.1f} MB" if file.size else "not known",
        **dict([file.published_hash.split()]),
        "licence": file.licence,
        "in the cache": cached[0] if cached else "no",
    }


def _summary(arguments: argparse.Namespace) -> int:
    model = _model(arguments)
    model.summary()
    if arguments.describe:
        keep_compilations()
        write_costs(sys.stdout, estimate_costs(model, arguments.batch_size), arguments.batch_size)
    return 0


def _model(arguments: argparse.Namespace) -> Model:
    return resolve_model(arguments.model, initialize=True, **architecture_options(arguments)).model


def _plot(arguments: argparse.Namespace) -> int:
    _model(arguments).plot(arguments.output, full=arguments.full)
    return 0
