"""Placement: shards batches over a device mesh, and replicates or shards the arrays of the state."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flaxapps.train.devices.layout import DATA, MODEL, Layout
from flaxapps.train.step.state import TrainState
from flaxapps.train.step.step import take_step

AXIS = "batch"  # the mapped axis under `jax.pmap`
STEPS_KEPT = 2  # compiled steps, for as many phases of a run; each keeps 10 to 50 MB
MODES = ("auto", "jit", "pmap")
StepFunction = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Placement:
    """Devices, and how batches and arrays are placed on them. Made by `place_on_devices`.

    Attributes:
        layout: Sharding of the state.
        batch_size: Examples in a batch, over all devices.
        mapped: Whether steps run under `jax.pmap`; otherwise under `jax.jit`, which partitions them itself.
    """

    layout: Layout
    batch_size: int
    mapped: bool = False

    @property
    def mesh(self) -> Mesh:
        """Devices along "data", over which the batch is sharded, and along "model"."""
        return self.layout.mesh

    @property
    def shard(self) -> tuple[int, int]:
        """(index, count): the shard of every batch that this process reads, as `Dataset.batches` takes it."""
        return (jax.process_index(), jax.process_count()) if self.mesh.is_multi_process else (0, 1)

    def is_empty(self, labels: NDArray[Any]) -> bool:
        """Whether a batch has no examples; False with several processes, as others may have some."""
        return len(labels) == 0 and not self.mesh.is_multi_process

    def replicate(self, tree: Any) -> Any:
        """Sends arrays to the devices in this layout, once for the whole run.

        Args:
            tree: A state or variables, the same in every process.
        """
        shardings = self.layout.shardings(tree)
        if not self.mesh.is_multi_process:
            return jax.device_put(tree, shardings)
        return jax.tree.map(_place_whole, tree, shardings)

    def shard_batch(self, images: Any, labels: NDArray[Any], parts: int = 1) -> Any:
        """Sends a batch to the devices, without waiting for it.

        A batch that the devices do not divide is padded with its first examples, and a mask is False for the padding.
        With several processes, each gives its own shard, and all pad to the same size, since none knows how many
        examples another could read.

        Args:
            images: (batch, ...), or a list of such arrays.
            labels: (batch, ...).
            parts: Number of parts that every device computes its shard in.

        Returns:
            The images, the labels, and the mask or None, as `train_step` and `eval_step` take them.

        Raises:
            ValueError: The shard of a process is larger than its share of `batch_size`.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(DATA))
        _, count = self.shard
        multiple = self.mesh.shape[DATA] // count * parts
        if count == 1:
            return jax.device_put(pad_batch(images, labels, multiple), sharding)
        share = self.batch_size // count
        if len(labels) > share:
            raise ValueError(
                f"A batch has {len(labels)} examples in one of {count} processes, but batch_size={self.batch_size} "
                f"allows {share} in each"
            )
        # Always a mask, so that all processes run the same program.
        mask = np.arange(-(-share // multiple) * multiple) < len(labels)
        batch = jax.tree.map(lambda array: _repeat_to(array, len(mask)), (images, labels))
        return jax.make_array_from_process_local_data(sharding, (*batch, mask))

    def step(self, frozen_params: Any = None, /, **options: Any) -> StepFunction:
        """Compiles `take_step` for these devices.

        Args:
            frozen_params: Placed parameters to use in place of the state's frozen ones; None for the latter.
            **options: The keyword arguments of `take_step`.

        Returns:
            A function of the placed state and what `shard_batch` returns. It donates the state except for the frozen
            parameters, which the next state shares.
        """
        compiled = _compile_step(self, **options)
        count = self.mesh.size

        def step(state: TrainState, *batch: Any) -> tuple[TrainState, dict[str, Any]]:
            if self.mapped:
                batch = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), batch)
            arrays = state.frozen_params if frozen_params is None else frozen_params
            following, sums = compiled(state.replace(frozen_params={}), *batch, arrays)
            return following.replace(frozen_params=state.frozen_params), sums

        return step


@functools.lru_cache(maxsize=STEPS_KEPT)
def _compile_step(placement: Placement, **options: Any) -> StepFunction:
    """Compiles `take_step` for a placement.

    A new partial per entry, so that evicting it from this cache frees the compiled program. A jitted function with
    static arguments would keep the programs of all optimizers that ever were.
    """
    if placement.mapped:
        mapped: StepFunction = jax.pmap(
            functools.partial(take_step, axis_name=AXIS, **options),
            axis_name=AXIS,
            in_axes=(None, 0, 0, 0, None),
            out_axes=None,
            donate_argnums=0,
            devices=placement.mesh.devices.ravel().tolist(),
        )
        return mapped
    step: Any = functools.partial(take_step, layout=placement.layout, **options)
    jitted: StepFunction = jax.jit(step, donate_argnames=("state",))
    return jitted


def place_on_devices(
    parallel: str,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    mesh: Mapping[str, int] | None = None,
    shard_optimizer: bool = False,
) -> Placement:
    """Resolves the device arguments of `fit`.

    Args:
        parallel: "jit" and "pmap" use all devices; "auto" is "jit" on as many as divide the batch.
        batch_size: Examples in a batch, over all devices.
        devices: Devices to use; None for all, including those of other processes.
        mesh: Number of devices along "data" and "model"; None for all along "data".
        shard_optimizer: As for `Layout`.

    Raises:
        ValueError: The mode is unknown, or the devices cannot form the mesh.
    """
    if parallel not in MODES:
        raise ValueError(f"parallel should be one of {', '.join(MODES)}, got {parallel!r}")
    devices = list(jax.devices() if devices is None else devices)
    processes = len({device.process_index for device in devices})
    _check_mesh(parallel, batch_size, len(devices), processes, mesh, shard_optimizer)
    if parallel == "auto" and mesh is None:
        devices = _as_divide(batch_size, devices, processes)
    model = (mesh or {}).get(MODEL, 1)
    arranged = Mesh(np.array(devices).reshape(-1, model), (DATA, MODEL))
    return Placement(Layout(arranged, shard_optimizer), batch_size, mapped=parallel == "pmap")


def _check_mesh(
    parallel: str, batch_size: int, devices: int, processes: int, mesh: Mapping[str, int] | None, shard_optimizer: bool
) -> None:
    wrong = []
    if mesh is not None:
        shown = ",".join(f"{name}={size}" for name, size in mesh.items())
        if not set(mesh) <= {DATA, MODEL} or any(size < 1 for size in mesh.values()):
            wrong.append(f"mesh should give the number of devices along {DATA} and {MODEL}, got {shown}")
        elif mesh.get(MODEL, 1) * mesh.get(DATA, 1) != devices:
            wrong.append(f"mesh {shown} should multiply to the number of devices, which is {devices}")
        elif devices // processes % mesh.get(MODEL, 1):
            wrong.append(
                f"the {mesh[MODEL]} devices along {MODEL} should be in one process, which has {devices // processes}"
            )
    if parallel == "pmap" and (mesh is not None or shard_optimizer or processes > 1):
        wrong.append('parallel="pmap" takes no mesh, no shard_optimizer and one process only: use parallel="jit"')
    if batch_size % processes:
        wrong.append(f"batch_size should be a multiple of the {processes} processes, got {batch_size}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _as_divide(batch_size: int, devices: Sequence[jax.Device], processes: int) -> list[jax.Device]:
    """Selects the most devices that divide the batch, equally many per process."""
    share = batch_size // processes
    count = max(count for count in range(1, len(devices) // processes + 1) if share % count == 0)
    by_process: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    return [device for own in by_process.values() for device in own[:count]]


def _place_whole(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array that every process holds in full."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        key: jax.Array = jax.random.wrap_key_data(_place_whole(jax.random.key_data(leaf), sharding))
        return key
    whole = np.asarray(leaf)
    placed: jax.Array = jax.make_array_from_process_local_data(sharding, whole, whole.shape)
    return placed


def _repeat_to(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Repeats rows, from the first, until there are `size`; zeros if there are no rows."""
    return array[np.arange(size) % len(array)] if len(array) else np.zeros((size, *array.shape[1:]), array.dtype)


def fetch(tree: Any) -> Any:
    """Gathers arrays to host memory as NumPy arrays. A collective in multi-process runs: every process must call it."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def pad_batch(images: Any, labels: NDArray[Any], multiple: int) -> tuple[Any, NDArray[Any], NDArray[np.bool_] | None]:
    """Pads a batch to a multiple by repeating its examples from the first.

    Args:
        images: (batch, ...), or a list of such arrays.
        labels: (batch, ...).
        multiple: The padded batch size is a multiple of this.

    Returns:
        Images, labels, and a mask that is False for padding; None if there is none.

    >>> pad_batch(np.zeros((3, 2)), np.zeros(3), 4)[2]
    array([ True,  True,  True, False])
    """
    count = len(labels)
    missing = -count % multiple
    if not missing:
        return images, labels, None
    images, labels = jax.tree.map(lambda array: _repeat_to(array, count + missing), (images, labels))
    return images, labels, np.arange(count + missing) < count
