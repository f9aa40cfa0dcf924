"""Where a step runs: on one device, or on many, each with a part of the batch and all of the state."""

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

from train.layout import DATA, MODEL, Layout
from train.state import TrainState
from train.steps import take_step_apart, train_step_apart

AXIS = "batch"  # of `jax.pmap`
MODES = ("auto", "jit", "pmap")
StepFunction = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Placement:
    """Devices, and how batches and arrays are spread over them; `place_on_devices` makes one.

    Attributes:
        layout: Where arrays lie on the devices.
        batch_size: Examples in a batch, over all devices together.
        mapped: Whether steps run under `jax.pmap`; otherwise under `jax.jit`, which partitions them itself.
    """

    layout: Layout
    batch_size: int
    mapped: bool = False

    @property
    def mesh(self) -> Mesh:
        """The devices along "data", which the batch is cut along, and "model"."""
        return self.layout.mesh

    @property
    def shard(self) -> tuple[int, int]:
        """(index, count): the part of every batch that this process reads, as `Dataset.batches` takes it."""
        return (jax.process_index(), jax.process_count()) if self.mesh.is_multi_process else (0, 1)

    def is_empty(self, labels: NDArray[Any]) -> bool:
        """Whether a batch has no example: of several processes one does not know what the others have."""
        return len(labels) == 0 and not self.mesh.is_multi_process

    def place(self, tree: Any) -> Any:
        """Sends arrays to the devices, once for the whole run.

        Args:
            tree: A state or variables; of several processes, each has the same.
        """
        shardings = self.layout.shardings(tree)
        if not self.mesh.is_multi_process:
            return jax.device_put(tree, shardings)
        return jax.tree.map(_place_whole, tree, shardings)

    def spread(self, images: Any, labels: NDArray[Any], parts: int = 1) -> Any:
        """Sends a batch to the devices, without waiting for it.

        A batch that does not divide is filled up with its first examples, and a mask says which count. Of several
        processes each gives its own part, and all fill it up to the same size, since none knows how many examples
        another could read.

        Args:
            images: (batch, ...), or a list of such arrays.
            labels: (batch, ...).
            parts: In how many parts every device computes its share.

        Returns:
            The images, the labels, and the mask or None, as `train_step` and `eval_step` take them.

        Raises:
            ValueError: The part of a process is larger than its share of `batch_size`.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(DATA))
        _, count = self.shard
        multiple = self.mesh.shape[DATA] // count * parts
        if count == 1:
            return jax.device_put(fill_up(images, labels, multiple), sharding)
        share = self.batch_size // count
        if len(labels) > share:
            raise ValueError(
                f"A batch has {len(labels)} examples for one of {count} processes; batch_size={self.batch_size} is "
                f"{share} for each"
            )
        mask = np.arange(-(-share // multiple) * multiple) < len(labels)
        batch = jax.tree.map(lambda array: _repeat_to(array, len(mask)), (images, labels))
        return jax.make_array_from_process_local_data(sharding, (*batch, mask))

    def step(self, frozen_params: Any = None, /, **options: Any) -> StepFunction:
        """`train_step` on these devices.

        Args:
            frozen_params: Placed parameters to compute with in place of the state's frozen ones; None for these.
            **options: The keyword arguments of `train_step`.

        Returns:
            A function of the placed state and what `spread` returns; it uses up its state, all but the frozen
            parameters, which go on into the next state as they are.
        """
        compiled: Any = functools.partial(train_step_apart, layout=self.layout, **options)
        if self.mapped:
            compiled = jax.pmap(
                functools.partial(take_step_apart, axis_name=AXIS, **options),
                axis_name=AXIS,
                in_axes=(None, None, 0, 0, 0),
                out_axes=None,
                donate_argnums=0,
                devices=self.mesh.devices.ravel().tolist(),
            )
        count = self.mesh.size

        def step(state: TrainState, *batch: Any) -> tuple[TrainState, dict[str, Any]]:
            if self.mapped:
                batch = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), batch)
            still = state.frozen_params if frozen_params is None else frozen_params
            following, sums = compiled(state.replace(frozen_params={}), still, *batch)
            return following.replace(frozen_params=state.frozen_params), sums

        return step


def place_on_devices(
    parallel: str,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    mesh: Mapping[str, int] | None = None,
    shard_optimizer: bool = False,
) -> Placement:
    """What the arguments of `fit` stand for.

    Args:
        parallel: "jit" and "pmap" use all devices; "auto" is "jit" on as many as divide the batch.
        batch_size: Examples in a batch, over all devices together.
        devices: The devices to use; None for all, those of the other processes included.
        mesh: How many devices there are along "data" and "model"; None for all along "data".
        shard_optimizer: As for `Layout`.

    Raises:
        ValueError: There is no such mode, or the devices cannot be arranged so.
    """
    if parallel not in MODES:
        raise ValueError(f"parallel is one of {', '.join(MODES)}, got {parallel!r}")
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
            wrong.append(f"mesh says how many devices there are along {DATA} and {MODEL}, got {shown}")
        elif mesh.get(MODEL, 1) * mesh.get(DATA, 1) != devices:
            wrong.append(f"mesh {shown} should multiply to the number of devices, which is {devices}")
        elif devices // processes % mesh.get(MODEL, 1):
            wrong.append(
                f"the {mesh[MODEL]} devices along {MODEL} should be of one process, which has {devices // processes}"
            )
    if parallel == "pmap" and (mesh is not None or shard_optimizer or processes > 1):
        wrong.append('parallel="pmap" keeps everything on every device of one process: take "jit" for anything else')
    if batch_size % processes:
        wrong.append(f"batch_size is a multiple of the {processes} processes, got {batch_size}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _as_divide(batch_size: int, devices: Sequence[jax.Device], processes: int) -> list[jax.Device]:
    """As many devices as divide the batch, the same number of each process."""
    share = batch_size // processes
    count = max(count for count in range(1, len(devices) // processes + 1) if share % count == 0)
    by_process: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    return [device for own in by_process.values() for device in own[:count]]


def _place_whole(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has as a whole."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        key: jax.Array = jax.random.wrap_key_data(_place_whole(jax.random.key_data(leaf), sharding))
        return key
    whole = np.asarray(leaf)
    placed: jax.Array = jax.make_array_from_process_local_data(sharding, whole, whole.shape)
    return placed


def _repeat_to(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Repeats rows from the first on until there are `size`; zeros where there is none."""
    return array[np.arange(size) % len(array)] if len(array) else np.zeros((size, *array.shape[1:]), array.dtype)


def fetch(tree: Any) -> Any:
    """Arrays as NumPy's, whole; where they lie on the devices of several processes all have to call this."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def fill_up(images: Any, labels: NDArray[Any], multiple: int) -> tuple[Any, NDArray[Any], NDArray[np.bool_] | None]:
    """Repeats examples from the first on until their number is a multiple.

    Args:
        images: (batch, ...), or a list of such arrays.
        labels: (batch, ...).
        multiple: Of what the number should be.

    Returns:
        Images, labels, and a mask that is False where an example only fills; None where none does.

    >>> fill_up(np.zeros((3, 2)), np.zeros(3), 4)[2]
    array([ True,  True,  True, False])
    """
    count = len(labels)
    missing = -count % multiple
    if not missing:
        return images, labels, None
    images, labels = jax.tree.map(lambda array: _repeat_to(array, count + missing), (images, labels))
    return images, labels, np.arange(count + missing) < count
