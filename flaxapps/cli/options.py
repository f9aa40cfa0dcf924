"""What the options of several commands mean."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import jax

from flaxapps.photos.photo import CHOSEN_RESIZING, PhotoFormat
from flaxapps.runtime.distributed import start_distributed

SETTINGS = ("distributed", "coordinator", "num_processes", "process_id")


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
