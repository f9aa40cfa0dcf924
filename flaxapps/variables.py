"""The variables a graph needs: their paths and shapes, and fresh values."""

import functools
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flaxapps.graph import Graph
from flaxapps.layers import Functional
from flaxapps.recording import Weight

Variables = Mapping[str, Any]
Path = tuple[str, ...]
LARGE = 1 << 22  # values: above, what is drawn in vain would be felt
INITIALIZERS: Mapping[str, Callable[..., jax.Array]] = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "zeros": nn.initializers.zeros_init(),
    "ones": nn.initializers.ones_init(),
}


def weight_paths(graph: Graph, above: Path = ()) -> list[tuple[Path, Weight]]:
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
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = array
    return tree


def _fresh_arrays(weights: Mapping[Path, Weight], key: jax.Array) -> dict[Path, jax.Array]:
    """What the initializers give, each from the key and its path.

    Random numbers take long to compile: they are drawn for a few sizes, and all arrays cut from them in one program.
    """
    drawn = [
        _uniform(key, np.uint32(zlib.crc32("/".join(path).encode())), _drawn_size(math.prod(weight.shape)))
        for path, weight in weights.items()
        if weight.initializer == "glorot_uniform"
    ]
    return dict(zip(weights, _initialize(drawn, tuple(weights.values())), strict=True))


def _drawn_size(size: int) -> int:
    return size if size > LARGE else 4 ** math.ceil(math.log(size, 4))


@functools.partial(jax.jit, static_argnums=2)
def _uniform(key: jax.Array, number: jax.Array, size: int) -> jax.Array:
    # A value depends on its index, not on how many there are (jax_threefry_partitionable): the first are those of less.
    return jax.random.uniform(jax.random.fold_in(key, number), (size,), jnp.float32, -1)


@functools.partial(jax.jit, static_argnums=1)
def _initialize(drawn: list[jax.Array], weights: tuple[Weight, ...]) -> list[jax.Array]:
    rest = iter(drawn)
    arrays = []
    for weight in weights:
        if weight.initializer == "glorot_uniform":
            fans = math.prod(weight.shape[:-2]) * (weight.shape[-2] + weight.shape[-1])
            limit = jnp.sqrt(3 * jnp.array(2 / fans, jnp.float32))
            arrays.append(next(rest)[: math.prod(weight.shape)].reshape(weight.shape) * limit)
        else:
            arrays.append(INITIALIZERS[weight.initializer](jax.random.key(0), weight.shape, jnp.float32))
    return arrays


def _look_up(tree: Variables, path: Path) -> Any:
    branch: Any = tree
    for name in path:
        if name not in branch:
            return None
        branch = branch[name]
    return branch
