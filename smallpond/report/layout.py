"""Where things are drawn: lanes of attempts that overlap, layers of stages that feed each other."""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 8


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts "process-2" before "process-10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def lanes(spans: Iterable[tuple[int, int, int]]) -> tuple[list[int], dict[int, int]]:
    """Gives each attempt the first lane of its worker that is free when it begins.

    One that ends as it begins takes a unit of time, for it is drawn, too.

    Args:
        spans: (worker, begin, end) of each, in the order in which they begin.

    Returns:
        The lane of each, counted from 0 for each worker; and how many lanes each worker has.
    """
    free: dict[int, list[int]] = {}
    busy: dict[int, list[tuple[int, int]]] = {}
    widths: dict[int, int] = {}
    result = []
    for worker, begin, end in spans:
        its_free, its_busy = free.setdefault(worker, []), busy.setdefault(worker, [])
        while its_busy and its_busy[0][0] <= begin:
            heapq.heappush(its_free, heapq.heappop(its_busy)[1])
        if not its_free:
            heapq.heappush(its_free, widths.get(worker, 0))
            widths[worker] = widths.get(worker, 0) + 1
        lane = heapq.heappop(its_free)
        heapq.heappush(its_busy, (max(end, begin + 1), lane))
        result.append(lane)
    return result, widths


def most_at_once(spans: Iterable[tuple[int, int, int]]) -> int:
    """How many of (worker, begin, end) overlap, at most; each takes a unit of time at least."""
    steps = sorted(
        step for _, begin, end in spans for step in ((begin, 1), (max(end, begin + 1), -1))
    )
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph from left to right, in columns and rows that are one unit apart at least.

    Attributes:
        width, height: in units; places lie in [0, width) and [0, height).
        places: column and row of each node.
        edges: the way of each edge, from column to column.
    """

    width: int
    height: float
    places: tuple[tuple[int, float], ...]
    edges: Mapping[tuple[int, int], tuple[tuple[int, float], ...]]


def layered(inputs: Sequence[Sequence[int]]) -> Drawing:
    """Draws a graph in layers: each node right of all its inputs, with few edges that cross.

    Edges over several columns pass through places of their own, which stand in the layers as
    nodes do. Layers are ordered by the mean place of their neighbours, sweeping to and fro; then
    nodes move towards their neighbours as far as the order lets them. (The method of Sugiyama,
    Tagawa and Toda, 1981.)

    Args:
        inputs: of each node, by its number; inputs have lower numbers.
    """
    edges = [
        (source, node) for node, sources in enumerate(inputs) for source in dict.fromkeys(sources)
    ]
    layer = [0] * len(inputs)
    for source, node in edges:  # in the order of nodes, so that inputs are placed before
        layer[node] = max(layer[node], layer[source] + 1)
    ways: dict[tuple[int, int], list[int]] = {}
    for source, node in edges:
        between = range(len(layer), len(layer) + layer[node] - layer[source] - 1)
        layer += range(layer[source] + 1, layer[node])
        ways[source, node] = [source, *between, node]
    links = [link for way in ways.values() for link in pairwise(way)]
    rows = _rows(layer, links)
    places = [(column, row) for column, row in zip(layer, rows, strict=True)]
    return Drawing(
        width=max(layer, default=-1) + 1,
        height=max(rows, default=-1.0) + 1,
        places=tuple(places[: len(inputs)]),
        edges={edge: tuple(places[point] for point in way) for edge, way in ways.items()},
    )


def _rows(layer: Sequence[int], links: Sequence[tuple[int, int]]) -> list[float]:
    """The row of each node: an order within its layer, then straight lines where there is room."""
    layers: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, its_layer in enumerate(layer):
        layers[its_layer].append(node)
    before: list[list[int]] = [[] for _ in layer]
    after: list[list[int]] = [[] for _ in layer]
    for source, node in links:
        before[node].append(source)
        after[source].append(node)
    best = _ordered(layers, before, after, links)
    rows = [0.0] * len(layer)
    tallest = max(map(len, best), default=0)
    for nodes in best:
        for place, node in enumerate(nodes):
            rows[node] = place + (tallest - len(nodes)) / 2
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        for nodes in best if forth else reversed(best):
            neighbours = before if forth else after
            wanted = [_mean([rows[n] for n in neighbours[node]], rows[node]) for node in nodes]
            for node, row in zip(nodes, _spread(wanted), strict=True):
                rows[node] = row
    least = min(rows, default=0.0)
    return [row - least for row in rows]


def _ordered(
    layers: list[list[int]],
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    links: Sequence[tuple[int, int]],
) -> list[list[int]]:
    """Layers in the order with the fewest crossings that sweeps came by."""
    best, fewest = [list(nodes) for nodes in layers], _crossings(layers, links)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        forth = sweep % 2 == 0
        neighbours = before if forth else after
        for nodes in layers if forth else reversed(layers):
            place = _places(layers)
            wanted = {n: _mean([place[m] for m in neighbours[n]], place[n]) for n in nodes}
            nodes.sort(key=wanted.__getitem__)
        crossings = _crossings(layers, links)
        if crossings < fewest:
            best, fewest = [list(nodes) for nodes in layers], crossings
    return best


def _places(layers: Sequence[Sequence[int]]) -> dict[int, int]:
    return {node: place for nodes in layers for place, node in enumerate(nodes)}


def _crossings(layers: Sequence[Sequence[int]], links: Sequence[tuple[int, int]]) -> int:
    """How many pairs of links cross: those whose ends are the other way round than their begins."""
    place = _places(layers)
    layer = {node: index for index, nodes in enumerate(layers) for node in nodes}
    ends: dict[int, list[int]] = {}  # of the links so far from each layer, ascending
    crossings = 0
    for its_layer, _, end in sorted((layer[a], place[a], place[b]) for a, b in links):
        so_far = ends.setdefault(its_layer, [])
        crossings += len(so_far) - bisect_right(so_far, end)
        insort(so_far, end)
    return crossings


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _spread(wanted: Sequence[float]) -> list[float]:
    """Rows as near as can be to those wanted, in their order, one unit apart at least.

    Less its index, each row must be no less than the one before: neighbours that want it otherwise
    are put together at their mean.
    """
    groups: list[tuple[float, int]] = []  # mean, how many
    for index, row in enumerate(wanted):
        mean, size = row - index, 1
        while groups and groups[-1][0] > mean:
            other, others = groups.pop()
            mean, size = (mean * size + other * others) / (size + others), size + others
        groups.append((mean, size))
    means = [mean for mean, size in groups for _ in range(size)]
    return [mean + index for index, mean in enumerate(means)]
