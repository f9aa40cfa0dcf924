"""The variables a graph needs: their paths and shapes, and fresh values."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flaxapps.graph import Graph
from flaxapps.layers import Functional
from flaxapps.recording import Weight

Variables = Mapping[str, Any]
INITIALIZERS: Mapping[str, Callable[..., jax.Array]] = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "zeros": nn.initializers.zeros_init(),
    "ones": nn.initializers.ones_init(),
}


def weight_paths(graph: Graph, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Weight]]:
    """All arrays of a graph with their paths in the variables, such as ("params", "conv1", "kernel"), in Keras's order.

    Args:
        graph: The graph.
        above: Names of the models around it.
    """
    paths = []
    for layer in graph.layers:
        if isinstance(layer.layer, Functional):
            paths += weight_paths(layer.layer.graph, (*above, layer.name))
        for leaf, weight in layer.weights.items():
            paths.append(((weight.collection, *above, layer.name, leaf), weight))
    return paths


def fresh_variables(graph: Graph, seed: int, base: Variables) -> dict[str, Any]:
    """A tree of variables; see `Model.init_variables`."""
    tree: dict[str, Any] = {}
    wrong = []
    for path, weight in weight_paths(graph):
        array = _look_up(base, path)
        if array is None:
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32("/".join(path).encode()))
            array = INITIALIZERS[weight.initializer](key, weight.shape, jnp.float32)
        elif array.shape != weight.shape:
            wrong.append(f"{'/'.join(path)}: {array.shape} instead of {weight.shape}")
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = array
    if wrong:
        raise ValueError("\n  ".join(["`base` has arrays of other shapes than the model needs:", *wrong]))
    return tree


def _look_up(tree: Variables, path: tuple[str, ...]) -> Any:
    branch: Any = tree
    for name in path:
        if name not in branch:
            return None
        branch = branch[name]
    return branch
