"""What must be the same for a run to go on from its checkpoints, and what is not."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flaxapps.model import Model
from train.datasets import Dataset
from train.state import TrainState
from train.stored_state import optimizer_leaves

LINES_SHOWN = 10


def describe_run(
    model: Model,
    state: TrainState,
    frozen: Iterable[str],
    data: Dataset,
    validation: Dataset | None,
    *,
    batch_size: int,
    seed: int,
    metrics: Iterable[str],
) -> dict[str, Any]:
    """What must be the same for a run to go on, as JSON holds it: values, and lists of lines."""
    return {
        "layers": [f"{layer.name}: {layer.class_name} {layer.output_shape}" for layer in model.layers],
        "frozen": sorted(frozen),
        "optimizer": [f"{path}: {leaf.dtype} {leaf.shape}" for path, leaf in optimizer_leaves(state).items()],
        "class_names": list(data.class_names or ()),
        "data": data.fingerprint,
        "validation_data": None if validation is None else validation.fingerprint,
        "batch_size": batch_size,
        "seed": seed,
        "metrics": list(metrics),
    }


def run_differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], data_differences: Callable[[], list[str]]
) -> list[str]:
    """Lines on what differs between two descriptions.

    Args:
        saved: That of the checkpoints.
        now: That of the run that wants to go on.
        data_differences: Lines on what differs between the data, asked for where the fingerprints do.
    """
    lines = []
    for name, value in now.items():
        before = saved.get(name)
        if before == value:
            continue
        if name == "data":
            lines += [f"data: {line}" for line in data_differences()]
        elif isinstance(value, list) and isinstance(before, list):
            lines += _list_differences(name, before, value)
        else:
            lines.append(f"{name}: was {before}, is {value}")
    return lines


def _list_differences(name: str, before: list[str], now: list[str]) -> list[str]:
    gone = [f"{name}: was there, is not: {line}" for line in before if line not in now]
    new = [f"{name}: is there, was not: {line}" for line in now if line not in before]
    lines = [*gone[:LINES_SHOWN], *new[:LINES_SHOWN]] or [f"{name}: the same entries in another order"]
    left = len(gone[LINES_SHOWN:]) + len(new[LINES_SHOWN:])
    return [*lines, f"{name}: and {left} more"] if left else lines
