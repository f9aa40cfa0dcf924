"""The settings a resumed run must share with its checkpoints, and a diff of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flaxapps.model import Model
from flaxapps.train.checkpoints.stored_state import optimizer_leaves
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.step.state import TrainState

LINES_SHOWN = 10
SETTINGS = "settings"


def describe_run(
    model: Model,
    state: TrainState,
    frozen: Iterable[str],
    data: Dataset,
    validation: Dataset | None,
    *,
    batch_size: int,
    seed: int,
    initial_epoch: int,
    metrics: Iterable[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Describes what a resumed run must share with its checkpoints, as JSON values and lists of lines.

    Under "settings" is what it need not share: `describe_settings`.
    """
    return {
        "layers": [f"{layer.name}: {layer.class_name} {layer.output_shape}" for layer in model.layers],
        "frozen": sorted(frozen),
        "optimizer": [f"{path}: {leaf.dtype} {leaf.shape}" for path, leaf in optimizer_leaves(state).items()],
        "class_names": list(data.class_names or ()),
        "data": data.fingerprint,
        "validation_data": None if validation is None else validation.fingerprint,
        "batch_size": batch_size,
        "seed": seed,
        **({"initial_epoch": initial_epoch} if initial_epoch else {}),
        "metrics": list(metrics),
        SETTINGS: dict(settings),
    }


def run_differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], data_differences: Callable[[], list[str]]
) -> list[str]:
    """Lists the differences between two descriptions.

    Args:
        saved: Description stored with the checkpoints.
        now: Description of the run that resumes.
        data_differences: Returns lines on differences of the data; called only if the fingerprints differ.
    """
    lines = []
    for name, value in now.items():
        before = saved.get(name)
        if before == value or name == SETTINGS:
            continue
        if name == "data":
            lines += [f"data: {line}" for line in data_differences()]
        elif name == "validation_data" and before and value:  # fingerprints, which tell nobody anything
            lines.append("validation_data: was other data")
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
