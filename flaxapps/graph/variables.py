"""Variables of a graph: paths, shapes and initialization."""

import functools
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxapps.graph.graph import Graph
from flaxapps.graph.initializers import initial_array, random_initializer
from flaxapps.graph.nested import Functional
from flaxapps.graph.symbolic import Weight
from weight_port.trees import nest

Variables = Mapping[str, Any]
Path = tuple[str, ...]
LARGE = 1 << 22  # values; larger arrays are drawn in their exact size, as rounding up would waste too much time


def bytes_of(tree: Any) -> int:
    """Returns the memory of a tree of arrays, or of their shapes and dtypes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def weight_paths(graph: Graph, above: Path = ()) -> list[tuple[Path, Weight]]:
    """Lists all arrays of a graph with their paths, such as ("params", "conv1", "kernel"), in Keras's order.

    Args:
        graph: The graph.
        above: Names of the models in which it is nested.
    """
    paths = []
    for layer in graph.layers:
        if isinstance(layer.layer, Functional):
            paths += weight_paths(layer.layer.graph, (*above, layer.name))
        for leaf, weight in layer.weights.items():
            paths.append(((weight.collection, *above, layer.name, leaf), weight))
    return paths


def fresh_variables(graph: Graph, seed: int, base: Variables) -> dict[str, Any]:
    """Initializes a tree of variables; see `Model.init_variables`."""
    arrays: dict[Path, Any] = {}
    missing: dict[Path, Weight] = {}
    wrong = []
    for path, weight in weight_paths(graph):
        arrays[path] = array = _look_up(base, path)
        if array is None:
            missing[path] = weight
        elif array.shape != weight.shape:
            wrong.append(f"{'/'.join(path)}: {array.shape} instead of {weight.shape}")
    if wrong:
        raise ValueError("\n  ".join(["`base` has arrays of other shapes than the model needs:", *wrong]))
    arrays |= _fresh_arrays(missing, jax.random.key(seed))
    return nest(arrays)


def _fresh_arrays(weights: Mapping[Path, Weight], key: jax.Array) -> dict[Path, jax.Array]:
    """Initializes arrays, each from the key and its own path.

    Random numbers take long to compile. They are therefore drawn in a few rounded sizes, and one program cuts all
    arrays from them.
    """
    drawn = [
        _uniform(key, np.uint32(zlib.crc32("/".join(path).encode())), _drawn_size(math.prod(weight.shape)))
        for path, weight in weights.items()
        if random_initializer(weight.initializer)
    ]
    return dict(zip(weights, _initialize(drawn, tuple(weights.values())), strict=True))


def _drawn_size(size: int) -> int:
    return size if size > LARGE else 4 ** math.ceil(math.log(size, 4))


@functools.partial(jax.jit, static_argnums=2)
def _uniform(key: jax.Array, number: jax.Array, size: int) -> jax.Array:
    # With jax_threefry_partitionable a value depends on its index only, so rounding up the size does not change it.
    return jax.random.uniform(jax.random.fold_in(key, number), (size,), jnp.float32, -1)


@functools.partial(jax.jit, static_argnums=1)
def _initialize(drawn: list[jax.Array], weights: tuple[Weight, ...]) -> list[jax.Array]:
    rest = iter(drawn)
    return [
        initial_array(
            each.initializer, each.shape, next(rest) if random_initializer(each.initializer) else None
        ).astype(each.dtype)
        for each in weights
    ]


def _look_up(tree: Variables, path: Path) -> Any:
    branch: Any = tree
    for name in path:
        if name not in branch:
            return None
        branch = branch[name]
    return branch
