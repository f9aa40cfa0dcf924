"""Labels with sample weights, and the labels of several outputs: what batches hold in place of an array of labels."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

Labels = Any  # an array (batch, ...); for several outputs a dict by their names, or a tuple in their order


class Targets(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """The labels of a batch, and the weights of its examples. Rows are examples in every array.

    Attributes:
        labels: (batch, ...); for several outputs a dict by their names, or a tuple in their order.
        weights: (batch,), float32: factors of the loss of each example; a dict by the names of outputs for a factor of
            each output. None for 1.
    """

    labels: Labels
    weights: Any = None

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.labels)[0])


def as_targets(labels: Any) -> Targets:
    """Returns labels as `Targets`, without weights if they have none."""
    return labels if isinstance(labels, Targets) else Targets(labels)


def of_output(values: Any, name: str, index: int, what: str) -> Any:
    """Returns the part of an output.

    Args:
        values: A dict by the names of outputs, or a tuple or list in their order.
        name: Name of the output.
        index: Its index.
        what: What the values are, for errors.

    Raises:
        ValueError: There is no part for the output.
    """
    if isinstance(values, Mapping):
        if name in values:
            return values[name]
        raise ValueError(f"There are no {what} for the output {name!r}, but for {', '.join(map(repr, values))}")
    if isinstance(values, tuple | list) and index < len(values):
        return values[index]
    given = f"{len(values)}" if isinstance(values, tuple | list) else "one array"
    raise ValueError(
        f"The model has several outputs, so {what} should be a dict by their names, or a tuple in their order: there "
        f"is none for {name!r}, got {given}"
    )
