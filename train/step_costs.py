"""What one step of training takes on each device, told before anything is allocated: XLA compiles it from shapes."""

import math
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from flaxapps.model import Model
from flaxapps.reports import new_table, open_console
from train.layout import DATA
from train.parallel import Placement
from train.state import create_state
from train.steps import train_step_apart

GROUPS = {
    "params": "parameters that train",
    "frozen_params": "frozen parameters",
    "batch_stats": "statistics",
    "optimizer_state": "optimizer",
}


class PlacedArray(NamedTuple):
    """An array of the state and where it lies.

    Attributes:
        group: The field of `TrainState` it belongs to.
        name: Its path in there.
        shape: Of the whole.
        spec: How it is cut.
        bytes: Of the whole.
        device_bytes: Of the part that a device has.
    """

    group: str
    name: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    bytes: int
    device_bytes: int


class StepCosts(NamedTuple):
    """What one step takes on each device, as XLA estimates it.

    Attributes:
        arrays: Of the state.
        flops: Floating-point operations; 0 where the backend does not say.
        batch_bytes: Memory of the images and labels.
        temporary_bytes: Largest memory of what is computed on the way, at any time.
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
    """Compiles a step without running it; no array is made.

    Args:
        model: The model.
        placement: The devices, from `place_on_devices`.
        images: Shape and type of a whole batch.
        labels: Shape and type of its labels.
        **options: The keyword arguments of `train_step`.

    Raises:
        ValueError: Shapes do not fit, or the batch does not divide by the devices.
    """
    optimizer, frozen = options["optimizer"], options.get("frozen", frozenset())
    state = jax.eval_shape(lambda: create_state(model, model.init_variables(), optimizer, frozen))
    placed = jax.tree.map(_with_sharding, state, placement.layout.shardings(state))
    sharding = NamedSharding(placement.mesh, PartitionSpec(DATA))
    batch = [_with_sharding(array, sharding) for array in (images, labels)]
    moving = placed.replace(frozen_params={})
    lowered = train_step_apart.lower(moving, placed.frozen_params, *batch, layout=placement.layout, **options)
    compiled = lowered.compile()
    flops: Any = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return StepCosts(
        _arrays(placed),
        flops.get("flops", 0.0),
        sum(_bytes(array, array.sharding.shard_shape(array.shape)) for array in batch),
        memory.temp_size_in_bytes,
        kept + memory.temp_size_in_bytes,
    )


def write_step_costs(stream: IO[str], costs: StepCosts, mesh: Mapping[str, int], batch_size: int) -> None:
    """Writes what a step takes, as a table; arrays that are cut have a line each.

    Args:
        stream: Where to.
        costs: From `estimate_step`.
        mesh: Devices along each axis.
        batch_size: Examples in a batch, over all devices together.
    """
    devices = ", ".join(f"{size} along {axis}" for axis, size in mesh.items())
    table = new_table(caption=f"devices: {devices}; as XLA estimates it, nothing has run")
    for heading in (f"a step of {batch_size} examples", "cut along", "whole", "on each device"):
        table.add_column(heading, justify="right" if heading in ("whole", "on each device") else "left")
    for group, title in GROUPS.items():
        arrays = [array for array in costs.arrays if array.group == group]
        if not arrays:
            continue
        whole, part = (sum(sizes) for sizes in zip(*((each.bytes, each.device_bytes) for each in arrays), strict=True))
        table.add_row(title, "", _megabytes(whole), _megabytes(part))
        for array in arrays:
            if any(array.spec):
                spec = ", ".join(axis or "-" for axis in array.spec)
                sizes = _megabytes(array.bytes), _megabytes(array.device_bytes)
                table.add_row(f"  {array.name} {array.shape}", spec, *sizes)
    table.add_row("images and labels", DATA, "", _megabytes(costs.batch_bytes))
    table.add_row("intermediate values", "", "", _megabytes(costs.temporary_bytes))
    table.add_row("memory", "", "", _megabytes(costs.device_bytes))
    table.add_row("operations", "", "", f"{costs.flops / 1e9:.3g} GFLOP")
    open_console(stream).print(table)


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


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"
