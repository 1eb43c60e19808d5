"""Figures of an analysis: against cells counted one by one, and of the golden trace."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace.analysis import Analysis, Figures, analyse
from benchmarks.trace.model import NONE, Kind, Trace
from tests.oracles import trace_overlap
from tests.trace.built import trace_of
from tests.trace.golden import BEGIN_US, FIGURES, GAPS, OPERATIONS, PHASES, UNKNOWN, golden_trace

# A kernel that the built-in rules take for each kind.
NAMES = {
    "compute": "void cutlass::Kernel<int>(int)",
    "payload": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)",
    "waiting": "void deep_ep::intranode::barrier<8>(int**, int)",
    "copy": "Memset (Device)",
    "unclassified": "acme_sinkhorn",
}
PIECES = st.lists(
    st.tuples(
        st.sampled_from(list(NAMES)),
        st.integers(0, 40),
        st.integers(0, 9),
        st.sampled_from(["stream 7", "stream 27"]),
        st.integers(-1, 2),
    ).map(lambda piece: (piece[0], piece[1], piece[1] + piece[2], piece[3], piece[4])),
    max_size=14,
).map(lambda pieces: sorted(pieces, key=lambda piece: piece[1]))
Drawn = list[tuple[str, int, int, str, int]]  # kind, begin, end, stream, phase

# Phases 0 and 1 have one name.
RANGES = [("F", 0, 5), ("F", 6, 9), ("B", 10, 30)]


def drawn_trace(pieces: Drawn) -> Trace:
    return trace_of(
        [(NAMES[kind], begin, end, stream) for kind, begin, end, stream, _ in pieces],
        RANGES,
        phase_of=[phase for *_, phase in pieces],
    )


def figures_of(figures: Figures) -> dict[str, float]:
    return {name: getattr(figures, name) for name in Figures.__slots__}


@given(PIECES)
def test_figures_and_gaps_match_counted_cells(pieces: Drawn) -> None:
    plain = [(kind, begin, end) for kind, begin, end, _, _ in pieces]
    analysis = analyse(drawn_trace(pieces), num_gaps=100)
    assert figures_of(analysis.figures) == trace_overlap.figures(plain)
    gaps = sorted((gap.begin_us, gap.end_us, gap.exposed_us) for gap in analysis.gaps)
    assert gaps == trace_overlap.gaps(plain)
    lengths = [gap.duration_us for gap in analysis.gaps]
    assert lengths == sorted(lengths, reverse=True)


@given(PIECES)
def test_gaps_name_who_communicates_and_who_waits(pieces: Drawn) -> None:
    for gap in analyse(drawn_trace(pieces), num_gaps=100).gaps:
        inside = [
            (min(end, gap.end_us) - max(begin, gap.begin_us), -index)
            for index, (kind, begin, end, *_) in enumerate(pieces)
            if kind in trace_overlap.COMMUNICATION
        ]
        longest, negative = max(inside, default=(0, 1))
        assert gap.communicator == (-negative if longest > 0 else NONE)
        waiters = [
            index
            for index, (kind, begin, *_) in enumerate(pieces)
            if kind in trace_overlap.COMPUTE and begin >= gap.end_us
        ]
        assert gap.waiter == min(waiters, default=NONE)


@given(PIECES)
def test_rows_of_phases_streams_and_operations_match_counted_cells(pieces: Drawn) -> None:
    analysis = analyse(drawn_trace(pieces))
    plain = [(kind, begin, end) for kind, begin, end, _, _ in pieces]
    compute = trace_overlap.cells(plain, trace_overlap.COMPUTE)

    for row in analysis.phases:
        numbers = {"F": (0, 1), "B": (2,), "": (NONE,)}[row.name]
        own = [piece[:3] for piece in pieces if piece[4] in numbers]
        communication = trace_overlap.cells(own, trace_overlap.COMMUNICATION)
        assert row.compute_us == len(trace_overlap.cells(own, trace_overlap.COMPUTE))
        assert row.busy_us == len(trace_overlap.cells(own, NAMES))
        assert row.waiting_us == len(trace_overlap.cells(own, {"waiting"}))
        assert row.communication_us == len(communication)
        assert row.hidden_us == len(communication & compute)
        assert row.exposed_us == len(communication - compute)
        assert (row.count, row.cpu_us) == {"F": (2, 8), "B": (1, 20), "": (0, 0)}[row.name]
    in_phases = {NONE if phase == NONE else RANGES[phase][0] for *_, phase in pieces}
    assert {row.name or NONE for row in analysis.phases} == in_phases

    for stream in analysis.streams:
        own = [piece[:3] for piece in pieces if piece[3] == stream.label]
        assert stream.count == len(own)
        assert stream.busy_us == len(trace_overlap.cells(own, NAMES))
        assert stream.compute_us == len(trace_overlap.cells(own, trace_overlap.COMPUTE))
        assert stream.copy_us == len(trace_overlap.cells(own, {"copy"}))

    kinds = {"all_reduce": "payload", "barrier": "waiting"}
    for operation in analysis.operation_rows:
        own_cells = trace_overlap.cells(plain, {kinds[operation.operation]})
        assert operation.communication_us == len(own_cells)
        assert operation.exposed_us == len(own_cells - compute)


COMPUTE, PAYLOAD, COPY = (NAMES[kind] for kind in ("compute", "payload", "copy"))


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([], {}),
        ([(COMPUTE, 5, 5)], {}),
        ([(COMPUTE, 5, 8)], {"span_us": 3, "compute_us": 3}),
        (
            [(PAYLOAD, 5, 8)],
            {"span_us": 3, "communication_us": 3, "payload_us": 3, "exposed_us": 3},
        ),
        ([(COPY, 5, 8)], {"span_us": 3, "copy_us": 3, "copy_alone_us": 3}),
        ([(COMPUTE, 0, 0), (COMPUTE, 4, 4)], {"span_us": 4, "idle_us": 4}),
        (
            [(COMPUTE, 0, 3), (PAYLOAD, 3, 5)],
            dict.fromkeys(["communication_us", "payload_us", "exposed_us"], 2)
            | {"span_us": 5, "compute_us": 3},
        ),
    ],
    ids=["none", "no length", "compute", "communication", "copy", "only idle", "touching"],
)
def test_figures_at_the_edges(
    pieces: list[tuple[str, float, float]], wanted: dict[str, float]
) -> None:
    figures = analyse(trace_of(pieces)).figures
    assert figures_of(figures) == figures_of(Figures()) | wanted
    assert figures.overlap_speedup == 1.0
    assert figures.hidden_share == 0.0


def test_phase_pattern_takes_the_innermost_phase_that_matches() -> None:
    ranges = [("step", 0, 10), ("PP:0F1", 0, 5), ("attention", 1, 3), ("PP:0B1", 5, 9)]
    trace = trace_of(
        [(COMPUTE, 0, 2), (COMPUTE, 2, 5), (COMPUTE, 5, 6), (COMPUTE, 6, 7), (COMPUTE, 8, 9)],
        ranges,
        parents=[NONE, 0, 1, 0],
        phase_of=[1, 2, 3, 0, NONE],
    )
    assert analyse(trace).phase.tolist() == [1, 2, 3, 0, NONE]
    matched = analyse(trace, phase_pattern=re.compile("^PP:"))
    assert matched.phase.tolist() == [1, 1, 3, NONE, NONE]
    assert [(row.name, row.busy_us) for row in matched.phases] == [
        ("PP:0F1", 5),
        ("PP:0B1", 1),
        ("", 2),
    ]


def test_typical_sms_are_those_of_most_time() -> None:
    trace = trace_of(
        [(COMPUTE, 0, 5), (COMPUTE, 5, 9), (COMPUTE, 9, 13), (PAYLOAD, 13, 14), (COMPUTE, 14, 90)],
        num_blocks=[500, 112, 112, 20, 0],  # 0 is unknown, however long it takes
        num_sms=132,
    )
    analysis = analyse(trace)
    assert (analysis.compute_sms, analysis.communication_sms) == (112, 20)
    assert analyse(trace_of([(COMPUTE, 0, 5)])).compute_sms == 0


def test_grids_of_more_blocks_than_sms_use_all_sms() -> None:
    pieces = [(COMPUTE, 0, 3), (COMPUTE, 3, 6), (COMPUTE, 6, 11)]
    grids = [500, 600, 112]
    assert analyse(trace_of(pieces, num_blocks=grids, num_sms=132)).compute_sms == 132
    assert analyse(trace_of(pieces, num_blocks=grids)).compute_sms == 112


def test_no_communication_is_said_with_its_remedy() -> None:
    (note,) = analyse(trace_of([(COMPUTE, 0, 5)])).notes
    assert "no communication found" in note
    assert "--rules" in note
    assert analyse(trace_of([])).notes == ("there is no work in this trace",)
    assert analyse(trace_of([(PAYLOAD, 0, 5)])).notes == ()


def test_unclassified_names_are_listed_by_time() -> None:
    analysis = analyse(
        trace_of([("odd", 0, 1), ("odder", 1, 9), ("odd", 9, 12), (COMPUTE, 12, 99)])
    )
    rows = [(row.name, row.count, row.total_us) for row in analysis.unclassified]
    assert rows == [("odder", 1, 8), ("odd", 2, 4)]


@pytest.fixture(name="golden")
def fixture_golden(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    from benchmarks.trace.reader import read_traces  # noqa: PLC0415 — the other tests need no file

    path = golden_trace().save(tmp_path_factory.mktemp("golden") / "golden.json.gz")
    (trace,) = read_traces(path)
    return analyse(trace)


def test_golden_figures(golden: Analysis) -> None:
    assert golden.trace.title == "rank 3"
    assert figures_of(golden.figures) == FIGURES
    assert golden.figures.overlap_speedup == 1.25
    assert golden.figures.hidden_share == 0.625
    assert (golden.compute_sms, golden.communication_sms) == (112, 20)
    assert golden.notes == ()


def test_golden_phases(golden: Analysis) -> None:
    rows = {
        row.name: (
            *(row.compute_us, row.communication_us, row.waiting_us),
            *(row.hidden_us, row.exposed_us),
        )
        for row in golden.phases
    }
    assert rows == PHASES | {"": (0, 0, 0, 0, 0)}  # the two copies
    assert golden.phases[-1].name == ""


def test_golden_operations(golden: Analysis) -> None:
    rows = {
        row.operation: (row.communication_us, row.waiting_us, row.hidden_us, row.exposed_us)
        for row in golden.operation_rows
    }
    assert rows == OPERATIONS
    assert [row.operation for row in golden.operation_rows] == ["dispatch", "combine", "notify"]


def test_golden_gaps(golden: Analysis) -> None:
    def phase(index: int) -> str | None:
        if index == NONE:
            return None
        trace = golden.trace
        return trace.names[trace.phases.name[golden.phase[index]]]

    gaps = [
        (
            *(gap.begin_us - BEGIN_US, gap.end_us - BEGIN_US, gap.exposed_us),
            *(phase(gap.communicator), phase(gap.waiter)),
        )
        for gap in golden.gaps
    ]
    assert gaps == GAPS


def test_golden_streams_and_unknown_names(golden: Analysis) -> None:
    rows = {row.label: (row.busy_us, row.num_sms) for row in golden.streams}
    assert rows == {
        "stream 7": (620, 112),
        "stream 23": (180, 112),
        "stream 27": (405, 20),
        "stream 20": (30, 0),
    }
    assert [(row.name, row.total_us) for row in golden.unclassified] == [(UNKNOWN, 30)]
    assert np.count_nonzero(golden.kinds == Kind.UNCLASSIFIED) == 1
