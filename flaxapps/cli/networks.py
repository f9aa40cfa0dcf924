"""`flaxapps list`, `info`, `summary` and `plot`: inspect networks."""

import argparse
import itertools
import sys
from typing import Any

from flaxapps.applications.info import ModelInfo
from flaxapps.cli.costs import write_costs
from flaxapps.cli.models import architecture_options, resolve_model
from flaxapps.cli.rows import write_rows
from flaxapps.inference.compile import estimate_costs
from flaxapps.model import Model
from flaxapps.registry import list_models, model_info
from flaxapps.runtime.console import new_table, open_console
from flaxapps.runtime.process import keep_compilations
from weight_port.published import PublishedFile, cache_folder

WIDE, NARROW = 110, 72  # columns: from WIDE on `flaxapps list` shows all, below NARROW it leaves the functions out
MOST_FILES = 6  # of weights, shown in full by `info`


def run_list(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps list`."""
    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"No network fits {arguments.pattern!r}; `flaxapps list` shows all")
    if arguments.format == "table":
        _print_networks(list(map(model_info, names)))
    else:
        write_rows(sys.stdout, arguments.format, map(_facts, map(model_info, names)))
    return 0


def _print_networks(infos: list[ModelInfo]) -> None:
    console = open_console()
    caption = "size: default and smallest, in pixels; top-1, top-5: % on ImageNet, published by Keras"
    headings = ["name", "function", "size", "params", "top-1", "top-5"]
    if console.width < NARROW:
        headings.remove("function")
    if console.width >= WIDE:
        headings += ["licence of weights", "reference"]
    else:
        caption += "; licences and papers: flaxapps info NAME, or in a wider terminal"
    table = new_table(caption=caption)
    for heading in headings:
        right = heading in ("size", "params", "top-1", "top-5")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "licence of weights")
    for _, family in itertools.groupby(infos, key=lambda info: info.family):
        table.add_section()
        for info in family:
            facts = _facts(info)
            cells = {
                **{key: "" if value is None else str(value) for key, value in facts.items()},
                "size": f"{info.default_size}, {info.min_size}",
                "params": f"{info.parameters / 1e6:.1f}M",
                "reference": info.reference.removeprefix("https://"),
            }
            table.add_row(*(cells[heading] for heading in headings))
    console.print(table)


def _facts(info: ModelInfo) -> dict[str, Any]:
    """Returns what `flaxapps list` says of a network, by the headings of its table."""
    return {
        "name": info.name,
        "function": info.function,
        "default size": info.default_size,
        "smallest size": info.min_size,
        "parameters": info.parameters,
        "top-1": info.top1,
        "top-5": info.top5,
        "preprocessing": info.preprocessing,
        "licence of weights": ", ".join(dict.fromkeys(file.licence for file in info.weight_files)),
        "reference": info.reference,
    }


def run_info(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps info`."""
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


def run_summary(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps summary`."""
    model = _model(arguments)
    model.summary()
    if arguments.describe:
        keep_compilations()
        write_costs(sys.stdout, estimate_costs(model, arguments.batch_size), arguments.batch_size)
    return 0


def _model(arguments: argparse.Namespace) -> Model:
    return resolve_model(arguments.model, initialize=True, **architecture_options(arguments)).model


def run_plot(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps plot`."""
    _model(arguments).plot(arguments.output, full=arguments.full)
    print(f"{arguments.output} is written")
    return 0
