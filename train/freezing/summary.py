"""A summary of what trains: layers, parameters and moving statistics, and where in the model they are."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flaxapps.graph.variables import weight_paths
from flaxapps.model import Model
from flaxapps.runtime.console import listed
from flaxapps.train.freezing.frozen import is_under, layer_paths

RANGES_SHOWN = 3
FIXED = ("Normalization",)  # layers whose statistics are adapted before the training and do not move in it


@dataclass(frozen=True)
class TrainingSummary:
    """What trains of a model. Its text is a line or two.

    Attributes:
        layers: Layers with parameters, by path "outer/inner", in the model's order.
        trainable: Those that train.
        parameters: Number of parameters, without moving statistics.
        trainable_parameters: Number of those that train.
        statistics: Layers with statistics that can move, such as BatchNormalization.
        moving: Those whose statistics move.
    """

    layers: tuple[str, ...]
    trainable: tuple[str, ...]
    parameters: int
    trainable_parameters: int
    statistics: tuple[str, ...]
    moving: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{len(self.trainable)} of {len(self.layers)} layers train, {self.trainable_parameters:,} of "
            f"{self.parameters:,} parameters: {_ranges(self.layers, self.trainable)}"
        )
        if not self.statistics:
            return text
        where = f": {_ranges(self.statistics, self.moving)}" if self.moving else ""
        return f"{text}\n{len(self.moving)} of {len(self.statistics)} layers update their moving statistics{where}"


def summarise_training(model: Model, frozen: Iterable[str] = ()) -> TrainingSummary:
    """Summarises which layers and parameters train.

    Args:
        model: The model.
        frozen: Names of frozen layers, from `frozen_layers`.

    Returns:
        The numbers and the paths of the layers.

    >>> from flaxapps import Input, layers
    >>> x = Input((8, 8, 3))
    >>> y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="stem")(x))
    >>> print(summarise_training(Model(x, layers.Dense(2, name="head")(y)), {"stem"}))
    2 of 3 layers train, 18 of 130 parameters: norm to head
    1 of 1 layers update their moving statistics: norm
    """
    stopped = frozenset(frozen)
    fixed = {path for path, layer in layer_paths(model.layers) if layer.class_name in FIXED}
    sizes: dict[tuple[str, ...], int] = {}
    statistics: dict[tuple[str, ...], None] = {}
    for (collection, *names, _), weight in weight_paths(model.graph):
        path = tuple(names)
        if collection == "params":
            sizes[path] = sizes.get(path, 0) + math.prod(weight.shape)
        elif "/".join(path) not in fixed:
            statistics[path] = None
    trainable = [path for path in sizes if not is_under(path, stopped)]
    moving = [path for path in statistics if not is_under(path, stopped)]
    return TrainingSummary(
        layers=_joined(sizes),
        trainable=_joined(trainable),
        parameters=sum(sizes.values()),
        trainable_parameters=sum(sizes[path] for path in trainable),
        statistics=_joined(statistics),
        moving=_joined(moving),
    )


def _joined(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("/".join(path) for path in paths)


def _ranges(order: Sequence[str], chosen: Iterable[str]) -> str:
    """Lists the unbroken ranges of the chosen layers."""
    picked, ranges = set(chosen), list[list[str]]()
    for before, name in zip(("", *order), order, strict=False):
        if name in picked and before in picked:
            ranges[-1][1:] = [name]
        elif name in picked:
            ranges.append([name])
    return listed([" to ".join(each) for each in ranges], limit=RANGES_SHOWN)
