"""Batch order and prefetching, with Grain.

The order is a pure function of (seed, epoch). A position is therefore two numbers, the epoch and its completed batches,
and `start` resumes there with any number of workers and hosts. Checkpoints hold those two numbers. Grain's own iterator
state works on a `pipeline` as well, but with worker processes it holds the state of each, so it fits only the same
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import grain

Batch = TypeVar("Batch")

BATCHES_AHEAD = 2  # prefetched into memory, besides the current one


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
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return loaded


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
