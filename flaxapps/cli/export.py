"""`flaxapps export`: write a network as a StableHLO file."""

import argparse
from typing import Any

from flaxapps.cli.models import architecture_options, resolve_model
from flaxapps.cli.options import PREPROCESSING, add_architecture
from flaxapps.inference.export import export

EXAMPLES = """examples:
  flaxapps export resnet50 --output resnet50.stablehlo
  flaxapps export xception --no-top --input-shape 150 150 --output features.stablehlo
  flaxapps export mine.keras --dtype uint8 --preprocess tf --weights-beside --output mine.stablehlo

The file runs with JAX alone:
  import pathlib, jax, jax.export
  network = jax.export.deserialize(bytearray(pathlib.Path("resnet50.stablehlo").read_bytes()))
  scores = jax.jit(network.call)(photos)
or with flaxapps.load_exported("resnet50.stablehlo"), which checks the arrays.
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps export` to its parser."""
    add_architecture(command)
    command.add_argument("--output", required=True, metavar="FILE.stablehlo", help="file to write")
    command.add_argument("--weights", metavar="FILE", help="weights to use in place of the published or stored ones")
    command.add_argument("--weights-beside", action="store_true", help="write the weights to a separate .npz file")
    command.add_argument("--dtype", default="float32", help="dtype of the images, such as uint8 (default: %(default)s)")
    command.add_argument(
        "--preprocess",
        choices=PREPROCESSING,
        default="none",
        help="preprocessing to include; rescale: division by 255 (default: none)",
    )
    command.add_argument(
        "--platforms",
        nargs="+",
        choices=("cpu", "cuda", "rocm", "tpu"),
        default=["cpu", "cuda", "tpu"],
        metavar="PLATFORM",
        help="cpu, cuda, rocm, tpu (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps export`."""
    of_network = architecture_options(arguments)
    resolved = resolve_model(arguments.model, weights=arguments.weights, preprocess=arguments.preprocess, **of_network)
    preprocess = resolved.preprocess  # raises before the weights are downloaded
    export(
        resolved.model,
        resolved.load(),
        arguments.output,
        dtype=arguments.dtype,
        preprocess=preprocess,
        platforms=arguments.platforms,
        weights="beside" if arguments.weights_beside else "inside",
    )
    return 0
