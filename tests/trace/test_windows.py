"""Windows: communication that goes on between a kernel that sends and one that receives."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace.analysis import analyse
from benchmarks.trace.model import Kind
from benchmarks.trace.rules import Role, Rule, classify
from benchmarks.trace.windows import find_windows
from tests.trace.built import Piece, trace_of

DISPATCH = "void deep_ep::internode_ll::dispatch<true, 3, 10, 7168>(void*)"
COMBINE = "void deep_ep::internode_ll::combine<3, 10, 7168>(void*)"
ATTENTION = "void flash::flash_fwd_splitkv_mla_kernel<576>(Params)"
EXPERTS = "void deep_gemm::fp8_gemm_kernel<7168>(Params)"

# Two micro-batches of one layer, A and B, on one stream: each one's data travels while the other
# computes. The attention of B is shorter than A's dispatch, so that A's receive has to wait.
DECODE: list[Piece] = [
    (ATTENTION, 0, 100),  # A
    (DISPATCH, 100, 110),  # A sends
    (ATTENTION, 110, 200),  # B
    (DISPATCH, 200, 220),  # A receives
    (DISPATCH, 220, 230),  # B sends
    (EXPERTS, 230, 300),  # A
    (COMBINE, 300, 305),  # A sends
    (DISPATCH, 310, 315),  # B receives
    (EXPERTS, 315, 395),  # B
    (COMBINE, 400, 420),  # A receives
    (COMBINE, 420, 425),  # B sends
    (ATTENTION, 425, 500),  # A, next layer
    (COMBINE, 500, 510),  # B receives
    (ATTENTION, 510, 600),  # B, next layer
]


def test_decode_on_one_stream() -> None:
    analysis = analyse(trace_of(DECODE))
    pairs = list(
        zip(analysis.windows.send.tolist(), analysis.windows.receive.tolist(), strict=True)
    )
    assert pairs == [(1, 3), (4, 7), (6, 9), (10, 12)]
    combine, dispatch = sorted(analysis.window_rows, key=lambda row: row.operation)
    # Windows 110-200 and 230-310: attention 90, experts 70, a combine 5, nothing 5.
    assert (dispatch.count, dispatch.window_us, dispatch.hidden_us) == (2, 170, 160)
    assert (dispatch.receive_us, dispatch.exposed_us) == (25, 10 + 25)
    assert (dispatch.p50_us, dispatch.p90_us) == (80, 90)
    # Windows 305-400 and 425-500: 80 of experts and 75 of attention.
    assert (combine.count, combine.window_us, combine.hidden_us) == (2, 170, 155)
    assert (combine.receive_us, combine.exposed_us) == (30, 15 + 30)
    assert (combine.p50_us, combine.p90_us) == (75, 95)


def test_windows_count_as_communication() -> None:
    analysis = analyse(trace_of(DECODE))
    figures = analysis.figures
    # Without windows, nothing of this would be hidden: one stream runs one kernel at a time.
    assert figures.span_us == 600
    assert figures.compute_us == 100 + 90 + 70 + 80 + 75 + 90
    assert figures.hidden_us == 90 + 70 + 80 + 75
    # From the first send to the last receive, something is always under way.
    assert figures.communication_us == 510 - 100
    assert figures.exposed_us == 410 - 315
    assert figures.idle_us == 0
    assert figures.waiting_us == 20 + 5 + 20 + 10
    assert any("4 windows" in note for note in analysis.notes)
    assert any("taken in turns" in note for note in analysis.notes)
    receives = analysis.kinds[analysis.windows.receive].tolist()
    assert receives == [Kind.WAITING] * 4
    rows = {row.operation: (row.count, row.communication_us) for row in analysis.operation_rows}
    assert rows == {"dispatch": (4, 215), "combine": (4, 210)}


def test_an_open_window_is_what_communicates_in_a_gap() -> None:
    (gap, *_) = analyse(trace_of([(DISPATCH, 0, 1), (DISPATCH, 50, 51), (EXPERTS, 51, 60)])).gaps
    assert (gap.begin_us, gap.end_us, gap.exposed_us) == (0, 51, 51)
    assert (gap.communicator, gap.waiter) == (0, 2)


def test_an_odd_one_is_reported() -> None:
    analysis = analyse(trace_of([*DECODE, (DISPATCH, 600, 610)]))
    assert analysis.windows.unpaired.tolist() == [14]
    assert any("1 sending or receiving kernels have no partner" in note for note in analysis.notes)
    assert len(analysis.windows.send) == 4


def test_streams_and_operations_are_paired_apart() -> None:
    trace = trace_of(
        [
            (DISPATCH, 0, 1, "stream 1"),
            (DISPATCH, 1, 2, "stream 2"),
            (COMBINE, 2, 3, "stream 1"),
            (DISPATCH, 4, 5, "stream 2"),
            (DISPATCH, 6, 7, "stream 1"),
        ]
    )
    windows = find_windows(trace.work, classify(trace))
    assert windows.send.tolist() == [0, 1]
    assert windows.receive.tolist() == [4, 3]
    assert windows.unpaired.tolist() == [2]


RULES = [
    Rule(re.compile("^put"), Kind.PAYLOAD, "exchange", Role.SEND),
    Rule(re.compile("^take"), Kind.PAYLOAD, "exchange", Role.RECEIVE),
]


@given(st.lists(st.sampled_from(["put", "take"]), max_size=12))
def test_rules_with_roles_pair_first_in_first_out(names: list[str]) -> None:
    trace = trace_of([(name, 10 * index, 10 * index + 1) for index, name in enumerate(names)])
    windows = find_windows(trace.work, classify(trace, RULES))
    open_sends: list[int] = []
    pairs, lonely = [], []
    for index, name in enumerate(names):
        if name == "put":
            open_sends.append(index)
        elif open_sends:
            pairs.append((open_sends.pop(0), index))
        else:
            lonely.append(index)
    assert list(zip(windows.send.tolist(), windows.receive.tolist(), strict=True)) == pairs
    assert windows.unpaired.tolist() == sorted(lonely + open_sends)
    assert not windows.guessed


def test_a_rule_without_a_role_says_that_one_kernel_does_both() -> None:
    rules = [Rule(re.compile("internode_ll"), Kind.PAYLOAD)]
    analysis = analyse(trace_of(DECODE), rules)
    assert len(analysis.windows.send) == 0
    assert analysis.window_rows == ()
    assert analysis.figures.hidden_us == 0
    assert analysis.notes == ()


def test_overlapping_kernels_leave_a_window_without_length() -> None:
    trace = trace_of([("put", 0, 10), ("take", 5, 12)])
    analysis = analyse(trace, RULES)
    (row,) = analysis.window_rows
    assert (row.count, row.window_us, row.receive_us, row.exposed_us) == (1, 0, 7, 7)
    assert row.p50_us == 0
    assert analysis.figures.communication_us == pytest.approx(12)
