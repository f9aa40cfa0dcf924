"""Every option of a configuration changed to another value it could have: what the file says must be what is read."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from tests.faults.config_mutations import Path, at, paths

# Keys below which nothing says what a network computes: how it began, was trained, checked or stored.
NEUTRAL = re.compile(
    r".*(_initializer|_regularizer|_constraint)|init|.*_init|trainable|seed|momentum|moving_.*|build_config|optimizer.*|"
    r"compile_config|module|registered_name|shared_object_id|keras_version|backend|sparse|ragged|renorm.*|synchronized|"
    r"input_dtype|input_dim|output_mask.*|output_shape_type|arguments|mode_type|dot_axes|experimental_autocast|"
    r"batch_size|fused|autocast|implementation|dynamic|dropout|rate|p|sigma|stddev|noise_shape|weights"
)
# Options that say where an array is, or how one is called, twice: in a node of TensorFlow's graph by position too.
OF_NODES = ("attr", "input", "name")
OTHER_WORDS = {"valid": "same", "same": "valid", "channels_last": "channels_first", "linear": "tanh", "tf": "th"}
OTHER_WORDS |= {"nearest": "bilinear", "bilinear": "nearest", "float32": "float16", "channels_first": "channels_last"}
OTHER_WORDS |= {"sum": "mul", "mul": "sum", "ave": "max", "max": "ave"}


def others(value: Any) -> Iterator[Any]:
    """Values of the same type that mean something else."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield value + 2
    elif isinstance(value, float):
        yield value + 0.25
    elif isinstance(value, str):
        yield OTHER_WORDS.get(value, "tanh")


def changed_options(config: Any) -> Iterator[tuple[Path, Any, Any]]:
    """Every place, the other value, and the configuration with it there: of all that says what a network computes."""
    for path in paths(config):
        keys = [key for key in path if isinstance(key, str)]
        if any(NEUTRAL.fullmatch(key) for key in keys) or ("node_def" in keys and set(OF_NODES) & set(keys)):
            continue
        for other in others(at(config, path)):
            changed = copy.deepcopy(config)
            at(changed, path[:-1])[path[-1]] = other
            yield path, other, changed
