"""Splits a model into its frozen trunk and its trainable head."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from flaxapps.graph.graph import Graph, LayerInGraph
from flaxapps.graph.interpreter import check_frozen, frozen_inside
from flaxapps.graph.symbolic import Call, Layer, Node, Weight
from flaxapps.layers import Functional, InputLayer
from flaxapps.layers.regularization import Noise
from flaxapps.model import Model
from flaxapps.transforms.rewrite import replay

Parts = list[tuple[Layer, str | None]]
RANDOM = "is random in training"
ANY_SIZE = 512  # stands for a free size when only dtypes are traced


class Halves(NamedTuple):
    """A model split in two.

    Attributes:
        trunk: From the inputs to the cut, for inference; it returns a list if the cut has several tensors.
        head: From the cut to the outputs; it takes what the trunk returns.
    """

    trunk: Model
    head: Model


def split_at_frozen(model: Model, frozen: frozenset[str]) -> Halves:
    """Splits a model after its frozen layers.

    Layers without parameters that follow, such as global pooling, go into the trunk unless they widen the cut. The cut
    may have several tensors, and may be inside nested models. Layers keep their names and paths, so that the variables
    of `model` fit both halves. No layer with parameters is frozen in the head.

    Args:
        model: The model; it is not modified.
        frozen: Names of frozen layers, from `frozen_layers`.

    Returns:
        Trunk and head. In training, `head` on the outputs of `trunk` computes what `model` does with frozen layers.

    Raises:
        ValueError: No layer with parameters is frozen, or all are; or a layer before a frozen one trains or is random:
            all such layers are named.

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
        random = ". What follows a random layer differs in every epoch, so leave out cache_features and optimize_frozen"
        raise ValueError(
            f"The frozen layers should be an unbroken beginning of the model, but {'; '.join(broken)}"
            + (random if any(RANDOM in each for each in broken) else "")
        )
    if trunk is None or head is None:
        raise ValueError(f"{'No' if trunk is None else 'Every'} layer with parameters is frozen: nowhere to cut")
    # Features are cached as float32; the head's inputs have the dtype in which the trunk computed them.
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
    """Splits a graph at the cut. The trunk is None if it would hold no parameters, the head if it would hold no layers.

    Args:
        graph: The graph of the model, or of one nested in it.
        frozen: Names in this graph.
        training: Whether the graph is in training mode.
        path: Names of the enclosing models, each with a slash.
        broken: Receives a line for every frozen layer that cannot be in the trunk.
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
    """A graph recorded again, with partly frozen nested models split into two layers of the same name.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        calls: The calls in topological order.
        changes: The calls whose outputs are not the same in every epoch, each with the reason.
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
    known: dict[tuple[str, bool], Parts] = {}  # a layer that is called twice is split once
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
            # What can be cached runs in inference mode, whatever the call asks for, as frozen layers do.
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
    """Returns a layer, or the frozen and trainable halves of a nested model.

    Each comes with the reason why its outputs cannot be cached, or None.
    """
    own = f"{path}{layer.name}"
    if isinstance(layer, Functional):
        first, second = _halve(layer.graph, frozen_inside(layer, frozen), training, f"{own}/", broken)
        change = _change_inside(layer.graph, frozen_inside(layer, frozen), training, f"{own}/")
        pairs = ((first, None), (second, change or f"{own!r}, in which layers train or are random"))
        return [(dataclasses.replace(layer, graph=half), change) for half, change in pairs if half]
    change = _change(layer, place.weights if place else {}, layer.name in frozen, training)
    return [(layer, f"{own!r}, which {change}" if change else None)]


def _change_inside(graph: Graph, frozen: frozenset[str], training: bool, path: str) -> str | None:
    """Names the first layer of a graph whose outputs change, and says why; None if there is none."""
    places = {layer.name: layer for layer in graph.layers}
    for step in graph.steps:
        mode = training if step.training is None else step.training
        if isinstance(step.layer, Functional):
            inner = frozen_inside(step.layer, frozen)
            found = _change_inside(step.layer.graph, inner, mode, f"{path}{step.layer.name}/")
        else:
            place = places.get(step.layer.name or "")
            change = _change(step.layer, place.weights if place else {}, step.layer.name in frozen, mode)
            found = f"{path + (step.layer.name or '')!r}, which {change}" if change else None
        if found:
            return found
    return None


def _change(layer: Layer, weights: Mapping[str, Weight], frozen: bool, training: bool) -> str | None:
    """Returns why a layer's outputs differ from those in inference or between epochs; None if they do not."""
    statistics = any(weight.collection == "batch_stats" for weight in weights.values())
    if not frozen and any(weight.collection == "params" or training for weight in weights.values()):
        return "trains"
    # A layer that overrides `call_training` is assumed to be random: only there can it draw a key.
    acts = type(layer).call_training is not Layer.call_training
    silent = isinstance(layer, Noise) and not layer.strength
    return RANDOM if training and acts and not (frozen and statistics) and not silent else None


def _holds_frozen(place: LayerInGraph, frozen: frozenset[str]) -> bool:
    """Whether some parameters of the layer are frozen."""
    if isinstance(place.layer, Functional):
        inner = frozen_inside(place.layer, frozen)
        return any(_holds_frozen(each, inner) for each in place.layer.layers)
    return place.name in frozen and bool(place.weights)


def _worth_computing_once(replay: _Replay, still: Sequence[Call]) -> set[Call]:
    """Selects the trunk: the calls that lead to frozen parameters, and later ones that do not widen the cut."""
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
    """Returns the tensors that calls after the trunk, and the outputs, take from it and from the inputs."""
    used = {node for call in replay.calls if call not in trunk for node in call.inputs} | set(replay.outputs)
    made = [*replay.inputs, *(node for call in replay.calls if call in trunk for node in call.outputs)]
    return [node for node in made if node in used]


def _width(nodes: Iterable[Node]) -> int:
    """Counts the values per example; free sizes count as 1."""
    return sum(math.prod(size or 1 for size in node.shape) for node in nodes)


def _output_dtypes(graph: Graph) -> list[str]:
    """Returns the dtypes of a graph's outputs, by tracing it if a layer has another dtype than float32."""
    if dtypes_asked_for(graph) <= {None, "float32"}:
        return ["float32"] * len(graph.outputs)
    model = Model(list(graph.inputs), list(graph.outputs))
    x = [jax.ShapeDtypeStruct((1, *(size or ANY_SIZE for size in shape[1:])), "float32") for shape in model.input_shape]
    variables = jax.eval_shape(model.init_variables)
    return [str(output.dtype) for output in jax.eval_shape(model.apply, variables, x)]


def dtypes_asked_for(graph: Graph) -> set[str | None]:
    """Returns the compute dtypes of all layers, None for those that have none of their own."""
    layers = [*(node.layer for node in graph.inputs), *(step.layer for step in graph.steps)]
    inside = (dtypes_asked_for(layer.graph) for layer in layers if isinstance(layer, Functional))
    return {layer.dtype for layer in layers}.union(*inside)


def _like(given: Any, values: Sequence[Any]) -> Any:
    """Returns one value if a model was given one node, a list if it was given a list."""
    return values[0] if isinstance(given, Node) else list(values)


def _single(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)
