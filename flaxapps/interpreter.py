"""Runs a graph on arrays: the only place where layers compute."""

from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import Scope

from flaxapps.batch import Batch
from flaxapps.graph import Graph
from flaxapps.layers import Functional, ImageByImage
from flaxapps.recording import Layer, Weight
from flaxapps.variables import INITIALIZERS


def run(
    graph: Graph, scope: Scope, values: list[jax.Array], train: bool, frozen: frozenset[str], batch: Batch
) -> list[jax.Array]:
    """Computes the outputs of a graph.

    Args:
        graph: What to compute.
        scope: Flax's scope of the model; every layer finds its variables in the scope of its name.
        values: An array for every input, channels last. Extended with the outputs of every call.
        train: Whether layers are in training mode.
        frozen: Names of layers that do not train, as `Model.__call__` takes them.
        batch: What the examples are a part of.

    Returns:
        An array for every output.
    """
    for step in graph.steps:
        layer = step.layer
        inputs = [values[index] for index in step.inputs]
        name = layer.name or ""
        mode = train if step.training is None else step.training
        # Scopes are pushed by hand: Flax would refuse layers called like an attribute of Model ("outputs").
        child = scope.push(name, reuse=True)
        try:
            if layer.dtype:
                # Keras casts floats only.
                floats = [jnp.issubdtype(value.dtype, jnp.floating) for value in inputs]
                inputs = [
                    value.astype(layer.dtype) if cast else value for value, cast in zip(inputs, floats, strict=True)
                ]
            if isinstance(layer, ImageByImage) and not (mode or scope.mutable or inputs[0].shape[0] == 1):
                values += _run_image_by_image(layer.graph, child.variables(), inputs)
            elif isinstance(layer, Functional):
                values += run(layer.graph, child, inputs, mode, frozen_inside(layer, frozen), batch)
            else:
                parent: Any = child  # Flax takes a Scope here, though it does not say so
                values.append(LayerCall(layer, mode, name in frozen, batch, parent=parent, name=name)(*inputs))
        except Exception as error:
            shapes = [value.shape for value in inputs]
            error.add_note(f"In layer {name!r} of kind {layer.class_name}, on inputs of shape {shapes}.")
            raise
    return [values[index] for index in graph.results]


def _run_image_by_image(graph: Graph, variables: Any, values: list[jax.Array]) -> list[jax.Array]:
    """Computes the outputs of a graph in inference mode, one image after the other."""

    def run_one(images: list[jax.Array]) -> list[jax.Array]:
        # A scope of its own: Flax lets none be used inside a loop that it does not know.
        alone = [image[None] for image in images]
        return [output[0] for output in run(graph, Scope(variables), alone, False, frozenset(), Batch())]

    outputs: list[jax.Array] = jax.lax.map(run_one, values)
    return outputs


def frozen_inside(layer: Functional, frozen: frozenset[str]) -> frozenset[str]:
    """What `frozen` means inside a nested model."""
    if layer.name in frozen:
        return frozenset(inner.name for inner in layer.layers)
    prefix = f"{layer.name}/"
    return frozenset(name.removeprefix(prefix) for name in frozen if name.startswith(prefix))


def check_frozen(graph: Graph, frozen: Collection[str]) -> None:
    """Checks that `frozen` names layers of the graph.

    Raises:
        ValueError: Some are not there; all are named.
        TypeError: It is one name and no set.
    """
    if isinstance(frozen, str):
        raise TypeError(f"`frozen` is a set of names of layers, got the text {frozen!r}")
    unknown = sorted(set(frozen).difference(_layer_paths(graph)))
    if unknown:
        raise ValueError(f"`frozen` names layers that are not in the model: {unknown}")


def _layer_paths(graph: Graph, above: str = "") -> Iterator[str]:
    for layer in graph.layers:
        yield above + layer.name
        if isinstance(layer.layer, Functional):
            yield from _layer_paths(layer.layer.graph, f"{above}{layer.name}/")


class LayerCall(nn.Module):
    """One call of a layer during a run: fetches the layer's arrays and stores the statistics it changes."""

    layer: Layer
    train: bool
    frozen: bool
    batch: Batch

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """The output of the layer."""
        shapes = [value.shape for value in inputs]
        if self.layer.listed:
            self.layer.output_shapes(*shapes)  # sizes that were free when recording may turn out too small
        owned = self.layer.weights(*shapes)
        weights = {leaf: self._fetch(leaf, weight) for leaf, weight in owned.items()}
        keeps_statistics = any(weight.collection == "batch_stats" for weight in owned.values())
        if not self.train or (self.frozen and keeps_statistics):
            return self.layer.call(weights, *inputs)
        output, updates = self.layer.call_training(
            weights, *inputs, make_key=lambda: self.make_rng("dropout"), batch=self.batch
        )
        if not self.is_initializing():
            for leaf, value in updates.items():
                self.put_variable("batch_stats", leaf, value)
        return output

    def _fetch(self, leaf: str, weight: Weight) -> jax.Array:
        initializer = INITIALIZERS[weight.initializer]
        if weight.collection == "params":
            array = self.param(leaf, initializer, weight.shape, jnp.float32)
            return jax.lax.stop_gradient(array) if self.frozen else array
        value: jax.Array = self.variable(
            weight.collection, leaf, lambda: initializer(jax.random.key(0), weight.shape, jnp.float32)
        ).value
        return value
