"""Runs a graph on arrays: the only place where layers compute."""

import functools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import Scope

from flaxapps.graph.batch import Batch
from flaxapps.graph.casting import cast_floats, cast_whole
from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.initializers import initialize
from flaxapps.graph.nested import Functional, ImageByImage, TimeDistributedModel
from flaxapps.graph.penalties import ACTIVITY, COLLECTION, penalties_of, per_example
from flaxapps.graph.symbolic import Layer, Weight


def run(
    graph: Graph,
    scope: Scope,
    values: list[jax.Array],
    train: bool,
    frozen: frozenset[str],
    batch: Batch,
    fixed: bool = False,
) -> list[jax.Array]:
    """Computes the outputs of a graph.

    Args:
        graph: What to compute.
        scope: Flax scope of the model; every layer has its variables in a child scope of its name.
        values: An array for every input, channels last.
        train: Whether layers are in training mode.
        frozen: Names of frozen layers, as for `Model.__call__`.
        batch: The global batch, for statistics across devices.
        fixed: Whether a call of this graph fixes training mode (`model(x, training=True)`) while the outer model is in
            inference mode.

    Returns:
        An array for every output.
    """

    def call(step: Step, inputs: list[jax.Array]) -> Iterable[jax.Array]:
        layer = step.layer
        name = layer.name or ""
        mode = train if step.training is None else step.training
        forced = mode and (fixed or not train)
        # Scopes are pushed by hand, because Flax rejects submodules named like an attribute of Model ("outputs").
        child = scope.push(name, reuse=True)
        try:
            inputs = list(cast_floats(layer, inputs))
            if isinstance(layer, ImageByImage) and not (mode or scope.mutable or inputs[0].shape[0] == 1):
                return _run_image_by_image(layer.graph, child.variables(), inputs)
            if isinstance(layer, TimeDistributedModel):
                return _run_steps(layer, child, inputs, mode, frozen_inside(layer, frozen), batch, forced)
            if isinstance(layer, Functional):
                return run(layer.graph, child, inputs, mode, frozen_inside(layer, frozen), batch, forced)
            parent: Any = child  # Flax accepts a Scope as parent, but does not declare it
            output: Any = LayerCall(layer, mode, name in frozen, batch, forced, parent=parent, name=name)(*inputs)
            if layer.dtype and not layer.autocast and jnp.issubdtype(output.dtype, jnp.floating):
                output = output.astype(layer.dtype)
            return output if isinstance(output, tuple) else (output,)
        except Exception as error:
            shapes = [value.shape for value in inputs]
            error.add_note(f"In layer {name!r} of kind {layer.class_name}, on inputs of shape {shapes}.")
            raise

    with jax.numpy_rank_promotion("allow"):  # a layer's weights have fewer axes than its inputs, which is meant
        return graph.follow(values, call)


def _run_steps(
    layer: TimeDistributedModel,
    scope: Scope,
    values: list[jax.Array],
    train: bool,
    frozen: frozenset[str],
    batch: Batch,
    fixed: bool,
) -> list[jax.Array]:
    """Computes a model on every step of sequences (batch, steps, ...), with the steps merged into the batch."""
    ends = values[0].shape[:2]
    mask = None if batch.mask is None else jnp.repeat(batch.mask, ends[1])
    merged = [value.reshape(-1, *value.shape[2:]) for value in values]
    outputs = run(layer.graph, scope, merged, train, frozen, Batch(mask, batch.axis_name), fixed)
    return [output.reshape(*ends, *output.shape[1:]) for output in outputs]


def _run_image_by_image(graph: Graph, variables: Any, values: list[jax.Array]) -> list[jax.Array]:
    """Computes the outputs of a graph in inference mode, image by image."""

    def run_one(images: list[jax.Array]) -> list[jax.Array]:
        # A new Scope: Flax scopes cannot be used inside a raw jax.lax loop.
        alone = [image[None] for image in images]
        return [output[0] for output in run(graph, Scope(variables), alone, False, frozenset(), Batch())]

    outputs: list[jax.Array] = jax.lax.map(run_one, values)
    return outputs


def frozen_inside(layer: Functional, frozen: frozenset[str]) -> frozenset[str]:
    """Translates `frozen` to the layer names inside a nested model."""
    if layer.name in frozen:
        return frozenset(inner.name for inner in layer.layers)
    prefix = f"{layer.name}/"
    return frozenset(name.removeprefix(prefix) for name in frozen if name.startswith(prefix))


def check_frozen(graph: Graph, frozen: Collection[str]) -> None:
    """Checks that `frozen` names layers of the graph.

    Raises:
        ValueError: The graph has no layers of some of the names; all are listed.
        TypeError: `frozen` is a string, not a set of strings.
    """
    if isinstance(frozen, str):
        raise TypeError(f"`frozen` should be a set of layer names, got the string {frozen!r}")
    unknown = sorted(set(frozen).difference(_layer_paths(graph)))
    if unknown:
        raise ValueError(f"`frozen` names layers that are not in the model: {unknown}")


def _layer_paths(graph: Graph, above: str = "") -> Iterator[str]:
    for layer in graph.layers:
        yield above + layer.name
        if isinstance(layer.layer, Functional):
            yield from _layer_paths(layer.layer.graph, f"{above}{layer.name}/")


class LayerCall(nn.Module):
    """One layer call: reads the layer's variables, computes, and stores updated statistics.

    A call that is fixed to training mode inside a model in inference mode does not update statistics. Random layers in
    such a call are the identity unless `apply` is given `rngs={"dropout": key}`.
    """

    layer: Layer
    train: bool
    frozen: bool
    batch: Batch
    forced: bool = False

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Computes the output of the layer."""
        shapes = [value.shape for value in inputs]
        if self.layer.listed:
            self.layer.output_shapes(*shapes)  # raises if sizes that were free in the graph are too small
        owned = self.layer.weights(*shapes)
        weights = {leaf: self._fetch(leaf, weight) for leaf, weight in owned.items()}
        inputs = cast_whole(self.layer, bool(owned), inputs)
        keeps_statistics = any(weight.collection == "batch_stats" for weight in owned.values())
        without_keys = self.forced and self.layer.random_in_training and not self.has_rng("dropout")
        if not self.train or (self.frozen and keeps_statistics) or without_keys:
            return self._regularized(self.layer.call(weights, *inputs))
        output, updates = self.layer.call_training(
            weights, *inputs, make_key=lambda: self.make_rng("dropout"), batch=self.batch
        )
        if not self.is_initializing() and not self.forced:
            for leaf, value in updates.items():
                self.put_variable("batch_stats", leaf, value)
        return self._regularized(output)

    def _regularized(self, output: jax.Array) -> jax.Array:
        """Returns the output, after sowing the penalty on it where `apply` has the collection mutable."""
        asked = self.is_mutable_collection(COLLECTION) and not self.is_initializing()
        penalty = penalties_of(self.layer).get(ACTIVITY) if asked else None
        if penalty is not None:
            for array in jax.tree.leaves(output):
                self.sow(COLLECTION, ACTIVITY, per_example(penalty, array))
        return output

    def _fetch(self, leaf: str, weight: Weight) -> jax.Array:
        start = functools.partial(initialize, weight.initializer, dtype=weight.dtype)
        if weight.collection == "params":
            array = self.param(leaf, start, weight.shape)
            return jax.lax.stop_gradient(array) if self.frozen else array
        value: jax.Array = self.variable(weight.collection, leaf, start, jax.random.key(0), weight.shape).value
        return value
