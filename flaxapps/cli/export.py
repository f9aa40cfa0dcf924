"""`flaxapps export`: write a network as a StableHLO file."""

import argparse
from typing import Any

from flaxapps.cli.models import adapted, architecture_options, resolve_model
from flaxapps.cli.options import (
    add_architecture,
    add_dtype,
    add_layer,
    add_preprocess,
    add_softmax,
    add_weights,
)
from flaxapps.inference.export import export

EXAMPLES = """examples:
  flaxapps export resnet50 --output resnet50.stablehlo
  flaxapps export vgg16 --layer fc2 --dtype bfloat16 --output fc2.stablehlo
  flaxapps export xception --no-top --input-shape 150 150 --output features.stablehlo
  flaxapps export mine.keras --image-dtype uint8 --preprocess tf --weights-beside --output mine.stablehlo

The file runs with JAX alone:
  import pathlib, jax, jax.export
  file = pathlib.Path("resnet50.stablehlo").read_bytes()
  network = jax.export.deserialize(bytearray(file))
  scores = jax.jit(network.call)(photos)
or with flaxapps.load_exported("resnet50.stablehlo"), which checks the arrays.
"""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps export` to its parser."""
    add_architecture(command)
    command.add_argument("--output", required=True, metavar="FILE.stablehlo", help="file to write")
    add_weights(command)
    command.add_argument("--weights-beside", action="store_true", help="write the weights to a separate .npz file")
    add_layer(command)
    add_softmax(command)
    add_dtype(command)
    command.add_argument(
        "--image-dtype",
        default="float32",
        metavar="DTYPE",
        help="of the images, such as uint8 (default: float32)",
    )
    add_preprocess(command, "none")
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
    if arguments.dtype in ("uint8", "int8", "int16", "int32"):  # which --dtype took before it was that of all commands
        raise ValueError(f"--dtype is that of the computation: give --image-dtype {arguments.dtype} for the images")
    of_network = architecture_options(arguments)
    resolved = resolve_model(arguments.model, weights=arguments.weights, preprocess=arguments.preprocess, **of_network)
    model = adapted(resolved.model, arguments)
    preprocess = resolved.preprocess  # raises before the weights are downloaded
    export(
        model,
        resolved.load(),
        arguments.output,
        dtype=arguments.image_dtype,
        preprocess=preprocess,
        platforms=arguments.platforms,
        weights="beside" if arguments.weights_beside else "inside",
    )
    return 0
