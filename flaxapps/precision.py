"""The same network computing in another dtype."""

import dataclasses

import jax.numpy as jnp

from flaxapps.graph import Graph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.recording import Call, Layer, Node


def with_dtype(model: Model, dtype: str) -> Model:
    """A model that computes in `dtype`; the variables of the given one serve it as they are.

    As with the `dtype` of the networks here, BatchNormalization statistics and softmax stay float32.

    >>> from flaxapps import Input, Model, layers
    >>> image = Input((8, 8, 3))
    >>> model = Model(image, layers.Conv2D(4, 3)(image))
    >>> with_dtype(model, "bfloat16").apply(model.init_variables(), jnp.ones((1, 8, 8, 3))).dtype
    dtype(bfloat16)

    Args:
        model: The network, whatever dtypes its inputs and layers have.
        dtype: Such as "bfloat16" or "float32".

    Raises:
        ValueError: `dtype` is no floating-point dtype.
    """
    try:
        known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype should be one of floating-point numbers, such as 'bfloat16', got {dtype!r}")
    graph = _with_dtype(model.graph, dtype)
    inputs, outputs = (
        nodes[0] if isinstance(given, Node) else list(nodes)
        for nodes, given in ((graph.inputs, model.inputs), (graph.outputs, model.outputs))
    )
    return Model(inputs, outputs, name=model.name)


def _with_dtype(graph: Graph, dtype: str) -> Graph:
    """The graph over inputs of this dtype, in which the layers follow their inputs."""
    layers: dict[str | None, Layer] = {}
    sources = [Call(dataclasses.replace(node.layer, dtype=dtype), ()).outputs[0] for node in graph.inputs]
    values: list[Node] = list(sources)
    for step in graph.steps:
        name = step.layer.name
        if name not in layers:  # a shared layer stays one
            layers[name] = (
                dataclasses.replace(step.layer, graph=_with_dtype(step.layer.graph, dtype), dtype=None)
                if isinstance(step.layer, Functional)
                else dataclasses.replace(step.layer, dtype=None)
            )
        values += layers[name].record([values[index] for index in step.inputs], step.training).outputs
    return Graph(sources, [values[index] for index in graph.results])
