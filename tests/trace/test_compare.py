"""Two traces side by side."""

import pytest

from benchmarks.trace.analysis import Analysis, analyse
from benchmarks.trace.compare import Difference, compare
from tests.trace.built import trace_of


def step(f_us: float, b_us: float, dispatch_us: float, last: str = "PP:0W0") -> Analysis:
    """A forward with a dispatch under it, a backward, and a last phase of 10 us."""
    end = f_us + b_us
    return analyse(
        trace_of(
            [
                ("gemm", 0, f_us),
                ("dispatch", 0, dispatch_us, "stream 27"),
                ("gemm", f_us, end),
                ("gemm", end, end + 10),
            ],
            [("PP:0F0", 0, 1), ("PP:0B0", 1, 2), (last, 2, 3)],
            phase_of=[0, 0, 1, 2],
        )
    )


def rows_of(a: list[Analysis], b: list[Analysis]) -> dict[tuple[str, str], Difference]:
    return {(row.section, row.name): row for row in compare(a, b)}


def test_each_time_is_laid_beside_the_other() -> None:
    rows = rows_of([step(40, 50, 20)], [step(80, 110, 100)])
    span = rows["figure", "span"]
    assert (span.a_us, span.b_us, span.difference_us, span.ratio) == (100, 200, 100, 2)
    assert (span.a_share, span.b_share) == (1, 1)
    backward = rows["phase", "PP:0B0"]
    assert (backward.a_us, backward.b_us) == (50, 110)
    assert (backward.a_share, backward.b_share) == (0.5, 0.55)
    forward = rows["phase", "PP:0F0"]
    assert (forward.a_us, forward.b_us, forward.ratio) == (40, 100, 2.5)
    dispatch, exposed = (rows["operation", name] for name in ("dispatch", "dispatch, exposed"))
    assert (dispatch.a_us, dispatch.b_us, dispatch.ratio) == (20, 100, 5)
    assert (exposed.a_us, exposed.b_us, exposed.ratio) == (0, 0, None)


def test_what_changed_most_comes_first() -> None:
    rows = compare([step(40, 50, 20)], [step(45, 10, 20)])
    assert [row.name for row in rows if row.section == "phase"] == ["PP:0B0", "PP:0F0", "PP:0W0"]
    sections = [row.section for row in rows]
    assert sections == sorted(sections, key=["figure", "phase", "operation"].index)


def test_phases_of_one_trace_only() -> None:
    rows = rows_of([step(40, 50, 20)], [step(40, 50, 20, last="optimizer")])
    gone, new = rows["phase", "PP:0W0"], rows["phase", "optimizer"]
    assert (gone.a_us, gone.b_us, gone.difference_us, gone.ratio) == (10, None, -10, None)
    assert (new.a_us, new.b_us, new.difference_us, new.ratio) == (None, 10, 10, None)


def test_figures_are_means_and_phases_sums_of_ranks() -> None:
    rows = rows_of([step(40, 50, 20), step(60, 30, 20)], [step(40, 50, 20)])
    compute = rows["figure", "compute"]
    assert (compute.a_us, compute.b_us, compute.a_share) == (100, 100, 1)
    forward = rows["phase", "PP:0F0"]
    assert (forward.a_us, forward.b_us) == (100, 40)
    assert (forward.a_share, forward.b_share) == (0.5, pytest.approx(0.4))


def test_traces_without_work() -> None:
    empty = analyse(trace_of([]))
    rows = rows_of([empty], [step(40, 50, 20)])
    assert rows["figure", "span"].ratio is None
    assert rows["phase", "PP:0F0"].a_us is None
    assert {row.section for row in compare([empty], [empty])} == {"figure"}
