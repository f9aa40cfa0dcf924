"""Labels with sample weights, and the labels of several outputs: what batches hold in place of an array of labels."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

from flaxapps.model import Model

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


def output_names(model: Model) -> tuple[str, ...]:
    """Returns the names of a model's outputs, which are those of their layers, as in Keras.

    Raises:
        ValueError: Two outputs come from one layer.
    """
    names = tuple(node.layer.name or "" for node in model.graph.outputs)
    if len(set(names)) < len(names):
        raise ValueError(f"Outputs are named by their layers, which should differ for training: {', '.join(names)}")
    return names


def in_order(model: Model, images: Any) -> Any:
    """Returns inputs as the model takes them: a list in the order of its inputs for a dict by their names.

    Raises:
        ValueError: There is no array for an input.
    """
    if not isinstance(images, Mapping):
        return list(images) if isinstance(images, tuple) else images
    names = [node.layer.name for node in model.graph.inputs]
    missing = [name for name in names if name not in images]
    if missing:
        raise ValueError(f"The model takes {', '.join(map(repr, names))}, but the data has {', '.join(images)}")
    arrays = [images[name] for name in names]
    return arrays if isinstance(model.inputs, list | tuple) else arrays[0]
