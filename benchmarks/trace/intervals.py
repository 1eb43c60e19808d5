"""Arithmetic of time intervals: [n, 2] arrays of begin and end, in order, none touching the next.

Work of a trace overlaps and nests; `union` makes such an array of it once, and the rest stays in
that form. An interval without length is none.
"""

from __future__ import annotations

import numpy as np

from benchmarks.trace.model import Floats

Spans = Floats  # [n, 2]: begin and end
NO_SPANS: Spans = np.empty((0, 2))


def union(begin: Floats, end: Floats) -> Spans:
    """Returns when at least one of the pieces ran; pieces that touch become one.

    Args:
        begin: [n] float64, in any order.
        end: [n] float64, not before its begin.
    """
    lasting = end > begin
    order = np.argsort(begin[lasting], kind="stable")
    begin, end = begin[lasting][order], end[lasting][order]
    if not len(begin):
        return NO_SPANS
    reached = np.maximum.accumulate(end)
    first = np.concatenate([[True], begin[1:] > reached[:-1]])
    return np.stack([begin[first], reached[np.append(first[1:], True)]], axis=1)


def intersection(a: Spans, b: Spans) -> Spans:
    """Returns when both were."""
    times = np.concatenate([a[:, 0], b[:, 0], a[:, 1], b[:, 1]])
    steps = np.repeat([1, -1], len(a) + len(b))
    order = np.argsort(times, kind="stable")
    times, running = times[order], np.cumsum(steps[order])
    both = np.flatnonzero(running == 2)
    spans = np.stack([times[both], times[both + 1]], axis=1)
    return spans[spans[:, 1] > spans[:, 0]]  # one that ends as the other begins does not meet it


def difference(a: Spans, b: Spans) -> Spans:
    """Returns when `a` was and `b` was not."""
    edges = np.concatenate([[-np.inf], b.ravel(), [np.inf]])
    return intersection(a, edges.reshape(-1, 2))


def measure(spans: Spans) -> float:
    """Returns the time that the intervals take together."""
    return float(np.sum(spans[:, 1] - spans[:, 0]))


def overlap(spans: Spans, begin: Floats, end: Floats) -> Floats:
    """Returns for each piece how much of it lies in `spans`; pieces may overlap. [n] float64."""
    return _measure_until(spans, end) - _measure_until(spans, begin)


def _measure_until(spans: Spans, moment: Floats) -> Floats:
    if not len(spans):
        return np.zeros(len(moment))
    lengths = spans[:, 1] - spans[:, 0]
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    index = np.searchsorted(spans[:, 0], moment, side="right")  # intervals that have begun
    last = np.maximum(index - 1, 0)
    inside: Floats = np.clip(moment - spans[last, 0], 0.0, lengths[last])
    return np.asarray(before[last] + inside, dtype=np.float64)
