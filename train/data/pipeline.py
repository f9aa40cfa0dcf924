"""Batch order and prefetching, with Grain.

The order is a pure function of (seed, epoch). A position is therefore two numbers, the epoch and its completed batches,
and `start` resumes there with any number of workers and hosts. Checkpoints hold those two numbers. Grain's own iterator
state works on a `pipeline` as well, but with worker processes it holds the state of each, so it fits only the same
number of workers.
"""

from __future__ import annotations

import ast
import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import grain

Batch = TypeVar("Batch")

BATCHES_AHEAD = 2  # prefetched into memory, besides the current one
SECONDS_TO_END = 2.0  # for workers, before they are killed


def pipeline(
    load: Callable[[NDArray[np.int64]], Batch],
    length: int,
    *,
    batch_size: int,
    seed: int | None,
    epoch: int = 0,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> grain.IterDataset[Batch]:
    """Reads one epoch of batches, each loaded in the background before it is needed.

    Args:
        load: Loads a batch from the indices of its examples, (n,), int64. Must be picklable if there are `workers`.
        length: Number of examples.
        batch_size: Examples in a batch, over all shards; the last batch may be smaller.
        seed: Seed of the order; None reads in order.
        epoch: Index of the epoch, which has its own order.
        start: Batches to skip at the beginning, without loading them.
        shard: (index, count): which of `count` equal, consecutive shards of every batch to load. Shards of a smaller
            last batch may be smaller, or empty.
        workers: Processes that load batches; 0 loads in a thread. They are started again in every epoch.

    Returns:
        A Grain dataset. Its iterators have `get_state` and `set_state`.

    Raises:
        ValueError: An argument is out of range.
        ModuleNotFoundError: Grain is not installed.
        RuntimeError: There are `workers`, but the script would start them anew in each of them.
    """
    _check(batch_size, seed, epoch, start, shard, workers)
    grain = _import_grain()
    index, count = shard
    share = batch_size // count

    def load_share(indices: NDArray[np.int64]) -> Batch:
        return load(indices[index * share : (index + 1) * share])

    order: Any = grain.MapDataset.range(length)
    if seed is not None:
        # Grain adds its own epochs to the seed, so epoch 1 of seed 0 would have the order of epoch 0 of seed 1.
        order = order.shuffle(seed=int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
    batches = order.batch(batch_size)[start:].map(load_share)
    loaded = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCHES_AHEAD))
    if workers:
        _check_workers(workers)
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return loaded


@contextmanager
def reading(batches: Iterable[Batch]) -> Iterator[Iterator[Batch]]:
    """Reads batches within the context, and closes a generator of them after it, which ends its workers.

    Without it, workers live as long as an exception that keeps the frame of the loop.
    """
    iterator = iter(batches)
    try:
        yield iterator
    finally:
        failed = sys.exc_info()[0] is not None
        if isinstance(iterator, Generator):
            iterator.close()
            if failed:
                gc.collect()  # of what workers have sent and nobody read, which is in cycles and in shared memory


@contextmanager
def ending_workers(loaded: Any) -> Iterator[None]:
    """Ends the workers of an iterator of `pipeline` after the context: at once, where they hang. Nothing of threads."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        own = set(multiprocessing.active_children()) - before
        if own:
            closing = threading.Thread(target=loaded.close, daemon=True)  # waits up to 25 s for each
            closing.start()
            closing.join(SECONDS_TO_END)
            if closing.is_alive():
                for process in own:
                    process.kill()
                closing.join()


def _check_workers(workers: int) -> None:
    """Checks that new processes, which run the script up to its guard, do not come here again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(f"A worker of Grain runs this script from its start. {_advice(workers)}")  # without a traceback
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and Path(script).suffix == ".py" and not _is_guarded(Path(script)):
        raise RuntimeError(f"workers={workers} start processes that run {script} from its start. {_advice(workers)}")


def _advice(workers: int) -> str:
    return (
        f'Put what it does below a line `if __name__ == "__main__":`, or leave out workers={workers}: threads are as '
        "fast where photos are decoded"
    )


def _is_guarded(script: Path) -> bool:
    """Whether a script has an `if` that asks for `__name__`; True if it cannot be read."""
    try:
        statements = ast.parse(script.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True
    return any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in statements)


def _import_grain() -> Any:
    try:
        import grain
        from absl import flags
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: training reads its data with Grain: pip install 'flaxapps[train]'"
        ) from error
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which only absl programs parse
    return grain


def _check(batch_size: int, seed: int | None, epoch: int, start: int, shard: tuple[int, int], workers: int) -> None:
    index, count = shard
    wrong = []
    if batch_size < 1:
        wrong.append(f"batch_size should be at least 1, got {batch_size}")
    if seed is not None and seed < 0:
        wrong.append(f"seed should be at least 0, got {seed}")
    wrong += [
        f"{name} should be at least 0, got {value}"
        for name, value in (("epoch", epoch), ("start", start), ("workers", workers))
        if value < 0
    ]
    if not 0 <= index < count:
        wrong.append(f"shard should be (index, count) with index below count, got {shard}")
    elif batch_size % count:
        wrong.append(f"batch_size should be a multiple of the {count} shards, got {batch_size}")
    if wrong:
        raise ValueError("; ".join(wrong))
