"""The simulator: against an exact oracle, the published formula where it holds, known figures."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe.actions import Action, Kind, Placement, Schedule, ScheduleError
from dualpipe.report import break_even_overlap, peak_half_stages, published_bubble
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev, one_f_one_b, zbv
from dualpipe.simulate import Times, compare, simulate
from tests.oracles import pipeline

# Sums of sixteenths and their halves are exact in floating point, so results compare with ==.
sixteenths = st.integers(1, 64).map(lambda n: n / 16)


def widest_idle(schedule: Schedule, times: Times) -> float:
    timeline = simulate(schedule, times)
    return max(timeline.idle(rank) for rank in range(schedule.num_ranks))


@st.composite
def plays(draw: st.DrawFn) -> tuple[Schedule, Times]:
    """A small schedule with times that differ from stage to stage."""
    num_ranks = 2 * draw(st.integers(1, 2))
    num_microbatches = 2 * num_ranks + 2 * draw(st.integers(0, 2))
    schedule = SCHEDULES[draw(st.sampled_from(list(SCHEDULES)))](num_ranks, num_microbatches)
    per_stage = st.tuples(*[sixteenths] * schedule.num_stages)
    times = Times(
        draw(per_stage),
        draw(per_stage),
        draw(per_stage),
        draw(st.integers(8, 20)) / 16,
        draw(st.integers(0, 16)) / 16,
    )
    return schedule, times


@settings(max_examples=60)
@given(plays())
def test_every_span_memory_and_idle_time_equals_the_oracle(play: tuple[Schedule, Times]) -> None:
    schedule, times = play
    timeline = simulate(schedule, times)
    rows = [[str(step) for step in steps] for steps in schedule.ranks]
    exact = [
        [Fraction(value) for value in stages]
        for stages in (times.forward, times.input_grad, times.weight_grad)  # type: ignore[union-attr]
    ]
    shared = Fraction(times.overlap_factor), Fraction(times.communication)
    expected = pipeline.earliest_times(rows, pipeline.Durations(*exact, *shared))
    assert expected is not None
    assert [[(span.start, span.end) for span in row] for row in timeline.spans] == expected
    makespan = max(end for row in expected for _, end in row)
    assert timeline.makespan == makespan
    for rank, (row, spans) in enumerate(zip(rows, expected, strict=True)):
        assert timeline.idle(rank) == makespan - sum(end - start for start, end in spans)
        assert timeline.peak_memory(rank) == pipeline.peak_held(row, spans)
        assert timeline.memory(rank)[-1][1] == 0


def test_dualpipe_on_eight_ranks() -> None:
    timeline = simulate(dualpipe(8, 20), Times())
    assert timeline.makespan == 66
    assert [timeline.idle(rank) for rank in range(8)] == [6] * 8
    assert timeline.bubble == pytest.approx(6 / 66)


@pytest.mark.parametrize("num_stages", [2, 4, 6, 8, 16])
@pytest.mark.parametrize(("forward", "weight_grad"), [(1, 1), (1, 0.75), (2, 1)])
@pytest.mark.parametrize("overlap_factor", [1, 0.85, 0.7])
def test_published_bubble_is_exact_where_forward_equals_input_grad(
    num_stages: int, forward: float, weight_grad: float, overlap_factor: float
) -> None:
    times = Times(forward, forward, weight_grad, overlap_factor)
    bubble = published_bubble(num_stages, forward, forward, weight_grad, overlap_factor)
    folded = dualpipev(num_stages // 2, num_stages)
    for schedule in (dualpipe(num_stages, 2 * num_stages), folded):
        assert widest_idle(schedule, times) == pytest.approx(bubble, abs=1e-9)


@pytest.mark.parametrize(
    ("num_stages", "times", "bubble", "published"),
    [
        (8, Times(1, 1.2, 0.8), 7.2, 7.8),
        (8, Times(1, 1, 1.5), 6.0, 4.5),
        (8, Times(2, 1, 1), 12.0, 9.0),
        (8, Times(1, 0.8, 1.2, 0.7), 3.3, 1.5),
        (8, Times(1, 2, 1, 0.7), 8.6, 8.4),
        (16, Times(1, 1, 1.5), 14.0, 10.5),
        (16, Times(1, 1.63, 0.83, 1.0), 23.0, 24.0),
        (16, Times(1, 1.63, 0.83, 0.8), 18.2, 19.2),
        (16, Times(1, 1.63, 0.83, 0.7), 16.3, 16.7),
        (16, Times(1, 1.63, 0.83, 0.6), 18.7, 14.3),
    ],
)
def test_bubble_elsewhere(num_stages: int, times: Times, bubble: float, published: float) -> None:
    """Elsewhere the formula is too large or too small; the same for any number of micro-batches."""
    assert widest_idle(dualpipe(num_stages, 2 * num_stages), times) == pytest.approx(
        bubble, abs=0.05
    )
    parts = (times.forward, times.input_grad, times.weight_grad)
    formula = published_bubble(num_stages, *parts, times.overlap_factor)  # type: ignore[arg-type]
    assert formula == pytest.approx(published, abs=0.05)


def test_the_ranks_at_the_turn_idle_less_when_overlapping_gains() -> None:
    timeline = simulate(dualpipe(16, 32), Times(1, 1, 1, 2.5 / 3))
    idle = [timeline.idle(rank) for rank in range(16)]
    assert (min(idle), max(idle)) == (pytest.approx(7.5), pytest.approx(10.5))


@pytest.mark.parametrize(
    ("num_ranks", "num_microbatches", "overlap_factor", "expected"),
    [
        (4, 16, 1.0, {"1f1b": 114, "zbv": 99, "dualpipev": 102, "dualpipe": 100}),
        (4, 16, 0.8, {"1f1b": 114, "zbv": 99, "dualpipev": 86.4, "dualpipe": 85.6}),
        (8, 32, 1.0, {"1f1b": 234, "zbv": 199, "dualpipev": 206, "dualpipe": 204}),
        (8, 32, 0.8, {"1f1b": 234, "zbv": 199, "dualpipev": 173.6, "dualpipe": 172.8}),
        (16, 64, 1.0, {"1f1b": 474, "zbv": 399, "dualpipev": 414, "dualpipe": 412}),
        (16, 64, 0.8, {"1f1b": 474, "zbv": 399, "dualpipev": 348.0, "dualpipe": 347.2}),
    ],
)
def test_comparison_on_the_same_devices(
    num_ranks: int, num_microbatches: int, overlap_factor: float, expected: dict[str, float]
) -> None:
    times = Times(1, 1, 1, overlap_factor)
    timelines = compare(num_ranks, num_microbatches, times)
    spans = [timeline.makespan for timeline in timelines]
    assert spans == sorted(spans)
    found = {timeline.schedule.name: timeline.makespan for timeline in timelines}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for timeline in timelines:  # the same model: all of its work is done, whatever the schedule
        if overlap_factor == 1:
            assert timeline.makespan - timeline.idle(0) == pytest.approx(6 * num_microbatches)


def test_peak_activations_in_half_stages() -> None:
    peaks = {t.schedule.name: peak_half_stages(t) for t in compare(8, 32, Times())}
    assert peaks == {"1f1b": 16, "zb1p": 16, "zbv": 16, "dualpipev": 17, "dualpipe": 18}


@pytest.mark.parametrize(
    ("per_rank", "low", "high"), [(2, 0.89, 0.90), (4, 0.955, 0.962), (8, 0.975, 0.985)]
)
@pytest.mark.parametrize("num_ranks", [4, 8])
def test_break_even_with_zbv(num_ranks: int, per_rank: int, low: float, high: float) -> None:
    sizes = num_ranks, num_ranks * per_rank
    factor = break_even_overlap(*sizes, Times())
    assert low - 0.003 <= factor <= high + 0.003
    goal = simulate(zbv(*sizes), Times()).makespan

    def makespan(overlap_factor: float) -> float:
        return simulate(dualpipev(*sizes), Times(overlap_factor=overlap_factor)).makespan

    assert makespan(factor - 2e-4) <= goal < makespan(factor + 2e-4)


def test_break_even_at_the_ends() -> None:
    # One rank waits for nobody: no schedule is slower than another.
    assert break_even_overlap(1, 4, Times()) == 1


def test_compare_leaves_out_what_does_not_fit() -> None:
    assert {t.schedule.name for t in compare(3, 5, Times())} == {"1f1b", "zb1p"}
    assert {t.schedule.name for t in compare(3, 7, Times())} == set(SCHEDULES) - {"dualpipe"}
    assert compare(0, 5, Times()) == []


def test_compare_merges_two_halves_into_a_stage() -> None:
    halves = Times((1, 2, 3, 4), (1, 1, 1, 2), 0.5, 0.9, 0.25)
    merged = Times((3, 7), (2, 3), 1.0, 0.9, 0.25)
    assert halves.merged() == merged
    found = {t.schedule.name: t for t in compare(2, 4, halves)}
    assert found["dualpipe"].spans == simulate(dualpipe(2, 4), merged).spans
    assert found["dualpipev"].spans == simulate(dualpipev(2, 4), halves).spans


def test_what_ends_is_freed_before_what_begins() -> None:
    timeline = simulate(one_f_one_b(1, 3), Times())
    assert timeline.memory(0) == [(0, 1), (3, 0), (3, 1), (6, 0), (6, 1), (9, 0)]
    assert timeline.peak_memory(0) == 1


def test_communication_delays_only_what_crosses_ranks() -> None:
    alone = simulate(dualpipev(1, 4), Times(communication=100))
    assert alone.makespan == simulate(dualpipev(1, 4), Times()).makespan
    two = simulate(one_f_one_b(2, 2), Times(communication=10))
    assert [(span.start, span.end) for span in two.spans[1]][:2] == [(11, 12), (12, 14)]
    assert two.spans[0][2].start == 24


def test_deadlock_names_the_rank_that_waits() -> None:
    backward, forward = Action(0, Kind.BACKWARD, 0), Action(0, Kind.FORWARD, 0)
    schedule = Schedule("backwards", Placement.LINEAR, 1, ((backward, forward),))
    with pytest.raises(ScheduleError) as error:
        simulate(schedule, Times())
    assert str(error.value) == ("simulate: backwards deadlocks\nrank 0: 0B0 <-- waits for ever 0F0")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *product(["forward", "input_grad", "weight_grad"], [0, -1.0, float("nan"), (1.0, -2.0)]),
        *product(["overlap_factor"], [0, -0.5, float("inf")]),
    ],
)
def test_times_must_be_positive(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"Times: {field} must be positive and finite, got"):
        replace(Times(), **{field: value})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_communication_may_be_zero_but_not_less(value: float) -> None:
    with pytest.raises(ValueError, match="Times: communication must be 0 or more and finite"):
        Times(communication=value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("forward", "1"),
        ("forward", True),
        ("forward", [1.0, 2.0]),
        ("weight_grad", (1.0, None)),
        ("overlap_factor", (1.0, 1.0)),
        ("communication", None),
    ],
)
def test_times_must_be_numbers(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"Times: {field} must hold numbers, got"):
        replace(Times(), **{field: value})


@pytest.mark.parametrize("length", [0, 3, 5])
def test_one_time_per_stage(length: int) -> None:
    with pytest.raises(ValueError, match=f"forward must have one entry per stage, 4, got {length}"):
        simulate(one_f_one_b(4, 4), Times(forward=(1.0,) * length))
