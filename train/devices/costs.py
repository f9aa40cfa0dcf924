"""Estimates the cost of a training step per device. XLA compiles the step from shapes; no array is allocated."""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from flaxapps.model import Model
from flaxapps.train.devices.layout import DATA
from flaxapps.train.devices.placement import Placement
from flaxapps.train.step.state import create_state
from flaxapps.train.step.step import train_step

GROUPS = {
    "params": "parameters that train",
    "frozen_params": "frozen parameters",
    "batch_stats": "statistics",
    "optimizer_state": "optimizer",
}


class PlacedArray(NamedTuple):
    """An array of the state and its sharding.

    Attributes:
        group: The field of `TrainState` it belongs to.
        name: Its path in that field.
        shape: Global shape.
        spec: Partition spec.
        bytes: Global size.
        device_bytes: Size of the shard on one device.
    """

    group: str
    name: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    bytes: int
    device_bytes: int


class StepCosts(NamedTuple):
    """Cost of one step on each device, as estimated by XLA.

    Attributes:
        arrays: Arrays of the state.
        flops: Floating-point operations; 0 if the backend does not report them.
        batch_bytes: Memory of the images and labels.
        temporary_bytes: Peak memory of intermediate values.
        device_bytes: Memory of all of it at the same time.
    """

    arrays: list[PlacedArray]
    flops: float
    batch_bytes: int
    temporary_bytes: int
    device_bytes: int


def estimate_step(
    model: Model, placement: Placement, images: jax.ShapeDtypeStruct, labels: jax.ShapeDtypeStruct, **options: Any
) -> StepCosts:
    """Compiles a step without running it; no array is allocated.

    Args:
        model: The model.
        placement: The devices, from `place_on_devices`.
        images: Shape and dtype of a whole batch.
        labels: Shape and dtype of its labels.
        **options: The keyword arguments of `train_step`.

    Raises:
        ValueError: Shapes do not fit, or the devices do not divide the batch.
    """
    optimizer, frozen = options["optimizer"], options.get("frozen", frozenset())
    state = jax.eval_shape(lambda: create_state(model, model.init_variables(), optimizer, frozen))
    placed = jax.tree.map(_with_sharding, state, placement.layout.shardings(state))
    sharding = NamedSharding(placement.mesh, PartitionSpec(DATA))
    batch = [_with_sharding(array, sharding) for array in (images, labels)]
    moving = placed.replace(frozen_params={})
    lowered = train_step.lower(moving, *batch, None, placed.frozen_params, layout=placement.layout, **options)
    compiled = lowered.compile()
    flops: Any = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    # Donated arguments share their memory with outputs: count them once.
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return StepCosts(
        _arrays(placed),
        flops.get("flops", 0.0),
        sum(_bytes(array, array.sharding.shard_shape(array.shape)) for array in batch),
        memory.temp_size_in_bytes,
        kept + memory.temp_size_in_bytes,
    )


def _arrays(state: Any) -> list[PlacedArray]:
    arrays = []
    for group in GROUPS:
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(state, group)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            sizes = _bytes(leaf, leaf.shape), _bytes(leaf, leaf.sharding.shard_shape(leaf.shape))
            arrays.append(PlacedArray(group, name, leaf.shape, leaf.sharding.spec, *sizes))
    return arrays


def _with_sharding(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _bytes(leaf: Any, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * int(leaf.dtype.itemsize)
