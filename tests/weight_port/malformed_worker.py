"""Reads weights files named on standard input, with bounded memory; one line of JSON about each.

The first line describes the model they are for, or is `null`: then it is the model each file describes itself.

It runs on its own, so that a file that brings the interpreter down brings down nothing else.
"""

import hashlib
import json
import resource
import sys
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from weight_port import WeightError, load_weights, read_config
from weight_port.inspecting import inspect_file

GROWTH = 1 << 30


def model_from(description):
    """What `weight_port` needs of a model, from the names, classes and shapes of its layers."""
    layers = []
    for name, class_name, weights, inner in description:
        found = {leaf: SimpleNamespace(shape=tuple(shape), collection=kind) for leaf, (shape, kind) in weights.items()}
        layer = SimpleNamespace(name=name, class_name=class_name, weights=found)
        if inner is not None:
            layer.layers = model_from(inner).layers
        layers.append(layer)
    return SimpleNamespace(layers=layers)


def leaves(tree, path=""):
    for key in sorted(tree):
        below = f"{path}/{key}"
        yield from leaves(tree[key], below) if isinstance(tree[key], dict) else [(below, tree[key])]


def described(tree):
    """Shape, type and hash of every array."""
    return {
        name: [list(array.shape), str(array.dtype), hashlib.md5(array.tobytes()).hexdigest()]
        for name, array in leaves(tree)
    }


def whole_model(path):
    """The weights of the model that the file itself describes."""
    from flaxapps.saving.load import load_architecture

    return described(load_weights(path, load_architecture(path)))


def inspected(path):
    """What `python -m weight_port inspect` prints from."""
    inspect_file(path)
    return {}


def outcome(path, ways):
    """What each way of reading the file leads to: `refused`, `read`, or `failed`."""
    found = {}
    for kind, call in ways.items():
        try:
            found[kind] = {"read": call(path)}
        except WeightError as error:
            found[kind] = {"refused" if path in str(error) else "failed": str(error)[:500]}
        except BaseException:
            found[kind] = {"failed": traceback.format_exc()[-1500:]}
    return found


def main():
    description = json.loads(sys.stdin.readline())
    if description is None:
        ways = {"model": whole_model}
    else:
        model = model_from(description)
        ways = {
            "weights": lambda path: described(load_weights(path, model)),
            "config": lambda path: bool(read_config(path)),
            "inspection": inspected,
        }
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(outcome(line.rstrip("\n"), ways)), flush=True)


if __name__ == "__main__":
    main()
