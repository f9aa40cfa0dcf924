"""Drawings as PNG and PDF: what `draw` writes as SVG, drawn with Matplotlib."""

import os
import re
from typing import IO, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from flaxapps.drawing.svg import INK, LINES, MARGIN, SMALL, TEXT
from flaxapps.runtime.files import replacing

FORMATS = ("svg", "png", "pdf")  # by the ending of a file name
POINTS = 72  # to an inch; a pixel of the SVG becomes a point
DOTS = 144  # to an inch, in a PNG file
LONGEST = 30_000  # dots; Matplotlib draws up to 65,535, and viewers show less


def write_picture(svg: str, stream: IO[bytes], form: str) -> None:
    """Writes a drawing of `flaxapps.drawing.svg.draw` as a picture without links and titles.

    Args:
        svg: The drawing.
        stream: Where it goes.
        form: "png" or "pdf".

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("PNG and PDF need matplotlib: pip install matplotlib, or plot to .svg") from error
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    figure = Figure(figsize=(width / POINTS, height / POINTS))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
    axes.set_axis_off()
    bold: set[Element] = {box for group in root.iter() if group.get("class") == "block" for box in group.iter()}
    for element in root.iter():
        kind = element.tag.rpartition("}")[2]
        if kind == "rect":
            _draw_rectangle(axes, element, 2 if element in bold else 1)
        elif kind == "text":
            named = element.get("class") == "name"
            place = float(element.get("x", 0)), float(element.get("y", 0))
            style: dict[str, Any] = {
                "size": TEXT if named else SMALL,
                "weight": "bold" if named else "normal",
                "color": INK,
            }
            axes.text(*place, element.text or "", ha="center", va="baseline", parse_math=False, **style)
        elif kind == "path" and element.get("class") == "edge":
            _draw_edge(axes, element.get("d", ""))
    figure.savefig(stream, format=form, dpi=min(DOTS, LONGEST * POINTS / max(width, height)))


def write_drawing(svg: str, path: str | os.PathLike[str]) -> None:
    """Writes a drawing to a file, atomically, in the format of its ending; SVG if it has none.

    Raises:
        ValueError: It is none of `FORMATS`.
        ImportError: Matplotlib is not installed, for another format than SVG.
        OSError: The file cannot be written.
    """
    form = os.path.splitext(path)[1].lower().removeprefix(".") or "svg"
    if form not in FORMATS:
        raise ValueError(f"A plot is .svg, .png or .pdf by the ending of its name, got {os.fspath(path)}")
    if form == "svg":
        with replacing(path) as file:
            file.write(svg)
    else:
        with replacing(path, "wb") as stream:
            write_picture(svg, stream, form)


def _draw_rectangle(axes: Any, element: Element, line: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height, rounding = (float(element.get(name, 0)) for name in ("x", "y", "width", "height", "rx"))
    style = f"round,pad=0,rounding_size={rounding}"
    fill = element.get("fill")
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=fill, ec=LINES, lw=line, zorder=2))


def _draw_edge(axes: Any, data: str) -> None:
    """Draws a path of the commands M, C and V, with an arrow at its end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    for command, text in re.findall(r"([MCV])([^MCV]*)", data):
        numbers = [float(number) for number in text.split()]
        if command == "V":
            numbers = [points[-1][0], *numbers]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        points += pairs
        codes += [{"M": Path.MOVETO, "C": Path.CURVE4, "V": Path.LINETO}[command]] * len(pairs)
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "color": LINES, "lw": 1.3, "zorder": 1}
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), **style))
