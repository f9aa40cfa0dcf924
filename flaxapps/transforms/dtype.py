"""Change of a network's compute dtype."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Call, Layer
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.transforms.rewrite import rebuilt_model


def with_dtype(model: Model, dtype: str) -> Model:
    """Returns a model that computes in `dtype`, with the same variables.

    As with the `dtype` argument of networks, BatchNormalization statistics and softmax stay float32.

    >>> from flaxapps import Input, Model, layers
    >>> image = Input((8, 8, 3))
    >>> model = Model(image, layers.Conv2D(4, 3)(image))
    >>> with_dtype(model, "bfloat16").apply(model.init_variables(), jnp.ones((1, 8, 8, 3))).dtype
    dtype(bfloat16)

    Args:
        model: The network, whatever dtypes its inputs and layers have.
        dtype: Compute dtype, such as "bfloat16" or "float32".

    Raises:
        ValueError: `dtype` is not a floating-point dtype.
    """
    try:
        known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype should be a floating-point dtype, such as 'bfloat16', got {dtype!r}")
    return rebuilt_model(model, _with_dtype(model.graph, dtype))


def _with_dtype(graph: Graph, dtype: str) -> Graph:
    """Rebuilds a graph on inputs of `dtype`; all layers then compute in the dtype of their inputs."""

    def without_dtype(layer: Layer) -> Layer:
        inside: dict[str, Any] = {"graph": _with_dtype(layer.graph, dtype)} if isinstance(layer, Functional) else {}
        return dataclasses.replace(layer, dtype=None, **inside)

    sources = [Call(dataclasses.replace(node.layer, dtype=dtype), ()).outputs[0] for node in graph.inputs]
    return graph.rebuild(without_dtype, sources)
