"""Table printed by `Model.summary`."""

import math
from collections.abc import Iterable

from flaxapps.graph.graph import Graph, LayerInGraph
from flaxapps.graph.symbolic import Weight
from flaxapps.runtime.console import new_table, open_console

WIDE = 100  # columns, for all of the table; otherwise "connected to" is left out


def print_summary(graph: Graph, title: str, width: int | None = None) -> None:
    """Prints index, name, kind, output shape, parameters and inputs of every layer, and the totals.

    Args:
        graph: The graph; layers of a nested model are listed below it.
        title: Name of the model.
        width: Columns; None takes those of the terminal, or 140 in a file or pipe.
    """
    console = open_console(width=width)
    wide = console.width >= WIDE
    caption = _totals(list(_all_weights(graph)))
    table = new_table(caption=caption if wide else f"{caption}; a wider terminal also shows the connections")
    table.title = title
    for heading, right in [("#", True), ("layer", False), ("kind", False), ("output shape", False)]:
        shape = heading == "output shape"
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=shape and not wide)
    table.add_column("parameters", justify="right")
    if wide:
        table.add_column("connected to", overflow="fold")
    for row in rows(graph):
        table.add_row(*row[: len(table.columns)])
    console.print(table)


def rows(graph: Graph, indent: str = "") -> Iterable[tuple[str, ...]]:
    """Yields index, name, kind, output shape, parameters and inputs of every layer.

    Args:
        graph: The graph; layers of a nested model follow it.
        indent: Indentation of index and name; two spaces more for every level of nesting.
    """
    for index, layer in enumerate(graph.layers):
        sources = dict.fromkeys(node.layer.name or "" for call in layer.calls for node in call.inputs)
        count = sum(math.prod(weight.shape) for weight in _weights(layer))
        yield (
            f"{indent}{index}",
            f"{indent}{layer.name}",
            layer.class_name,
            str(layer.output_shape),
            f"{count:,}" if count else "",
            ", ".join(sources),
        )
        if hasattr(layer.layer, "graph"):
            yield from rows(layer.layer.graph, indent + "  ")


def _weights(layer: LayerInGraph) -> Iterable[Weight]:
    yield from layer.weights.values()
    if hasattr(layer.layer, "graph"):
        yield from _all_weights(layer.layer.graph)


def _all_weights(graph: Graph) -> Iterable[Weight]:
    for layer in graph.layers:
        yield from _weights(layer)


def _totals(weights: list[Weight]) -> str:
    total = sum(math.prod(weight.shape) for weight in weights)
    trained = sum(math.prod(weight.shape) for weight in weights if weight.collection == "params")
    return f"{total:,} parameters ({total * 4 / 1e6:.1f} MB), {trained:,} trainable, {total - trained:,} statistics"
