"""Grouping of a graph into boxes to draw: one for every layer, or one for every block."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.symbolic import Layer, Shape
from flaxapps.graph.variables import weight_paths
from flaxapps.layers import Functional
from weight_port.naming import is_automatic

LARGEST_BLOCK = 50  # layers; longer parallel branches, such as U-Net skips, are not drawn as a block
AFTERTHOUGHTS = ("BatchNormalization", "Activation", "ReLU")  # drawn with the preceding layer if not named by the user


class Part(NamedTuple):
    """One call of a layer.

    Attributes:
        name: The layer's name, "outer/inner" inside a nested model, with " (2)" appended for its second call.
        layer: The layer.
        shapes: Shapes of the outputs, batch dimension first.
        parameters: Number of values in its arrays; 0 for all calls but the first.
        sources: Positions of the parts whose outputs are its inputs.
    """

    name: str
    layer: Layer
    shapes: tuple[Shape, ...]
    parameters: int
    sources: tuple[int, ...]


class Box(NamedTuple):
    """One or several parts, drawn as one box.

    Attributes:
        name: Name of the only part, or of the block.
        parts: The parts, in topological order.
        sources: Positions of the boxes whose outputs are its inputs.
    """

    name: str
    parts: tuple[Part, ...]
    sources: tuple[int, ...]


def boxes(graph: Graph, *, full: bool) -> list[Box]:
    """Groups a graph into boxes, in topological order.

    Args:
        graph: The network.
        full: Whether to make a box for every layer call, also inside nested models, or for every block. A block is a
            set of branches up to where they merge, or a chain of layers with a common name prefix (block1_conv1,
            block1_conv2).
    """
    parts, outputs = _parts(graph, nested=full)
    spans = _singles(0, len(parts)) if full else _blocks(parts, outputs)
    result: list[Box] = []
    box_of: dict[int, int] = {}
    for number, span in enumerate(spans):
        box_of |= dict.fromkeys(span, number)
        members = tuple(parts[index] for index in span)
        sources = dict.fromkeys(box_of[source] for part in members for source in part.sources)
        name = _unused(_title(members), (box.name for box in result))
        result.append(Box(name, members, tuple(source for source in sources if source != number)))
    return result


def _parts(graph: Graph, *, nested: bool) -> tuple[list[Part], set[int]]:
    """Returns the calls of a graph, its inputs first, and the positions of its outputs."""
    parts: list[Part] = []

    def add(name: str, layer: Layer, shapes: tuple[Shape, ...], parameters: int, sources: Iterable[int]) -> int:
        name = _unused(name, (part.name for part in parts))
        parts.append(Part(name, layer, shapes, parameters, tuple(dict.fromkeys(sources))))
        return len(parts) - 1

    def expand(graph: Graph, values: list[tuple[int, Shape]], above: str) -> list[tuple[int, Shape]]:
        def visit(step: Step, inputs: list[tuple[int, Shape]]) -> list[tuple[int, Shape]]:
            layer = step.layer
            if nested and isinstance(layer, Functional):
                return expand(layer.graph, inputs, f"{above}{layer.name}/")
            shapes = [shape for _, shape in inputs]
            outputs = layer.output_shapes(*shapes)
            again = any(part.layer is layer for part in parts)
            parameters = 0 if again else _count_parameters(layer, shapes)
            position = add(f"{above}{layer.name}", layer, outputs, parameters, (source for source, _ in inputs))
            return [(position, shape) for shape in outputs]

        return graph.follow(values, visit)

    # If the graph is cut, the layer of an input node is outside of it, and its parameters do not count.
    inputs = [(add(str(node.layer.name), node.layer, (node.shape,), 0, ()), node.shape) for node in graph.inputs]
    return parts, {position for position, _ in expand(graph, inputs, "")}


def _count_parameters(layer: Layer, shapes: list[Shape]) -> int:
    weights = [*layer.weights(*shapes).values()]
    if isinstance(layer, Functional):
        weights += [weight for _, weight in weight_paths(layer.graph)]
    return sum(math.prod(weight.shape) for weight in weights)


def _blocks(parts: list[Part], outputs: set[int]) -> Iterator[range]:
    """Joins parts to blocks. As parts are in topological order, a block is a range of them."""
    users = Counter(source for part in parts for source in part.sources)
    block, branches = range(0, 1), False
    for unit in list(_units(parts, outputs))[1:]:
        last, has_branches = block[-1], len(unit) > 1
        before = {source for index in unit for source in parts[index].sources if source not in unit}
        follows = before == {last} and (has_branches or users[last] == 1) and last not in outputs
        if follows and parts[last].sources and not (branches and has_branches) and _alike(parts, block, unit):
            block, branches = range(block.start, unit.stop), branches or has_branches
        else:
            yield block
            block, branches = unit, has_branches
    yield block


def _units(parts: list[Part], outputs: set[int]) -> Iterator[range]:
    """Yields single parts, and whole regions of branches up to the part where all of them merge."""
    last_use = {source: index for index, part in enumerate(parts) for source in part.sources}
    furthest, start = 0, 0
    for index in range(len(parts)):
        if furthest <= index:  # nothing before this part is used after it, so all paths go through it
            inputs_inside = any(not parts[inside].sources for inside in range(start, index + 1))
            whole = index + 1 - start <= LARGEST_BLOCK and not inputs_inside
            yield from [range(start, index + 1)] if whole else _singles(start, index + 1)
            start = index + 1
        furthest = max(furthest, len(parts) if index in outputs else last_use.get(index, 0))
    yield from _singles(start, len(parts))


def _singles(start: int, stop: int) -> Iterator[range]:
    return (range(index, index + 1) for index in range(start, stop))


def _alike(parts: list[Part], block: range, unit: range) -> bool:
    """Whether the next unit belongs to the block, by the names of its layers."""
    given = _given_names(parts[index] for index in unit)
    if given:
        before = _given_names(parts[index] for index in block)
        return bool(before) and bool(_common_beginning(before + given))
    return len(unit) == 1 and parts[unit[0]].layer.class_name in AFTERTHOUGHTS


def _title(parts: tuple[Part, ...]) -> str:
    common = _common_beginning(_given_names(parts))
    if len(parts) == 1 or common:
        return common if len(parts) > 1 else parts[0].name
    merges = [part.name for part in parts if len(part.sources) > 1]
    return merges[-1] if merges else parts[0].name


def _given_names(parts: Iterable[Part]) -> list[str]:
    return [part.name for part in parts if not is_automatic(part.name, part.layer.class_name)]


def _common_beginning(names: list[str]) -> str:
    """Returns the common prefix of all names up to an underscore, or "" if it contains no number.

    >>> _common_beginning(["block1_conv1", "block1_pool"]), _common_beginning(["conv_a", "conv_b"])
    ('block1', '')
    """
    columns = zip(*(name.split("_") for name in names), strict=False)
    beginning = "_".join(words[0] for words in itertools.takewhile(lambda words: len(set(words)) == 1, columns))
    return beginning if re.search(r"\d", beginning) else ""


def _unused(name: str, taken: Iterable[str]) -> str:
    names = set(taken)
    candidates = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in names)
