"""Multi-process runs: jax.distributed initialization and collectives on host values.

Every process runs the same command. Only the first one prints and writes results; see `is_first`.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

LOST_AFTER = 60  # seconds without a heartbeat, after which the other processes end with an error


def start_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    preemption: bool = False,
) -> None:
    """Initializes `jax.distributed`, and discards the stdout of all processes but the first.

    Args:
        coordinator: Address and port of process 0; None takes this and the next two from a TPU, Slurm or Open MPI job.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        preemption: As for `join_processes`.

    Raises:
        ValueError: The arguments are None outside of such a job.
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
            f"--distributed: this is not a TPU, Slurm or Open MPI job ({error}): give "
            "--coordinator ADDRESS:PORT --num-processes N --process-id I"
        ) from error
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)


def is_first() -> bool:
    """Whether this process is the only one or the first of several, which prints and writes results."""
    jax = sys.modules.get("jax")  # before JAX is imported there is one process only
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def share_of(items: Sequence[Item]) -> Sequence[Item]:
    """Returns every n-th of `items` for n processes, starting with the index of this one."""
    import jax

    return items[jax.process_index() :: jax.process_count()]


def sum_over_processes(counts: NDArray[Any]) -> NDArray[Any]:
    """Sums counts over all processes, each count below 2**31. A collective: every process must call it."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return counts
    gathered: Any = multihost_utils.process_allgather(counts.astype(np.int32))
    total: NDArray[Any] = np.sum(gathered, axis=0, dtype=counts.dtype)
    return total


def is_anywhere(true: bool) -> bool:
    """Whether `true` holds in at least one process. A collective: every process must call it."""
    return bool(sum_over_processes(np.array([true], np.int32)).any())
