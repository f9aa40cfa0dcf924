"""A model in two at its frozen layers: what stays the same while the rest trains, and the rest."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from flaxapps.graph import Graph, LayerInGraph
from flaxapps.interpreter import check_frozen, frozen_inside
from flaxapps.layers import Functional, InputLayer
from flaxapps.layers.regularization import Noise
from flaxapps.model import Model
from flaxapps.recording import Call, Layer, Node, Weight
from flaxapps.rewriting import replay

Parts = list[tuple[Layer, str | None]]
ANY_SIZE = 512  # stands for a free size where only dtypes are asked for


class Halves(NamedTuple):
    """A model in two.

    Attributes:
        trunk: From the inputs to the cut, for inference; it returns a list where the cut goes through several tensors.
        head: From the cut to the outputs; it takes what the trunk returns.
    """

    trunk: Model
    head: Model


def split_at_frozen(model: Model, frozen: frozenset[str]) -> Halves:
    """Splits a model behind its frozen layers.

    Layers without parameters that follow, such as a global pooling, go with the frozen ones unless that makes the cut
    wider. The cut may go through several tensors, and through nested models. Layers keep their names and paths, so
    that variables of `model` fit both; nothing that has parameters is frozen in the head.

    Args:
        model: The model; it stays as it is.
        frozen: What `frozen_layers` returns.

    Returns:
        Two models: in training, `head` on the outputs of `trunk` computes what `model` does with these layers frozen.

    Raises:
        ValueError: No layer with parameters is frozen, or every one; or something before a frozen layer trains or is
            random: all such layers are named.

    >>> from flaxapps import Input, layers
    >>> x = Input((8, 8, 3))
    >>> y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="stem")(x))
    >>> trunk, head = split_at_frozen(Model(x, layers.Dense(2, name="head")(y)), frozenset({"stem"}))
    >>> trunk.output_shape, [layer.name for layer in head.layers]
    ((None, 4), ['input_layer', 'head'])
    """
    check_frozen(model.graph, frozen)
    broken: list[str] = []
    trunk, head = _halve(model.graph, frozen, True, "", broken)
    if broken:
        raise ValueError(f"The frozen layers are no unbroken beginning of the model: {'; '.join(broken)}")
    if trunk is None or head is None:
        raise ValueError(f"{'No' if trunk is None else 'Every'} layer with parameters is frozen: nowhere to cut")
    # Features are kept as float32; the head meets them in the dtype in which the trunk computed them.
    cut = [
        Call(InputLayer(node.shape, model.data_format, dtype=dtype), ()).outputs[0]
        for node, dtype in zip(trunk.outputs, _output_dtypes(trunk), strict=True)
    ]
    outputs = replay(head, cut)
    return Halves(
        Model(_like(model.inputs, trunk.inputs), _single(trunk.outputs)),
        Model(_single(cut), _like(model.outputs, outputs), name=model.name),
    )


def _halve(
    graph: Graph, frozen: frozenset[str], training: bool, path: str, broken: list[str]
) -> tuple[Graph | None, Graph | None]:
    """The graphs before and behind the cut: None where the first would hold no parameters, or the second nothing.

    Args:
        graph: The graph of the model, or of one nested in it.
        frozen: Names in this graph.
        training: Whether the graph is in training mode.
        path: Names of the models around it, each with a slash.
        broken: Takes a line for every frozen layer that cannot be before the cut.
    """
    replay = _replay(graph, frozen, training, path, broken)
    still = [call for call in replay.calls if call not in replay.changes]
    if len(still) == len(replay.calls):
        return Graph(replay.inputs, replay.outputs), None
    trunk = _worth_computing_once(replay, still)
    if not trunk:
        return None, graph
    cut = _cut(replay, trunk)
    return Graph(replay.inputs, cut), Graph(cut, replay.outputs)


class _Replay(NamedTuple):
    """A graph recorded anew, with nested models that are frozen in part as two layers of one name.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        calls: In an order in which they can be computed.
        changes: Why the outputs of a call are not always the same, for those that are not.
        frozen: The calls of layers that hold frozen parameters.
    """

    inputs: list[Node]
    outputs: list[Node]
    calls: list[Call]
    changes: dict[Call, str]
    frozen: set[Call]


def _replay(graph: Graph, frozen: frozenset[str], training: bool, path: str, broken: list[str]) -> _Replay:
    inputs = [node if node.call.inputs else Call(node.layer, ()).outputs[0] for node in graph.inputs]
    replay = _Replay(inputs, [], [], {}, set())
    values = list(inputs)
    places = {layer.name: layer for layer in graph.layers}
    known: dict[tuple[str, bool], Parts] = {}  # a layer that is called twice stays one
    for step in graph.steps:
        name = step.layer.name or ""
        mode = training if step.training is None else step.training
        nodes = [values[index] for index in step.inputs]
        before = next((replay.changes[node.call] for node in nodes if node.call in replay.changes), None)
        holds_frozen = name in places and _holds_frozen(places[name], frozen)
        if before:
            broken += [f"{path + name!r} comes after {before}"] if holds_frozen else []
            parts: Parts = [(step.layer, before)]
        else:
            if (name, mode) not in known:
                known[name, mode] = _parts(step.layer, places.get(name), frozen, mode, path, broken)
            parts = known[name, mode]
        for part, change in parts:
            # Where nothing changes, inference mode whatever the call says: that is how frozen layers compute.
            call = part.record(nodes, step.training if change else None)
            nodes = list(call.outputs)
            replay.calls.append(call)
            if change:
                replay.changes[call] = change
            elif holds_frozen:
                replay.frozen.add(call)
        values += nodes
    replay.outputs.extend(values[index] for index in graph.results)
    return replay


def _parts(
    layer: Layer, place: LayerInGraph | None, frozen: frozenset[str], training: bool, path: str, broken: list[str]
) -> Parts:
    """A layer, or both halves of a nested model, each with why its outputs change though its inputs do not."""
    own = f"{path}{layer.name}"
    if isinstance(layer, Functional):
        first, second = _halve(layer.graph, frozen_inside(layer, frozen), training, f"{own}/", broken)
        pairs = ((first, None), (second, f"{own!r}, in which layers train or are random"))
        return [(dataclasses.replace(layer, graph=half), change) for half, change in pairs if half]
    change = _change(layer, place.weights if place else {}, layer.name in frozen, training)
    return [(layer, f"{own!r}, which {change}" if change else None)]


def _change(layer: Layer, weights: Mapping[str, Weight], frozen: bool, training: bool) -> str | None:
    """What makes a layer compute something else in training than it does in inference or did an epoch before."""
    statistics = any(weight.collection == "batch_stats" for weight in weights.values())
    if not frozen and any(weight.collection == "params" or training for weight in weights.values()):
        return "trains"
    # A layer that takes part in training in a way of its own is taken for random: only here it could draw a key.
    acts = type(layer).call_training is not Layer.call_training
    silent = isinstance(layer, Noise) and not layer.strength
    return "is random in training" if training and acts and not (frozen and statistics) and not silent else None


def _holds_frozen(place: LayerInGraph, frozen: frozenset[str]) -> bool:
    """Whether some of the layer's parameters are frozen."""
    if isinstance(place.layer, Functional):
        inner = frozen_inside(place.layer, frozen)
        return any(_holds_frozen(each, inner) for each in place.layer.layers)
    return place.name in frozen and bool(place.weights)


def _worth_computing_once(replay: _Replay, still: Sequence[Call]) -> set[Call]:
    """The calls that lead to frozen parameters, and those after them that do not widen the cut."""
    trunk: set[Call] = set()
    needed: set[Node] = set()
    for call in reversed(still):
        if call in replay.frozen or not needed.isdisjoint(call.outputs):
            trunk.add(call)
            needed.update(call.inputs)
    if trunk:
        made = {*replay.inputs, *(node for call in trunk for node in call.outputs)}
        for call in still:
            longer = trunk | {call}
            if (
                call not in trunk
                and made.issuperset(call.inputs)
                and _width(_cut(replay, longer)) <= _width(_cut(replay, trunk))
            ):
                trunk = longer
                made.update(call.outputs)
    return trunk


def _cut(replay: _Replay, trunk: Collection[Call]) -> list[Node]:
    """What the calls behind the trunk, and the outputs, take from it and from the inputs."""
    used = {node for call in replay.calls if call not in trunk for node in call.inputs} | set(replay.outputs)
    made = [*replay.inputs, *(node for call in replay.calls if call in trunk for node in call.outputs)]
    return [node for node in made if node in used]


def _width(nodes: Iterable[Node]) -> int:
    """Values per example; free sizes count once."""
    return sum(math.prod(size or 1 for size in node.shape) for node in nodes)


def _output_dtypes(graph: Graph) -> list[str]:
    """The dtypes a graph computes its outputs in, found by tracing where a layer asks for another than float32."""
    if _dtypes_asked_for(graph) <= {None, "float32"}:
        return ["float32"] * len(graph.outputs)
    model = Model(list(graph.inputs), list(graph.outputs))
    x = [jax.ShapeDtypeStruct((1, *(size or ANY_SIZE for size in shape[1:])), "float32") for shape in model.input_shape]
    variables = jax.eval_shape(model.init_variables)
    return [str(output.dtype) for output in jax.eval_shape(model.apply, variables, x)]


def _dtypes_asked_for(graph: Graph) -> set[str | None]:
    layers = [*(node.layer for node in graph.inputs), *(step.layer for step in graph.steps)]
    inside = (_dtypes_asked_for(layer.graph) for layer in layers if isinstance(layer, Functional))
    return {layer.dtype for layer in layers}.union(*inside)


def _like(given: Any, values: Sequence[Any]) -> Any:
    """One value where a model was given one node, a list where it was given a list."""
    return values[0] if isinstance(given, Node) else list(values)


def _single(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)
