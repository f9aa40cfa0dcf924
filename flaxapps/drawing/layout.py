"""Layered layout of a graph: boxes in rows, edges downwards, with few bends and crossings.

The steps are those of Sugiyama, Tagawa and Toda (1981). Rows follow the longest path. Dummy places are inserted where
an edge passes a row. Every row is sorted by the mean position of neighbours. Positions are then as close to the
neighbours as the widths allow, by isotonic regression in every row. Edges of a chain pull more than those that branch
(Gansner et al., 1993), so that branches are straight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SWEEPS, MOVES = 12, 60  # passes for the order and for the positions; more change little for the networks here
PASSING = 10.0  # width of a dummy place, in pixels
STRAIGHT = 256.0  # weight of an edge that is the only one at both ends; others have 1

Floats = NDArray[np.float64]


class Layout(NamedTuple):
    """Positions of boxes and edges.

    Attributes:
        rows: (boxes,): the row of every box, from 0 at the top.
        centres: (boxes,): the horizontal centre of every box, in pixels; no box begins left of 0.
        routes: For every edge (source, target), the (row, x) it passes, including both ends.
    """

    rows: list[int]
    centres: list[float]
    routes: dict[tuple[int, int], list[tuple[int, float]]]


def lay_out(widths: Sequence[float], sources: Sequence[Sequence[int]], gap: float) -> Layout:
    """Places boxes in rows.

    Args:
        widths: Width of every box, in pixels.
        sources: For every box, the boxes with an edge to it; all of them come earlier in the list.
        gap: Smallest distance between neighbours, in pixels.
    """
    row_of = _rows(sources)
    spans, chains = list(widths), {}
    above: list[list[int]] = [[] for _ in widths]
    for target, before in enumerate(sources):
        for source in before:
            chain = [source]
            for row in range(row_of[source] + 1, row_of[target]):
                chain.append(len(spans))
                spans.append(PASSING)
                row_of.append(row)
                above.append([chain[-2]])
            above[target].append(chain[-1])
            chains[source, target] = [*chain, target]
    below: list[list[int]] = [[] for _ in spans]
    for place, neighbours in enumerate(above):
        for neighbour in neighbours:
            below[neighbour].append(place)
    rows: list[list[int]] = [[] for _ in range(max(row_of) + 1)]
    for place in _depth_first(above, below):
        rows[row_of[place]].append(place)
    _order(rows, above, below)
    centres = _positions(rows, above, below, np.array(spans), gap)
    routes = {edge: [(row_of[place], float(centres[place])) for place in chain] for edge, chain in chains.items()}
    return Layout(row_of[: len(widths)], [float(x) for x in centres[: len(widths)]], routes)


def _rows(sources: Sequence[Sequence[int]]) -> list[int]:
    """Puts every box one row below its lowest source, and a box without sources one row above its first user."""
    rows: list[int] = []
    for before in sources:
        rows.append(max((rows[source] + 1 for source in before), default=0))
    for place, before in enumerate(sources):
        users = [rows[user] for user, used in enumerate(sources) if place in used] if not before else []
        if users:
            rows[place] = min(users) - 1
    return rows


def _depth_first(above: list[list[int]], below: list[list[int]]) -> list[int]:
    """Lists all places depth-first, so that connected ones are adjacent."""
    seen: dict[int, None] = {}
    stack = [place for place in reversed(range(len(above))) if not above[place]]
    while stack:
        place = stack.pop()
        if place not in seen:
            seen[place] = None
            stack += reversed(below[place])
    return list(seen)


def _order(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Sorts every row by the mean position of neighbours in the previous row, alternating down and up."""
    position = [0.0] * len(above)

    def number(row: list[int]) -> None:
        for index, place in enumerate(row):
            position[place] = index - len(row) / 2

    for row in rows:
        number(row)
    for sweep in range(SWEEPS):
        neighbours = below if sweep % 2 else above
        for row in reversed(rows) if sweep % 2 else rows:
            wanted = {place: _mean([position[near] for near in neighbours[place]], position[place]) for place in row}
            row.sort(key=wanted.__getitem__)
            number(row)


def _positions(
    rows: list[list[int]], above: list[list[int]], below: list[list[int]], spans: Floats, gap: float
) -> Floats:
    """Moves every row as close to its neighbours as the widths allow, alternating down and up."""
    centres = np.zeros(len(spans))
    pulls: list[list[tuple[int, float]]] = [[] for _ in spans]
    for place, neighbours in enumerate(above):
        for near in neighbours:
            force = STRAIGHT if len(neighbours) == len(below[near]) == 1 else 1.0
            pulls[place].append((near, force))
            pulls[near].append((place, force))
    strengths = np.array([sum(force for _, force in pull) or 1.0 for pull in pulls])
    offsets = []
    for row in rows:
        steps = (spans[row][1:] + spans[row][:-1]) / 2 + gap
        offsets.append(np.concatenate([[0.0], np.cumsum(steps)]))
        centres[row] = offsets[-1] - offsets[-1][-1] / 2
    for sweep in range(MOVES):
        for row, offset in list(zip(rows, offsets, strict=True))[:: -1 if sweep % 2 else 1]:
            sums = [sum(centres[near] * force for near, force in pulls[place]) for place in row]
            wanted = np.where([bool(pulls[place]) for place in row], sums / strengths[row], centres[row])
            centres[row] = _isotonic(wanted - offset, strengths[row]) + offset
    from_left: Floats = centres - (centres - spans / 2).min()
    return from_left


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _isotonic(wanted: Floats, weights: Floats) -> Floats:
    """Computes the non-decreasing numbers closest to `wanted` (pool adjacent violators).

    >>> _isotonic(np.array([0.0, 3.0, 1.0]), np.ones(3)).tolist()
    [0.0, 2.0, 2.0]
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for value, weight in zip(wanted, weights, strict=True):
        mean, total, count = float(value), float(weight), 1
        while pools and pools[-1][0] > mean:
            before, before_weight, before_count = pools.pop()
            mean = (before * before_weight + mean * total) / (before_weight + total)
            total, count = total + before_weight, count + before_count
        pools.append((mean, total, count))
    return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])
