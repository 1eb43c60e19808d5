"""Lanes and layers: nothing overlaps, and no place is wasted."""

from collections.abc import Sequence
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from smallpond.report import layout
from smallpond.report.layout import lanes, layered, most_at_once, natural_order

moments = st.integers(0, 12)
spans = st.lists(
    st.tuples(st.integers(0, 2), moments, moments).map(lambda s: (s[0], min(s[1:]), max(s[1:]))),
    max_size=12,
).map(lambda found: sorted(found, key=lambda span: span[1]))


def at_once(found: Sequence[tuple[int, int, int]]) -> int:
    """How many run at the moment when most do."""
    return max(sum(m in held(span) for span in found) for m in range(13))


def held(span: tuple[int, int, int]) -> range:
    """The moments that a span holds: not its end, but always its begin."""
    _, begin, end = span
    return range(begin, max(end, begin + 1))


@given(spans)
def test_lanes_are_as_many_as_run_at_once_and_never_shared(
    found: list[tuple[int, int, int]],
) -> None:
    lane, widths = lanes(found)
    for (a, in_a), (b, in_b) in combinations(zip(found, lane, strict=True), 2):
        overlap = a[0] == b[0] and set(held(a)) & set(held(b))
        assert not (overlap and in_a == in_b)
    for worker in {worker for worker, _, _ in found}:
        own = [span for span in found if span[0] == worker]
        assert widths[worker] == at_once(own)
        assert {i for (w, _, _), i in zip(found, lane, strict=True) if w == worker} == set(
            range(widths[worker])
        )


@given(spans)
def test_most_at_once(found: list[tuple[int, int, int]]) -> None:
    assert most_at_once(found) == at_once(found)


def test_names_with_numbers_are_in_the_order_of_the_numbers() -> None:
    names = ["process-10", "process-2", "", "10", "9", "node", "process-2b", "process-02"]
    wanted = ["", "9", "10", "node", "process-2", "process-02", "process-2b", "process-10"]
    assert sorted(names, key=natural_order) == wanted


graphs = st.integers(0, 9).flatmap(
    lambda count: st.tuples(
        *(st.lists(st.integers(0, max(0, n - 1)), max_size=min(n, 3)) for n in range(count))
    )
)


@given(graphs)
def test_layers_follow_the_edges(inputs: tuple[list[int], ...]) -> None:
    drawing = layered(inputs)
    assert len(drawing.places) == len(inputs)
    for node, sources in enumerate(inputs):
        columns = [drawing.places[source][0] for source in sources]
        assert drawing.places[node][0] == max(columns, default=-1) + 1
    assert set(drawing.edges) == {(s, node) for node, sources in enumerate(inputs) for s in sources}
    taken = list(drawing.places)
    for (source, node), way in drawing.edges.items():
        assert (way[0], way[-1]) == (drawing.places[source], drawing.places[node])
        assert all(after[0] == before[0] + 1 for before, after in pairwise(way))
        taken += way[1:-1]
    for (column, row), (other_column, other_row) in combinations(taken, 2):
        assert column != other_column or abs(row - other_row) > 1 - 1e-9
    assert drawing.width == max((column for column, _ in taken), default=-1) + 1
    rows = [row for _, row in taken]
    assert min(rows, default=0.0) == 0
    assert drawing.height == max(rows, default=-1.0) + 1


def test_a_chain_is_a_straight_line() -> None:
    drawing = layered([[], [0], [1], [2]])
    assert drawing.places == ((0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0))
    assert drawing.edges[2, 3] == ((2, 0.0), (3, 0.0))


def test_a_join_stands_between_its_inputs() -> None:
    drawing = layered([[], [], [0, 1]])
    assert drawing.places == ((0, 0.0), (0, 1.0), (1, 0.5))


def test_a_chain_stays_straight_beside_one_that_ends() -> None:
    drawing = layered([[], [], [0], [1], [3]])
    assert drawing.places == ((0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0), (2, 1.0))


def test_inputs_that_would_cross_change_places() -> None:
    drawing = layered([[], [], [1], [0]])
    assert drawing.places[3][1] == drawing.places[0][1] != drawing.places[1][1]
    assert drawing.places[2][1] == drawing.places[1][1]


links_of_layers = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.tuples(st.integers(0, count - 1), st.integers(count, 2 * count - 1)), max_size=8
    ).map(lambda links: (count, links))
)


@given(links_of_layers)
def test_crossings_are_counted(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, links = case
    layers = [list(range(count)), list(range(count, 2 * count))]
    crossing = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(links, 2))
    assert layout._crossings(layers, links) == crossing


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=8))
def test_rows_are_spread_with_the_least_squares(wanted: list[float]) -> None:
    index = np.arange(len(wanted))
    nearest = isotonic_regression(np.array(wanted) - index).x + index
    np.testing.assert_allclose(layout._spread(wanted), nearest, atol=1e-9)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_three_parallel_chains_do_not_cross(order: tuple[int, ...]) -> None:
    drawing = layered([[], [], [], *([source] for source in order)])
    for node, source in enumerate(order, start=3):
        assert drawing.places[node][1] == drawing.places[source][1]
