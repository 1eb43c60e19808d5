"""The proof of a schedule: accepts all that are sound, names the step of those that are not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe.actions import (
    Action,
    Kind,
    Overlap,
    Placement,
    Schedule,
    ScheduleError,
    Step,
    actions_of,
    parse_step,
)
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev, one_f_one_b, zb1p, zbv
from dualpipe.validate import validate
from tests.oracles import pipeline

# Every size up to 8 ranks, then the ends and the middle; the whole sweep is marked slow.
QUICK = [
    (num_ranks, num_microbatches)
    for num_ranks in range(1, 17)
    for num_microbatches in range(2 * num_ranks, 4 * num_ranks + 1)
    if num_ranks <= 6 or num_microbatches in (2 * num_ranks, 3 * num_ranks, 4 * num_ranks)
]


def check_peaks(num_ranks: int, num_microbatches: int) -> None:
    if num_ranks % 2 == 0 and num_microbatches % 2 == 0:
        assert validate(dualpipe(num_ranks, num_microbatches)) == [num_ranks + 1] * num_ranks
    assert validate(dualpipev(num_ranks, num_microbatches)) == [2 * num_ranks + 1] * num_ranks


@pytest.mark.parametrize("num_ranks", range(1, 17))
def test_dualpipe_is_sound_and_holds_one_activation_more_than_stages(num_ranks: int) -> None:
    for size in QUICK:
        if size[0] == num_ranks:
            check_peaks(*size)


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", range(7, 17))
def test_dualpipe_is_sound_for_every_size(num_ranks: int) -> None:
    for num_microbatches in range(2 * num_ranks, 4 * num_ranks + 1):
        check_peaks(num_ranks, num_microbatches)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 8])
def test_the_other_schedules_are_sound(num_ranks: int) -> None:
    for num_microbatches in range(2 * num_ranks, 4 * num_ranks + 1):
        in_flight = [num_ranks - rank for rank in range(num_ranks)]
        assert validate(one_f_one_b(num_ranks, num_microbatches)) == in_flight
        assert max(validate(zb1p(num_ranks, num_microbatches))) == num_ranks
        assert max(validate(zbv(num_ranks, num_microbatches))) == 2 * num_ranks


def test_few_microbatches() -> None:
    assert validate(one_f_one_b(1, 1)) == [1]
    assert validate(one_f_one_b(4, 4)) == [4, 3, 2, 1]
    assert validate(zb1p(4, 4)) == [4, 4, 4, 4]


# Mutations. `validate` and the oracle share no code; they must agree on every mutant.

small = st.builds(
    lambda name, sizes: SCHEDULES[name](*sizes),
    st.sampled_from(list(SCHEDULES)),
    st.sampled_from([(2, 4), (2, 6), (4, 8)]),
)


def drop(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    del rows[rank][index]


def duplicate(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    rows[rank].insert(draw(st.integers(0, len(rows[rank]))), rows[rank][index])


def swap(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    other = draw(st.integers(0, len(rows[rank]) - 1))
    rows[rank][index], rows[rank][other] = rows[rank][other], rows[rank][index]


def move(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    target = draw(st.integers(0, len(rows) - 1))
    step = rows[rank].pop(index)
    rows[target].insert(draw(st.integers(0, len(rows[target]))), step)


def rename(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    """Another stage, kind or micro-batch, also ones that do not exist."""
    step = rows[rank][index]
    old = draw(st.sampled_from(actions_of(step)))
    field, values = draw(
        st.sampled_from(
            [
                ("stage", st.integers(0, 9)),
                ("kind", st.sampled_from(Kind)),
                ("microbatch", st.integers(0, 9)),
            ]
        )
    )
    new = replace(old, **{field: draw(values)})
    if isinstance(step, Action):
        rows[rank][index] = new
    else:
        rows[rank][index] = Overlap(*(new if part == old else part for part in actions_of(step)))


def pull_apart(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    """An overlapped pair becomes two steps, in either order."""
    rows[rank][index : index + 1] = draw(st.permutations(actions_of(rows[rank][index])))


def pair(draw: st.DrawFn, rows: list[list[Step]], rank: int, index: int) -> None:
    """Two neighbouring steps become an overlapped pair, which may wait for itself."""
    two = rows[rank][index : index + 2]
    if len(two) == 2 and all(isinstance(step, Action) for step in two):
        rows[rank][index : index + 2] = [Overlap(*two)]  # type: ignore[arg-type]


MUTATIONS = [drop, duplicate, swap, move, rename, pull_apart, pair]


@st.composite
def mutants(draw: st.DrawFn) -> Schedule:
    schedule = draw(small)
    rows = [list(steps) for steps in schedule.ranks]
    for _ in range(draw(st.integers(1, 2))):
        rank = draw(st.sampled_from([rank for rank, row in enumerate(rows) if row]))
        index = draw(st.integers(0, len(rows[rank]) - 1))
        draw(st.sampled_from(MUTATIONS))(draw, rows, rank, index)
    return replace(schedule, ranks=tuple(map(tuple, rows)))


@settings(max_examples=250)
@given(mutants())
def test_mutants_are_refused_exactly_if_they_are_wrong(mutant: Schedule) -> None:
    rows = [[str(step) for step in steps] for steps in mutant.ranks]
    sizes = mutant.num_stages, mutant.num_microbatches
    try:
        validate(mutant)
    except ScheduleError:
        assert not pipeline.is_valid(rows, mutant.placement, *sizes)
    else:
        assert pipeline.is_valid(rows, mutant.placement, *sizes)


def by_hand(*rows: str, num_microbatches: int = 1, placement: Placement = Placement.LINEAR) -> str:
    """The first line of what `validate` says against a schedule written by hand."""
    ranks = tuple(tuple(parse_step(text) for text in row.split()) for row in rows)
    schedule = Schedule("mine", placement, num_microbatches, ranks)
    with pytest.raises(ScheduleError) as error:
        validate(schedule)
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0B0 0F0", "rank 0, step 0: 0B0 must not come after nothing"),
        ("0F0 0F0 0B0", "rank 0, step 1: 0F0 must not come after F"),
        ("0F0 0W0 0I0", "rank 0, step 1: 0W0 must not come after F"),
        ("0F0 0B0 0W0", "rank 0, step 2: 0W0 must not come after FB"),
        ("0F0 0I0 0B0", "rank 0, step 2: 0B0 must not come after FI"),
        ("1F0 1B0", "rank 0, step 0: 1F0 belongs to another rank"),
        ("0F0", "stage 0 needs one F and one B or I + W of 0, has 1 F, 0 B, 0 I, 0 W"),
        ("0F0 0I0", "stage 0 needs one F and one B or I + W of 0, has 1 F, 0 B, 1 I, 0 W"),
        ("0F0 0B0 0F1 0B1", "there is no 0F1"),
        ("(0F0;0B0)OVERLAP_F_B", "simulate: mine deadlocks"),
        ("(0F0;0I0)OVERLAP_F_B", "(0F0;0I0)OVERLAP_F_B must be an F and a B"),
        ("(0B0;0F0)OVERLAP_F_B", "(0B0;0F0)OVERLAP_F_B must be an F and a B"),
    ],
)
def test_messages(row: str, message: str) -> None:
    assert by_hand(row).endswith(message)


def test_ranks_that_wait_for_each_other() -> None:
    """Each order is right by itself, but rank 0 wants a gradient before it lets rank 1 begin."""
    message = by_hand("0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1", num_microbatches=2)
    assert message == "simulate: mine deadlocks"


def test_the_grid_points_at_the_step() -> None:
    broken = replace(one_f_one_b(2, 2), ranks=(one_f_one_b(2, 2).ranks[0], (parse_step("1B0"),)))
    with pytest.raises(ScheduleError) as error:
        validate(broken)
    assert str(error.value) == (
        "validate: 1f1b: rank 1, step 0: 1B0 must not come after nothing\n"
        "rank 0: 0F0 0F1 0B0 0B1\n"
        "rank 1: 1B0 <-- 1B0 must not come after nothing"
    )
