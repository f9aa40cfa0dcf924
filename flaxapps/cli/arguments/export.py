"""Arguments and help text of `flaxapps export`."""

from typing import Any

from flaxapps.cli.arguments.shared import (
    add_architecture,
    add_dtype,
    add_layer,
    add_preprocess,
    add_softmax,
    add_weights,
)

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
        help="dtype of the images, such as uint8 (default: float32)",
    )
    add_preprocess(command, "none")
    command.add_argument(
        "--platforms",
        nargs="+",
        choices=("cpu", "cuda", "rocm", "tpu"),
        default=["cpu", "cuda", "tpu"],
        metavar="PLATFORM",
        help="some of cpu, cuda, rocm, tpu (default: cpu cuda tpu)",
    )
