"""Command-line options shared by several commands."""

import argparse
import os
from collections.abc import Sequence
from typing import Any, get_args

import jax

from flaxapps.image import INTERPOLATIONS
from flaxapps.photos.photo import CHOSEN_RESIZING, PhotoFormat
from flaxapps.registry import find_name
from flaxapps.runtime.distributed import start_distributed
from flaxapps.transforms.optimize import Mode

FORMATS = ("table", "csv", "json", "jsonl", "npz")
PREPROCESSING = ("auto", "caffe", "tf", "torch", "rescale", "none")


def add_model(command: Any) -> None:
    """Adds the options that choose a model."""
    command.add_argument(
        "--model",
        required=True,
        type=network_or_file,
        metavar="NAME|FILE.keras|DIR",
        help="a network of `flaxapps list`, a Keras model, a file of `flaxapps quantize`, or a folder of `flaxapps "
        "finetune`",
    )
    add_weights(command)


def add_weights(command: Any) -> None:
    """Adds the option for other weights."""
    command.add_argument("--weights", metavar="FILE", help="weights to use in place of the published or stored ones")


def add_output(command: Any) -> None:
    """Adds the options of a network that computes, and the file it is written to."""
    command.add_argument("--output", metavar="FILE", help="file to write, atomically (default: the terminal)")
    command.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="photos at a time (default: 32; on a CPU 4 for each core, up to 32)",
    )
    command.add_argument(
        "--optimize",
        choices=get_args(Mode),
        help="default: within 1e-5 of Keras; fast: within 1e-4, compiles longer (default: fast for many photos)",
    )
    command.add_argument("--exact", action="store_const", const="default", dest="optimize", help=argparse.SUPPRESS)
    add_dtype(command)


def add_dtype(command: Any) -> None:
    """Adds the option for the compute dtype."""
    command.add_argument("--dtype", metavar="DTYPE", help="compute dtype, such as bfloat16 (default: the model's own)")


def add_format(command: Any, formats: Sequence[str], help: str = "default: %(default)s") -> None:
    """Adds the option for the format of the output; `formats` are some of `FORMATS`."""
    command.add_argument("--format", choices=formats, default="table", help=help)


def add_layer(command: Any) -> None:
    """Adds the option that ends a network at a layer; `flaxapps.transforms.cut` does it."""
    command.add_argument(
        "--layer", metavar="NAME", help="end the network at this layer; OUTER/INNER for one of a nested model"
    )


def add_softmax(command: Any) -> None:
    """Adds the option for probabilities in place of logits; `flaxapps.transforms.logits` does it."""
    command.add_argument(
        "--softmax", action="store_true", help="probabilities, for models that end in logits; others stay as they are"
    )


def add_photos(command: Any) -> None:
    """Adds the options for reading photos, preprocessing and class names."""
    add_size(command, "--size", "photo size, for models that take any size")
    command.add_argument(
        "--resize", type=positive, metavar="N", help="resize the shorter side to N pixels, then crop the centre"
    )
    command.add_argument("--crop", type=positive, metavar="N", help="size of the crop, for models that take any size")
    add_resizing(command)
    command.add_argument(
        "--on-error", choices=("skip", "raise"), default="skip", help="for photos that cannot be read (default: skip)"
    )
    add_preprocess(command, "auto")
    command.add_argument("--labels", metavar="FILE", help="class names: one per line, or JSON")


def add_preprocess(command: Any, default: str) -> None:
    """Adds the option for the preprocessing."""
    command.add_argument(
        "--preprocess",
        choices=PREPROCESSING,
        default=default,
        help="auto: that of the published network which the model is or contains; rescale: division by 255 "
        "(default: %(default)s)",
    )


def add_device(command: Any) -> None:
    """Adds the option that chooses the kind of device."""
    command.add_argument(
        "--device", choices=("cpu", "gpu", "tpu"), help="compute on these devices only (default: those that JAX finds)"
    )


def add_resizing(command: Any) -> None:
    """Adds the options for the size and orientation of photos; `given_resizing` reads them."""
    command.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        metavar="NAME",
        help=f"{', '.join(INTERPOLATIONS)} (default: bilinear, or what the model was trained with)",
    )
    command.add_argument(
        "--antialias",
        action=argparse.BooleanOptionalAction,
        help="average photos that shrink (default, or as in training), or take single pixels as Keras's datasets do",
    )
    command.add_argument(
        "--orientation",
        action=argparse.BooleanOptionalAction,
        help="turn photos upright by their EXIF orientation (default, or as in training); Keras does not",
    )


def given_resizing(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of `Resizing` that the options of `add_resizing` give."""
    given = {name: getattr(arguments, name, None) for name in (*CHOSEN_RESIZING, "resize")}
    return {name: value for name, value in given.items() if value is not None}


def given_size(arguments: argparse.Namespace) -> Sequence[int] | None:
    """Returns the height and width of photos that --size or --crop gives.

    Raises:
        ValueError: --crop is given with --size, or without --resize.
    """
    if not arguments.crop:
        return arguments.size  # type: ignore[no-any-return]  # a namespace has no types
    if not arguments.resize or arguments.size:
        raise ValueError("--crop is applied after --resize N: give --resize too, and leave out --size")
    return [arguments.crop] * 2


def check_resize(arguments: argparse.Namespace, form: PhotoFormat) -> None:
    """Checks that the photos that --resize gives are not smaller than the crop.

    Raises:
        ValueError: They are.
    """
    least = max(form.height or 0, form.width or 0)
    if arguments.resize and arguments.resize < least:
        raise ValueError(
            f"--resize {arguments.resize} is too small for a crop of {form.height} x {form.width}: "
            f"give at least {least}"
        )


def add_architecture(command: Any) -> None:
    """Adds the options that choose an architecture, without weights."""
    command.add_argument(
        "model",
        type=network_or_file,
        metavar="NAME|FILE.keras|DIR",
        help="a network of `flaxapps list`, a Keras model, or a folder of `flaxapps finetune`",
    )
    command.add_argument("--no-top", action="store_true", help="leave out the classifier")
    add_size(command, "--input-shape", "image size, in place of the default")


def add_size(command: Any, option: str, help: str) -> None:
    """Adds an option that takes a height and a width, in pixels."""
    command.add_argument(option, nargs=2, type=positive, metavar=("HEIGHT", "WIDTH"), help=help)


def network_or_file(text: str) -> str:
    """Converts a network in any spelling, such as "MobileNetV2", to its name in `flaxapps list`; keeps other texts."""
    return find_name(text) or text


def positive(text: str) -> int:
    """Parses a positive integer.

    Raises:
        ArgumentTypeError, ValueError: The text is not a positive integer.
    """
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("should be at least 1")
    return number


positive.__name__ = "number"  # argparse says "invalid number value: 'x'"


SETTINGS = ("distributed", "coordinator", "num_processes", "process_id")


def add_distributed(command: Any) -> None:
    """Adds the options of a multi-process run."""
    group = command.add_argument_group("several processes", "Run the same command in each, on one or more machines.")
    group.add_argument("--distributed", action="store_true", help="take the settings of a TPU, Slurm or Open MPI job")
    group.add_argument("--coordinator", metavar="ADDRESS:PORT", help="address of process 0; give the two below with it")
    group.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")


def join_processes(arguments: argparse.Namespace, *, preemption: bool = False) -> None:
    """Initializes `jax.distributed` if the arguments ask for it. Must run before JAX is used for anything else.

    Args:
        arguments: Parsed arguments, with the options of `add_distributed`.
        preemption: Whether SIGTERM to one process notifies all of them. The command must then poll
            `jax.experimental.multihost_utils.reached_preemption_sync_point`. Otherwise SIGTERM ends the process.

    Raises:
        ValueError: The arguments contradict each other, or the index of this process is not known.
    """
    _check(arguments)
    if arguments.distributed or arguments.coordinator:
        start_distributed(arguments.coordinator, arguments.num_processes, arguments.process_id, preemption=preemption)


def _check(arguments: argparse.Namespace) -> None:
    count, index = arguments.num_processes, arguments.process_id
    given = [arguments.coordinator is not None, count is not None, index is not None]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator, --num-processes and --process-id go together: give all three, or --distributed"
        )
    if not any(given):
        return
    if not 0 <= index < count:
        raise ValueError(f"--process-id must be from 0 to below --num-processes, got {index} of {count}")
    if not arguments.coordinator.rpartition(":")[2].isdigit():
        raise ValueError(
            f"--coordinator must be an address with a port, such as 10.0.0.1:8476, got {arguments.coordinator}"
        )


def usual_batch_size() -> int:
    """Default batch size of the command line; small on CPU, so that activations fit into the cache."""
    return min(32, 4 * (os.cpu_count() or 8)) if jax.default_backend() == "cpu" else 32
