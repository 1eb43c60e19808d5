"""Phases of device work: nesting, launches, threads; against oracles that look at everything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace.attribution import find_launches, grouped
from benchmarks.trace.model import NONE, Trace
from benchmarks.trace.nesting import nest, nesting_order
from benchmarks.trace.reader import read_traces
from tests.oracles.trace_attribution import innermost, launch_of, phase_of_kernel
from tests.trace.chrome import MAIN_THREAD, ChromeTrace, save

AUTOGRAD_THREAD = 2571

times = st.integers(0, 12)
ranges = st.lists(st.tuples(times, st.integers(0, 8)), max_size=10)


def _sorted(spans: list[tuple[int, int]]) -> tuple[Any, Any]:
    begin_us = np.array([begin for begin, _ in spans], np.float64)
    duration_us = np.array([duration for _, duration in spans], np.float64)
    order = nesting_order(begin_us, duration_us)
    return begin_us[order], duration_us[order]


@given(ranges)
def test_the_innermost_range_is_the_latest_that_has_not_ended(spans: list[tuple[int, int]]) -> None:
    begin_us, duration_us = _sorted(spans)
    both = list(zip(begin_us.tolist(), (begin_us + duration_us).tolist(), strict=True))
    moments = np.arange(-1, 25, 0.5)
    expected = [innermost(both, moment) for moment in moments.tolist()]
    actual = nest(begin_us, duration_us).at(moments).tolist()
    assert actual == [NONE if idx is None else idx for idx in expected]


@given(ranges)
def test_the_parent_is_the_innermost_range_of_those_before(spans: list[tuple[int, int]]) -> None:
    begin_us, duration_us = _sorted(spans)
    both = list(zip(begin_us.tolist(), (begin_us + duration_us).tolist(), strict=True))
    expected = [innermost(both[:idx], begin) for idx, (begin, _) in enumerate(both)]
    actual = nest(begin_us, duration_us).parent.tolist()
    assert actual == [NONE if idx is None else idx for idx in expected]


@given(ranges)
def test_stretches_are_the_cells_in_which_a_range_is_the_innermost(
    spans: list[tuple[int, int]],
) -> None:
    begin_us, duration_us = _sorted(spans)
    both = list(zip(begin_us.tolist(), (begin_us + duration_us).tolist(), strict=True))
    cells = {cell: innermost(both, cell + 0.5) for cell in range(21)}
    owner, begin, duration = nest(begin_us, duration_us).stretches()
    drawn = {
        cell: idx
        for idx, first, length in zip(
            owner.tolist(), begin.tolist(), duration.tolist(), strict=True
        )
        for cell in range(int(first), int(first + length))
    }
    assert drawn == {cell: idx for cell, idx in cells.items() if idx is not None}


@pytest.mark.parametrize("origin_us", [0.0, 4_631_975_607_315.666, 1.79e15], ids=str)
def test_ranges_that_touch_are_siblings_whatever_rounding_says(origin_us: float) -> None:
    begin_us = origin_us + 0.1 * np.arange(1, 1000)
    nesting = nest(begin_us, np.full(len(begin_us), 0.1 + 1e-9))
    if origin_us < 1e15:  # a float64 does not hold tenths of microseconds since 1970
        assert np.all(nesting.parent == NONE)
    whole_us = origin_us + np.arange(1000.0)
    assert np.all(nest(whole_us, np.full(len(whole_us), 1.0)).parent == NONE)


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_groups_are_the_rows_of_each_key(keys: list[int]) -> None:
    expected = {key: [row for row, other in enumerate(keys) if other == key] for key in keys}
    actual = {key: rows.tolist() for key, rows in grouped(np.array(keys, np.int64))}
    assert actual == expected
    assert list(actual) == sorted(expected)


ids = st.sampled_from([NONE, 1, 2, 3])


@given(
    st.lists(st.tuples(ids, times, st.integers(0, 1)), max_size=8),
    st.lists(st.tuples(ids, times), max_size=8),
)
def test_launches_are_found_by_their_ids(
    launches: list[tuple[int, int, int]], work: list[tuple[int, int]]
) -> None:
    calls = [
        {"args": {"correlation": correlation}, "ts": begin, "pid": process, "row": row}
        for row, (correlation, begin, process) in enumerate(launches)
        if correlation != NONE
    ]
    kernels: list[dict[str, Any]] = [
        {"args": {} if correlation == NONE else {"correlation": correlation}, "ts": begin}
        for correlation, begin in work
    ]
    launch, _ = find_launches(
        np.array([correlation for correlation, _ in work], np.int64),
        np.array([begin for _, begin in work], np.float64),
        np.array([correlation for correlation, _, _ in launches], np.int64),
        np.array([begin for _, begin, _ in launches], np.float64),
        np.array([process for _, _, process in launches], np.int64),
    )
    expected = [launch_of(kernel, calls) for kernel in kernels]
    assert launch.tolist() == [NONE if call is None else call["row"] for call in expected]


threads = st.sampled_from([MAIN_THREAD, AUTOGRAD_THREAD])


@given(
    st.lists(st.tuples(times, st.integers(0, 8), threads), max_size=8),
    st.lists(st.tuples(times, st.none() | times, threads), min_size=1, max_size=8),
)
def test_every_kernel_is_in_the_phase_of_its_launch(
    phases: list[tuple[int, int, int]], kernels: list[tuple[int, int | None, int]]
) -> None:
    trace = ChromeTrace()
    for number, (begin, duration, thread) in enumerate(phases):
        trace.annotation(f"phase {number}", begin, duration, thread)
    for number, (begin, launched, thread) in enumerate(kernels):
        trace.kernel(f"kernel {number}", begin, 1, launched_us=launched, thread=thread)
    with tempfile.TemporaryDirectory() as folder:
        [read] = read_traces(trace.save(Path(folder) / "trace.json"))
    expected = {
        event["name"]: phase_of_kernel(event, trace.events)
        for event in trace.events
        if event["cat"] == "kernel"
    }
    assert phase_names(read) == {
        kernel: None if phase is None else phase["name"] for kernel, phase in expected.items()
    }


def phase_names(trace: Trace) -> dict[str, str | None]:
    """The phase of each work's name."""
    return {
        trace.names[name]: None if phase == NONE else trace.names[trace.phases.name[phase]]
        for name, phase in zip(trace.work.name, trace.work.phase, strict=True)
    }


def test_backward_kernels_have_the_phase_of_the_main_thread(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.annotation("forward", 0, 100)
    trace.annotation("backward", 100, 100)
    trace.annotation("hook", 150, 10, AUTOGRAD_THREAD)
    trace.kernel("late forward", 500, 10, launched_us=99)
    trace.kernel("late backward", 600, 10, launched_us=100, thread=AUTOGRAD_THREAD)
    trace.kernel("hooked", 700, 10, launched_us=155, thread=AUTOGRAD_THREAD)
    trace.kernel("afterwards", 800, 10, launched_us=200, thread=AUTOGRAD_THREAD)
    [read] = read_traces(trace.save(tmp_path / "trace.json"))
    assert phase_names(read) == {
        "late forward": "forward",
        "late backward": "backward",
        "hooked": "hook",
        "afterwards": None,
    }


def test_ids_that_several_processes_use_tell_nothing(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.annotation("step", 0, 100)
    trace.kernel("ours", 50, 10, launched_us=10)
    trace.kernel("whose", 60, 10, launched_us=20)
    other = dict(trace.events[-2], pid=9999)
    [read] = read_traces(save(tmp_path / "trace.json", [*trace.events, other]))
    assert phase_names(read) == {"ours": "step", "whose": None}
    assert read.notes == (
        "1 of 2 pieces of device work are in no phase: several processes use their correlation id",
    )


def test_work_without_ids_is_in_no_phase(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.annotation("step", 0, 100)
    trace.kernel("kernel", 50, 10)
    [read] = read_traces(trace.save(tmp_path / "trace.json"))
    assert phase_names(read) == {"kernel": None}
    assert read.notes == ("device work has no correlation ids: it is in no phase",)


def test_ranges_around_collectives_are_no_phases(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.annotation("step", 0, 100)
    trace.annotation("nccl:all_reduce", 10, 20)
    trace.kernel("ncclDevKernel_AllReduce", 50, 10, launched_us=15)
    [read] = read_traces(trace.save(tmp_path / "trace.json"))
    assert phase_names(read) == {"ncclDevKernel_AllReduce": "step"}
    assert len(read.phases) == 1
