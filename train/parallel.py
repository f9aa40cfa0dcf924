"""Where a step runs: on one device, or on many, each with a part of the batch and all of the state."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from train.state import TrainState
from train.steps import take_step_apart, train_step_apart

AXIS = "batch"
MODES = ("auto", "jit", "pmap")
StepFunction = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Placement:
    """Devices, and how the batch is spread over them; `place_on_devices` makes one.

    Attributes:
        mesh: The devices along the axis "batch".
        mapped: Whether steps run under `jax.pmap`; otherwise under `jax.jit`, which partitions them itself.
    """

    mesh: Mesh
    mapped: bool = False

    @property
    def everywhere(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_example(self) -> NamedSharding:
        """The first axis is cut into as many parts as there are devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def replicate(self, tree: Any) -> Any:
        """Copies arrays to every device, once for the whole run."""
        return jax.device_put(tree, self.everywhere)

    def spread(self, images: Any, labels: NDArray[Any], parts: int = 1) -> Any:
        """Sends a batch to the devices, without waiting for it.

        A batch that does not divide is filled up with its first examples, and a mask says which count.

        Args:
            images: (batch, ...), or a list of such arrays.
            labels: (batch, ...).
            parts: In how many parts every device computes its share.

        Returns:
            The images, the labels, and the mask or None, as `train_step` and `eval_step` take them.
        """
        images, labels, mask = fill_up(images, labels, self.mesh.size * parts)
        return jax.device_put((images, labels, mask), self.by_example)

    def step(self, **options: Any) -> StepFunction:
        """`train_step` on these devices.

        Args:
            **options: The keyword arguments of `train_step`.

        Returns:
            A function of the replicated state and what `spread` returns; it uses up its state, all but the frozen
            parameters, which go on into the next state as they are.
        """
        compiled: Any = functools.partial(train_step_apart, **options)
        if self.mapped:
            compiled = jax.pmap(
                functools.partial(take_step_apart, axis_name=AXIS, **options),
                axis_name=AXIS,
                in_axes=(None, None, 0, 0, 0),
                out_axes=None,
                donate_argnums=0,
                devices=self.mesh.devices.tolist(),
            )
        count = self.mesh.size

        def step(state: TrainState, *batch: Any) -> tuple[TrainState, dict[str, Any]]:
            if self.mapped:
                batch = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), batch)
            following, sums = compiled(state.replace(frozen_params={}), state.frozen_params, *batch)
            return following.replace(frozen_params=state.frozen_params), sums

        return step


def place_on_devices(parallel: str, batch_size: int, devices: Sequence[jax.Device] | None = None) -> Placement:
    """What `parallel` of `fit` stands for.

    Args:
        parallel: "jit" and "pmap" use all devices; "auto" is "jit" on as many as divide the batch.
        batch_size: Examples in a batch, over all devices together.
        devices: The devices to use; None for all of the process.

    Raises:
        ValueError: There is no such mode.
    """
    if parallel not in MODES:
        raise ValueError(f"parallel is one of {', '.join(MODES)}, got {parallel!r}")
    devices = list(jax.devices() if devices is None else devices)
    if parallel == "auto":
        count = max(count for count in range(1, len(devices) + 1) if batch_size % count == 0)
        devices = devices[:count]
    return Placement(Mesh(np.array(devices), (AXIS,)), mapped=parallel == "pmap")


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
    rows = np.arange(count + missing)
    images, labels = jax.tree.map(lambda array: array[rows % count], (images, labels))
    return images, labels, rows < count
