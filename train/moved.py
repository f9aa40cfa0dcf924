"""Keywords of `fit` that moved into groups, which work for one release with a warning; and keywords of Keras."""

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from flaxapps.train.options import CheckpointFolder, Computation, Devices, FeatureCache

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _Place(NamedTuple):
    """Where a keyword went: the argument that takes its group, the group, and the field."""

    argument: str
    group: type
    field: str


MOVED: Mapping[str, _Place] = MappingProxyType(
    {
        "mesh": _Place("devices", Devices, "mesh"),
        "shard_optimizer": _Place("devices", Devices, "shard_optimizer"),
        "checkpoint_every": _Place("checkpoint_dir", CheckpointFolder, "every"),
        "resume": _Place("checkpoint_dir", CheckpointFolder, "resume"),
        "cache_limit": _Place("cache_features", FeatureCache, "memory_limit"),
        "accumulate": _Place("computation", Computation, "accumulate"),
        "remat": _Place("computation", Computation, "remat"),
        "optimize_frozen": _Place("computation", Computation, "optimize_frozen"),
    }
)


KERAS_KEYWORDS: Mapping[str, str] = MappingProxyType(
    {
        "x": "give images and labels as one tuple, the third argument: fit(model, variables, (x, y), ...)",
        "validation_split": "give validation_data: the last examples of arrays, or the other subset of "
        "train.image_folder(..., validation_split=0.2, subset=...)",
        "validation_steps": "give validation_data=train.as_dataset(batches, steps_per_epoch=...)",
        "shuffle": "arrays and folders are shuffled in every epoch, and batches are read as they come: for examples in "
        "order give data=lambda: train.as_dataset(data).batches(32, seed=None)",
        "class_weight": "write class_weights",
        "learning_rate": "it is the optimizer's: optimizer=optax.adam(1e-3)",
    }
)


def accept_moved_keywords(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates `fit`, so that it takes its old keywords as well; type checkers see the new ones only."""

    @functools.wraps(function)
    def with_moved(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        given: dict[str, Any] = options
        wrong = [f"{name}: {advice}" for name, advice in KERAS_KEYWORDS.items() if name in given]
        if len(arguments) > 3:
            wrong.append(KERAS_KEYWORDS["x"])
        if wrong:
            raise TypeError(f"fit takes other arguments: {'; '.join(wrong)}")
        for name in [name for name in MOVED if name in given]:
            argument, group, field = MOVED[name]
            shown = f"{argument}=train.{group.__name__}(..., {field}={given[name]!r})"
            warnings.warn(f"fit({name}=...) has moved: write {shown}", DeprecationWarning, stacklevel=2)
            value = given.pop(name)
            given[argument] = _with_field(given.get(argument), group, field, value)
        return function(*arguments, **given)

    return with_moved


def _with_field(group: Any, kind: Any, field: str, value: Any) -> Any:
    """Returns the group that an argument gives, with one field set; unchanged where the field has no meaning."""
    if kind is CheckpointFolder and group is None and value:
        raise ValueError("resume and checkpoint_every need a checkpoint_dir")
    if kind is not Computation:
        group = kind.of(False if kind is FeatureCache and group is None else group)
    elif group is None:
        group = Computation()
    return group if group is None else replace(group, **{field: value})
