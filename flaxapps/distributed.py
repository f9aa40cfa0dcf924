"""A command as one of several processes: the options that say so, and the start of JAX's own distributed runtime.

Every process runs the same command. Only the first one prints and writes what comes out; see `is_first`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

LOST_AFTER = 60  # seconds without a sign of life; the other processes then end with an error
SETTINGS = ("distributed", "coordinator", "num_processes", "process_id")


def add_distributed(command: Any) -> None:
    """Options of a command that several processes can run together."""
    group = command.add_argument_group("several processes", "The same command in each, on one machine or many.")
    group.add_argument("--distributed", action="store_true", help="TPU, Slurm or Open MPI say which process this is")
    group.add_argument(
        "--coordinator", metavar="ADDRESS:PORT", help="of process 0; where nobody says, with the two below"
    )
    group.add_argument("--num-processes", type=int, metavar="N", help="how many processes there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")


def join_processes(arguments: argparse.Namespace, *, preemption: bool = False) -> None:
    """Joins the other processes, where the arguments ask for it; before JAX is used for anything else.

    Args:
        arguments: With the options of `add_distributed`.
        preemption: Whether SIGTERM to one process becomes a notice to all of them, which the command has to look for,
            with `jax.experimental.multihost_utils.reached_preemption_sync_point`. Otherwise it ends the process.

    Raises:
        ValueError: The arguments make no sense together, or nothing says which process this is.
    """
    _check(arguments)
    if arguments.distributed or arguments.coordinator:
        start_distributed(arguments.coordinator, arguments.num_processes, arguments.process_id, preemption=preemption)


def start_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    preemption: bool = False,
) -> None:
    """Starts JAX's distributed runtime and leaves stdout to the first process.

    Args:
        coordinator: Address and port of process 0; None where a TPU, Slurm or Open MPI says this and the two below.
        num_processes: How many there are.
        process_id: Which one this is, from 0.
        preemption: As for `join_processes`.

    Raises:
        ValueError: Nothing says which process this is.
    """
    import jax

    jax.config.update("jax_enable_preemption_service", preemption)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=LOST_AFTER,
            shutdown_timeout_seconds=LOST_AFTER,
        )
    except ValueError as error:
        raise ValueError(
            f"--distributed: this is no TPU, Slurm or Open MPI job that says which process it is ({error}): give "
            "--coordinator ADDRESS:PORT --num-processes N --process-id I"
        ) from error
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)


def is_first() -> bool:
    """Whether this process prints and writes reports: the only one, or the first of several."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def share_of(items: Sequence[Item]) -> Sequence[Item]:
    """What this process does of something that several processes do together; all of it where there is only one."""
    import jax

    return items[jax.process_index() :: jax.process_count()]


def sum_over_processes(counts: NDArray[Any]) -> NDArray[Any]:
    """The sum of what every process has counted, up to 2**31; all of them have to call this, and wait for it."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return counts
    gathered: Any = multihost_utils.process_allgather(counts.astype(np.int32))
    total: NDArray[Any] = np.sum(gathered, axis=0, dtype=counts.dtype)
    return total


def is_anywhere(true: bool) -> bool:
    """Whether something is true in at least one process; all of them have to call this, and wait for it."""
    return bool(sum_over_processes(np.array([true], np.int32)).any())


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
        raise ValueError(f"--process-id is from 0 to below --num-processes, got {index} of {count}")
    if not arguments.coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator is an address with a port, such as 10.0.0.1:8476, got {arguments.coordinator}")
