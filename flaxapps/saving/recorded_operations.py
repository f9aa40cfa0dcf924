"""Build operations (functions with constants among their arguments) from a configuration."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flaxapps import layers
from flaxapps.graph.symbolic import Layer
from flaxapps.saving.calls import Record
from flaxapps.saving.entries import layer_name
from flaxapps.saving.from_config import hashable

Entry = Mapping[str, Any]
# Readers of constants among the arguments of operations, by Keras class.
READ_ARGUMENTS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "__ellipsis__": lambda config: ...,
        "__numpy__": lambda config: layers.Constant(hashable(config["value"]), str(config["dtype"])),
        "__slice__": lambda config: layers.Slice(config["start"], config["stop"], config["step"]),
        "__tensor__": lambda config: layers.Constant(hashable(config["value"]), str(config["dtype"])),
    }
)


def operation_of(entry: Entry, record: Record, channels_first: bool) -> Layer:
    """Build the operation of one call of an entry."""
    count = itertools.count()

    def fill(argument: Any) -> Any:
        if isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
            return layers.Slot(next(count))
        if isinstance(argument, Mapping) and argument.get("class_name") in READ_ARGUMENTS:
            return READ_ARGUMENTS[argument["class_name"]](argument.get("config", {}))
        return tuple(map(fill, argument)) if isinstance(argument, list) else argument

    options = {key: value for key, value in (entry["config"] | record["kwargs"]).items() if key != "name"}
    known = tuple((key, hashable(options[key])) for key in sorted(options) if options[key] is not None)
    arguments = tuple(map(fill, record["args"]))
    arrays = any(isinstance(argument, layers.Constant) for argument in arguments)
    depends = channels_first and (arrays or layers.OPERATIONS[entry["class_name"]].along_axes)
    return layers.Operation(entry["class_name"], arguments, known, depends, name=layer_name(entry))
