"""Several ranks: one clock, names that tell them apart, figures across them."""

import dataclasses

import pytest

from benchmarks.trace.analysis import Figures, analyse
from benchmarks.trace.merge import across, align, distinct_titles, slowest
from benchmarks.trace.model import Trace
from tests.trace.built import trace_of

GEMM, DISPATCH = "gemm", "dispatch"


def rank(number: int, begin: float, length: float = 100.0, phases: tuple[str, ...] = ()) -> Trace:
    ranges = [(name, begin - 10 + 2 * index, begin) for index, name in enumerate(phases)]
    return trace_of([(GEMM, begin, begin + length)], ranges, title=f"rank {number}")


def aligned(files: list[list[Trace]]) -> list[Trace]:
    return [trace for ranks in align(files) for trace in ranks]


def begins(traces: list[Trace]) -> list[float]:
    return [float(trace.work.begin_us[0]) for trace in traces]


@pytest.mark.parametrize(
    ("begin", "is_shared"), [(0, True), (49, True), (50, False), (1e6, False), (-49, True)]
)
def test_clocks_are_shared_if_spans_overlap_by_more_than_half(
    begin: float, is_shared: bool
) -> None:
    traces = aligned([[rank(0, 0.0)], [rank(1, begin)]])
    assert begins(traces) == [0.0, begin if is_shared else 0.0]
    assert [len(trace.notes) for trace in traces] == [0, int(not is_shared)]


def test_the_shorter_of_two_spans_decides() -> None:
    assert begins(aligned([[rank(0, 0.0, 1000.0)], [rank(1, 900.0, 20.0)]])) == [0.0, 900.0]


def test_first_common_phase_begins_together() -> None:
    traces = [
        rank(0, 100.0, phases=("warm up", "step", "F")),
        rank(1, 5000.0, phases=("F", "step")),
    ]
    first, second = aligned([[trace] for trace in traces])
    # "step" begins at 92 on rank 0 and at 4992 on rank 1.
    assert second.work.begin_us.tolist() == [100.0]
    assert second.phases.begin_us.tolist() == [90.0, 92.0]
    assert second.notes == ("clock shifted: begin of 'step' is that of rank 0",)
    assert first is traces[0]
    assert traces[1].work.begin_us.tolist() == [5000.0]


def test_without_common_phase_first_work_begins_together() -> None:
    traces = aligned([[rank(0, 0.0, phases=("A",))], [rank(1, 5000.0, phases=("B",))]])
    assert begins(traces) == [0.0, 0.0]
    assert traces[1].notes == ("clock shifted: first work is that of rank 0",)


def test_traces_without_work_do_not_disturb() -> None:
    empty = trace_of([], title="rank 2")
    traces = [rank(0, 0.0), empty, rank(1, 10.0)]
    assert aligned([[trace] for trace in traces]) == traces
    assert aligned([[empty]]) == [empty]
    assert begins(aligned([[empty], [rank(0, 7.0)], [rank(1, 5000.0)]])[1:]) == [7.0, 7.0]


def test_files_that_share_another_clock_are_shifted_together() -> None:
    simulated = [rank(0, 0.0, phases=("F",)), rank(1, 30.0, phases=("F",))]
    measured = [[rank(0, 8000.0, phases=("F",))], [rank(1, 8040.0, phases=("F",))]]
    assert begins(aligned([simulated, *measured])) == [0.0, 30.0, 0.0, 40.0]
    assert begins(aligned([measured[1], simulated, measured[0]])) == [
        8040.0,
        8000.0,
        8030.0,
        8000.0,
    ]


def test_ranks_of_one_file_stay_apart() -> None:
    # A pipeline of two ranks, simulated; and measured, on a clock that began long before.
    simulated = [rank(0, 0.0, phases=("F",)), rank(1, 300.0, phases=("F", "B"))]
    measured = [rank(0, 8000.0, phases=("F",)), rank(1, 8310.0, phases=("F", "B"))]
    assert begins(aligned([simulated])) == [0.0, 300.0]
    assert begins(aligned([simulated, measured])) == [0.0, 300.0, 0.0, 310.0]


def test_titles_tell_ranks_of_several_files_apart() -> None:
    def titles(files: list[tuple[str, list[Trace]]]) -> list[str]:
        return [trace.title for ranks in distinct_titles(files) for trace in ranks]

    assert titles([("a", [rank(0, 0), rank(1, 0)])]) == ["rank 0", "rank 1"]
    assert titles([("a", [rank(0, 0)]), ("b", [rank(1, 0)])]) == ["rank 0", "rank 1"]
    assert titles([("a", [rank(0, 0)]), ("b", [rank(0, 0)])]) == ["a: rank 0", "b: rank 0"]
    alone = trace_of([], title="c")
    files = [("a", [rank(0, 0)]), ("b", [rank(0, 0)]), ("c", [alone])]
    assert titles(files) == ["a: rank 0", "b: rank 0", "c"]


def test_figures_across_ranks() -> None:
    analyses = [
        analyse(trace_of([(GEMM, 0, 60), (DISPATCH, 30, 100)])),
        analyse(trace_of([(GEMM, 0, 80), (DISPATCH, 60, 100)])),
        analyse(trace_of([(GEMM, 0, 90)])),
    ]
    figures = {figure.name: figure for figure in across(analyses)}
    assert list(figures) == [field.name for field in dataclasses.fields(Figures)]
    assert figures["hidden_us"].values == (30, 20, 0)
    assert figures["span_us"].mean == pytest.approx(290 / 3)
    assert slowest(analyses) is analyses[1]  # as long as the first, with more compute
