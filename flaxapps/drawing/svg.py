"""Rendering of a graph as SVG. Labels are text, so that pictures can be searched, linked into and compared."""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from flaxapps.drawing.blocks import Box, Part, boxes
from flaxapps.drawing.layout import lay_out
from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Shape

TIMES = "\N{MULTIPLICATION SIGN}"
# In pixels. Text widths are estimated as 0.6 of the font size per character, which is wide for a proportional font.
TEXT, SMALL = 13, 11
LINE, PADDING, MARGIN = 16, 10, 12
GAP, DISTANCE = 18, 34  # between boxes in a row, between rows
WRAP = 34  # characters
# Fill by module of the layer's class. Edges and borders are grey, to be visible on white and on black.
FILLS = {
    "inputs": "#e4e4e7",
    "convolution": "#bfdbfe",
    "dense": "#ddd6fe",
    "pooling": "#fed7aa",
    "merging": "#bbf7d0",
    "normalization": "#f5f5f4",
    "activation": "#fef3c7",
    "nested": "#c7d2fe",
}
OTHER_FILL, BLOCK_FILL, INK, LINES = "#fafafa", "#dbeafe", "#18181b", "#71717a"
UNREMARKED = ("BatchNormalization", "Activation", "ReLU", "ZeroPadding2D")  # not listed in the label of a block
STYLE = f"""
.network text {{ font: {SMALL}px system-ui, sans-serif; fill: {INK}; text-anchor: middle }}
.network .name {{ font-size: {TEXT}px; font-weight: 600 }}
.network rect {{ stroke: {LINES} }}
.network .block rect {{ stroke-width: 2 }}
.network a:hover rect {{ stroke: {INK} }}
.network .edge {{ fill: none; stroke: {LINES}; stroke-width: 1.3 }}
.network .head {{ fill: {LINES} }}
"""  # scoped by .network, as the styles of an inline SVG apply to the whole page


class Placed(NamedTuple):
    """A box with its horizontal centre, top and size, in pixels."""

    box: Box
    lines: list[str]
    centre: float
    top: float
    width: float
    height: float


def draw(graph: Graph, title: str, *, full: bool = False, link: Callable[[str], str] | None = None) -> str:
    """Draws a graph.

    Args:
        graph: The network.
        title: Title of the picture, for screen readers.
        full: Whether to draw every layer, also inside nested models, or every block.
        link: Maps the name of a layer to the address its box links to; a block links to its last layer.

    Returns:
        The SVG. Every box is a group with the name of the layer or block as its id, and a title (shown by browsers)
        with its details. Every edge has both names in `data-source` and `data-target`.
    """
    drawn = boxes(graph, full=full)
    lines = [_lines(box) for box in drawn]
    widths = [_width(text) for text in lines]
    heights = [LINE * len(text) + PADDING for text in lines]
    layout = lay_out(widths, [box.sources for box in drawn], GAP)
    bands = [0.0] * (max(layout.rows) + 1)  # height of every row
    for row, height in zip(layout.rows, heights, strict=True):
        bands[row] = max(bands[row], height)
    tops = [sum(bands[:row]) + DISTANCE * row for row in range(len(bands))]
    placed = [
        Placed(box, text, centre, tops[row] + (bands[row] - height) / 2, width, height)
        for box, text, centre, row, width, height in zip(
            drawn, lines, layout.centres, layout.rows, widths, heights, strict=True
        )
    ]
    reach = [one.centre + one.width / 2 for one in placed] + [x for way in layout.routes.values() for _, x in way]
    root, canvas = _canvas(title, max(reach), tops[-1] + bands[-1])
    for (source, target), way in layout.routes.items():
        gates = [(x, tops[row], tops[row] + bands[row]) for row, x in way[1:-1]]
        _draw_edge(canvas, placed[source], placed[target], gates)
    for one in placed:
        _draw_box(canvas, one, link)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _canvas(title: str, width: float, height: float) -> tuple[Element, Element]:
    size = f"{width + 2 * MARGIN:.0f}", f"{height + 2 * MARGIN:.0f}"
    namespace = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "class": "network"}
    root = Element("svg", namespace, viewBox=f"0 0 {size[0]} {size[1]}", width=size[0], height=size[1])
    SubElement(root, "title").text = title
    SubElement(root, "style").text = STYLE
    shape = {"viewBox": "0 0 8 8", "refX": "7", "refY": "4", "markerWidth": "7", "markerHeight": "7", "orient": "auto"}
    marker = SubElement(SubElement(root, "defs"), "marker", shape, id="arrow")
    SubElement(marker, "path", {"class": "head"}, d="M0 0L8 4L0 8z")
    return root, SubElement(root, "g", transform=f"translate({MARGIN} {MARGIN})")


def _draw_edge(canvas: Element, source: Placed, target: Placed, gates: list[tuple[float, float, float]]) -> None:
    """Draws a curve from box to box, with straight segments through the gates (x, top, bottom) between other boxes."""
    x, y = source.centre, source.top + source.height
    path = f"M{x:.1f} {y:.1f}"
    for next_x, top, bottom in [*gates, (target.centre, target.top, target.top)]:
        middle = (y + top) / 2
        path += f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {top:.1f}"
        path += f"V{bottom:.1f}" if bottom > top else ""
        x, y = next_x, bottom
    names = {"data-source": source.box.name, "data-target": target.box.name}
    SubElement(canvas, "path", {"class": "edge", "marker-end": "url(#arrow)", **names}, d=path)


def _draw_box(canvas: Element, one: Placed, link: Callable[[str], str] | None) -> None:
    parts = one.box.parts
    group = SubElement(canvas, "g", {"class": "block" if len(parts) > 1 else "layer"}, id=one.box.name)
    SubElement(group, "title").text = "\n".join(_describe(parts))
    linked = [part.name for part in parts if part.layer.listed]  # operations are no layers of `model.layers`
    inside = SubElement(group, "a", href=link(linked[-1])) if link and linked else group
    corner = {"x": f"{one.centre - one.width / 2:.1f}", "y": f"{one.top:.1f}"}
    size = {"width": f"{one.width:.1f}", "height": f"{one.height:.1f}", "rx": "6"}
    SubElement(inside, "rect", corner | size, fill=_fill(parts))
    for number, line in enumerate(one.lines):
        y = one.top + PADDING / 2 + LINE * (number + 0.75)
        text = SubElement(
            inside, "text", {"class": "detail" if number else "name"}, x=f"{one.centre:.1f}", y=f"{y:.1f}"
        )
        text.text = line


def _lines(box: Box) -> list[str]:
    """Returns the label of a box: its name, layer classes and output shape."""
    kinds = [part.layer.class_name for part in box.parts]
    counts = Counter(kind for kind in kinds if kind not in UNREMARKED) or Counter(kinds)
    held = ", ".join(f"{count} {TIMES} {kind}" if count > 1 else kind for kind, count in counts.items())
    shapes = ", ".join(map(_sizes, box.parts[-1].shapes))
    return [*textwrap.wrap(box.name, WRAP), *textwrap.wrap(held, WRAP), *textwrap.wrap(shapes, WRAP)]


def _width(lines: list[str]) -> float:
    return max(len(line) * (SMALL if number else TEXT) for number, line in enumerate(lines)) * 0.6 + 2 * PADDING


def _sizes(shape: Shape) -> str:
    return f" {TIMES} ".join("any" if size is None else str(size) for size in shape[1:]) or "scalar"


def _describe(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        parameters = f", {part.parameters:,} parameters" if part.parameters else ""
        yield f"{part.name}: {part.layer.class_name}, {', '.join(map(_sizes, part.shapes))}{parameters}"
    if len(parts) > 1:
        yield f"{len(parts)} layers, {sum(part.parameters for part in parts):,} parameters"


def _fill(parts: Sequence[Part]) -> str:
    layers = [part.layer for part in parts]
    layers = [layer for layer in layers if layer.class_name not in UNREMARKED] or layers
    modules = {type(layer).__module__.rpartition(".")[2] for layer in layers}
    return FILLS.get(modules.pop(), OTHER_FILL) if len(modules) == 1 else BLOCK_FILL
