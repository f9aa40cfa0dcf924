"""Regularizers of a model: where they are, and what they add to the loss."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.graph import Graph, LayerInGraph
from flaxapps.graph.interpreter import frozen_inside
from flaxapps.graph.nested import Functional
from flaxapps.graph.penalties import ACTIVITY, COLLECTION, Penalty, penalties_of
from flaxapps.graph.symbolic import Layer

Path = tuple[str, ...]
Penalties = tuple[tuple[Path, Penalty], ...]


def weight_penalties(graph: Graph, frozen: frozenset[str] = frozenset()) -> Penalties:
    """Lists the regularizers of the parameters that train, each with the path of its array below "params".

    As in Keras, frozen layers add nothing to the loss.

    Args:
        graph: The graph.
        frozen: Names of frozen layers, as for `Model.__call__`.
    """
    return tuple(_weights_in(graph, frozen, ()))


def activity_penalties(graph: Graph) -> Penalties:
    """Lists the regularizers of the outputs of layers, each with the path of its layer."""
    return tuple(_activities_in(graph, ()))


def total_penalty(penalties: Penalties, params: Mapping[str, Any]) -> jax.Array:
    """Sums the penalties on parameters, (), float32.

    Args:
        penalties: From `weight_penalties`.
        params: A tree with these parameters.
    """
    total = jnp.zeros((), jnp.float32)
    for path, penalty in penalties:
        array: Any = params
        for key in path:
            array = array[key]
        total = total + penalty(array).astype(jnp.float32)
    return total


def activity_per_example(sown: Mapping[str, Any], count: int) -> jax.Array:
    """Sums what the layers of a model sowed into the collection "penalties", (count,), float32.

    Args:
        sown: The collections that `Model.apply` returned.
        count: Number of examples. At every step of sequences, layers see `count` times the steps.
    """
    total = jnp.zeros((count,), jnp.float32)
    for leaf in jax.tree.leaves(sown.get(COLLECTION, {})):
        total = total + jnp.sum(leaf.reshape(count, -1), axis=1).astype(jnp.float32)
    return total


def _weights_in(graph: Graph, frozen: frozenset[str], above: Path) -> Iterator[tuple[Path, Penalty]]:
    for place in graph.layers:
        layer = place.layer
        if isinstance(layer, Functional):
            yield from _weights_in(layer.graph, frozen_inside(layer, frozen), (*above, place.name))
        elif place.name not in frozen:
            inner = getattr(layer, "layer", None)  # of a wrapper, whose weights are those of the layer
            own = penalties_of(layer) | (penalties_of(inner) if isinstance(inner, Layer) else {})
            for name, penalty in own.items():
                for leaf in _leaves(place, name):
                    yield (*above, place.name, leaf), penalty


def _leaves(place: LayerInGraph, name: str) -> list[str]:
    """The parameters that a regularizer is on: of MultiHeadAttention, "kernel" is on those of all projections."""
    leaves = [leaf for leaf, weight in place.weights.items() if weight.collection == "params"]
    if name == "depthwise" and f"{name}_kernel" not in leaves:  # DepthwiseConv2D has one kernel
        name = "kernel"
    exact = [leaf for leaf in leaves if leaf in (name, f"{name}_kernel")]
    return exact or [leaf for leaf in leaves if leaf.endswith(f"_{name}")]


def _activities_in(graph: Graph, above: Path) -> Iterator[tuple[Path, Penalty]]:
    for place in graph.layers:
        if isinstance(place.layer, Functional):
            yield from _activities_in(place.layer.graph, (*above, place.name))
        elif ACTIVITY in (own := penalties_of(place.layer)):
            yield (*above, place.name), own[ACTIVITY]
