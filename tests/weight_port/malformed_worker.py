"""Reads weights files named on standard input, with bounded memory; one line of JSON about each.

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


def outcome(path, model):
    """What each way of reading the file leads to: `refused`, `read`, or `failed`."""
    found = {}
    for call in (lambda: load_weights(path, model), lambda: read_config(path)):
        kind = "config" if found else "weights"
        try:
            given = call()
        except WeightError as error:
            found[kind] = {"refused" if path in str(error) else "failed": str(error)[:500]}
        except BaseException:
            found[kind] = {"failed": traceback.format_exc()[-1500:]}
        else:
            arrays = dict(leaves(given)) if kind == "weights" else {}
            found[kind] = {
                "read": {
                    name: [list(array.shape), str(array.dtype), hashlib.md5(array.tobytes()).hexdigest()]
                    for name, array in arrays.items()
                }
            }
    return found


def main():
    model = model_from(json.loads(sys.stdin.readline()))
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(outcome(line.rstrip("\n"), model)), flush=True)


if __name__ == "__main__":
    main()
