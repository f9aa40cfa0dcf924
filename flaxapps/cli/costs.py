"""Tables of estimated costs: operations and memory."""

from collections.abc import Mapping
from typing import IO

from flaxapps.inference.compile import Costs
from flaxapps.runtime.console import new_table, open_console
from flaxapps.train.devices.costs import GROUPS, StepCosts
from flaxapps.train.devices.layout import DATA


def write_costs(stream: IO[str], costs: Costs, batch_size: int) -> None:
    """Writes the costs of one batch as a table."""
    table = new_table(caption="as XLA estimates it for the default device")
    table.add_column(f"a batch of {batch_size}")
    table.add_column("", justify="right")
    table.add_row("operations", f"{costs.flops / 1e9:.3g} GFLOP")
    sizes = {
        "weights": costs.weight_bytes,
        "images": costs.input_bytes,
        "outputs": costs.output_bytes,
        "intermediate values": costs.temporary_bytes,
        "program": costs.code_bytes,
        "memory of the device": costs.device_bytes,
    }
    for name, size in sizes.items():
        if size:
            table.add_row(name, f"{size / 1e6:.3g} MB")
    open_console(stream).print(table)


def write_step_costs(stream: IO[str], costs: StepCosts, mesh: Mapping[str, int], batch_size: int) -> None:
    """Writes the costs of one training step as a table, with a line for each sharded array.

    Args:
        stream: Output.
        costs: From `estimate_step`.
        mesh: Number of devices along each axis.
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


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"
