"""Interval arithmetic against sets of integer cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace.intervals import (
    NO_SPANS,
    Spans,
    difference,
    intersection,
    measure,
    overlap,
    union,
)

PIECES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=12)
Pieces = list[tuple[int, int]]  # begin, duration


def columns(pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(pieces, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 0] + array[:, 1]


def spans(pieces: Pieces) -> Spans:
    return union(*columns(pieces))


def cells(pieces: Pieces) -> set[int]:
    return {cell for begin, duration in pieces for cell in range(begin, begin + duration)}


def cells_of(merged: Spans) -> set[int]:
    return {cell for begin, end in merged for cell in range(int(begin), int(end))}


def assert_is(merged: Spans, wanted: set[int]) -> None:
    """The same cells, in maximal intervals in order."""
    assert merged.shape == (len(merged), 2)
    assert cells_of(merged) == wanted
    assert measure(merged) == len(wanted)
    assert np.all(np.diff(merged.ravel()) > 0), "empty, touching or unordered intervals"


@given(PIECES)
def test_union(pieces: Pieces) -> None:
    assert_is(spans(pieces), cells(pieces))


@given(PIECES, PIECES)
def test_intersection_and_difference(a: Pieces, b: Pieces) -> None:
    assert_is(intersection(spans(a), spans(b)), cells(a) & cells(b))
    assert_is(difference(spans(a), spans(b)), cells(a) - cells(b))


@given(PIECES, PIECES)
def test_overlap_of_each_piece(a: Pieces, b: Pieces) -> None:
    begin, end = columns(b)
    wanted = [len(cells(a) & cells([piece])) for piece in b]
    assert overlap(spans(a), begin, end).tolist() == wanted


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([], []),
        ([(3, 0)], []),
        ([(0, 4)], [[0, 4]]),
        ([(0, 4), (4, 2)], [[0, 6]]),
        ([(0, 10), (2, 3)], [[0, 10]]),
        ([(5, 1), (0, 4)], [[0, 4], [5, 6]]),
    ],
    ids=["none", "no length", "one", "touching", "nested", "unordered"],
)
def test_union_at_the_edges(pieces: Pieces, wanted: list[list[int]]) -> None:
    assert spans(pieces).tolist() == wanted


def test_nothing_takes_no_time() -> None:
    assert measure(NO_SPANS) == 0.0
    assert difference(NO_SPANS, spans([(0, 1)])).tolist() == []
    assert difference(spans([(0, 1)]), NO_SPANS).tolist() == [[0, 1]]
