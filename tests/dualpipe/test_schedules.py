"""The orders: equal to torch's where torch has them, to golden files, to each other by symmetry."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.pipelining import _schedule_visualizer as torch_schedules

from dualpipe.actions import (
    Action,
    Kind,
    Overlap,
    Schedule,
    ScheduleError,
    Step,
    actions_of,
    parse_step,
    phase_name,
)
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev, one_f_one_b, zb1p, zbv
from tests.strategies import schedule_sizes

GOLDEN = Path(__file__).parent / "golden"
Builder = Callable[[int, int], Schedule]


def texts(schedule: Schedule) -> list[list[str]]:
    return [[str(step) for step in steps] for steps in schedule.ranks]


def torch_order(name: str, num_ranks: int, num_microbatches: int) -> list[list[str]]:
    rows = torch_schedules.get_schedule_ops(name, num_ranks, num_microbatches)
    names = [[str(action) for action in row if action is not None] for row in rows]
    return [[name for name in row if "REDUCE_GRAD" not in name] for row in names]


@pytest.mark.parametrize("num_ranks", range(2, 9))
@pytest.mark.parametrize(
    ("name", "build"), [("DualPipeV", dualpipev), ("ZBVZeroBubble", zbv)], ids=["dualpipev", "zbv"]
)
def test_folded_orders_equal_those_of_torch(name: str, build: Builder, num_ranks: int) -> None:
    for num_microbatches in range(2 * num_ranks, 6 * num_ranks):
        ours = texts(build(num_ranks, num_microbatches))
        assert ours == torch_order(name, num_ranks, num_microbatches), num_microbatches


@pytest.mark.parametrize("num_ranks", range(2, 7))
def test_1f1b_equals_that_of_torch(num_ranks: int) -> None:
    for num_microbatches in range(num_ranks, 3 * num_ranks):
        theirs = torch_order("1F1B", num_ranks, num_microbatches)
        ours = texts(one_f_one_b(num_ranks, num_microbatches))
        assert ours[:-1] == theirs[:-1]
        # On the last rank torch's generator counts forwards from 1, so only the kinds compare.
        kinds = [[parse_step(text).kind for text in row[-1]] for row in (ours, theirs)]  # type: ignore[union-attr]
        assert kinds[0] == kinds[1]


@given(schedule_sizes(max_ranks=12))
def test_dualpipe_is_dualpipev_unfolded(sizes: tuple[int, int]) -> None:
    """The first half of the ranks does what DualPipeV's do, the second half mirrors it."""
    num_ranks, num_microbatches = sizes
    per_direction = num_microbatches // 2
    unfolded, folded = dualpipe(*sizes), dualpipev(num_ranks // 2, per_direction)

    def as_folded(action: Action, rank: int) -> Action:
        """DualPipeV knows one direction: there the stage tells how far a micro-batch has come."""
        depth = min(rank, num_ranks - 1 - rank)
        entered_near = (action.microbatch < per_direction) == (rank < num_ranks // 2)
        stage = depth if entered_near else num_ranks - 1 - depth
        assert action.stage == stage
        return Action(stage, action.kind, action.microbatch % per_direction)

    for rank, steps in enumerate(unfolded.ranks):
        mapped = [[as_folded(action, rank) for action in actions_of(step)] for step in steps]
        expected = folded.ranks[min(rank, num_ranks - 1 - rank)]
        assert mapped == [list(actions_of(step)) for step in expected]
        assert [type(step) for step in steps] == [type(step) for step in expected]


@pytest.mark.parametrize(
    ("schedule", "file"),
    [
        (dualpipe(8, 20), "dualpipe_8_20.txt"),
        (dualpipev(4, 10), "dualpipev_4_10.txt"),
        (zb1p(4, 6), "zb1p_4_6.txt"),
    ],
    ids=["dualpipe", "dualpipev", "zb1p"],
)
def test_golden_grid(schedule: Schedule, file: str) -> None:
    expected = (GOLDEN / file).read_text()
    assert (schedule.grid() + "\n").splitlines() == expected.splitlines()


@pytest.mark.parametrize("schedule", [dualpipe(8, 20), dualpipev(4, 10)], ids=lambda s: s.name)
def test_counts_of_steps_per_rank(schedule: Schedule) -> None:
    """As in the public DualPipe's own run of these sizes."""

    def counts(steps: tuple[Step, ...]) -> Counter[str]:
        return Counter("FB" if isinstance(step, Overlap) else str(step.kind) for step in steps)

    assert counts(schedule.ranks[0]) == {"F": 11, "FB": 9, "B": 4, "I": 7, "W": 7}
    assert counts(schedule.ranks[3]) == {"F": 9, "FB": 11, "B": 5, "I": 4, "W": 4}


@pytest.mark.parametrize("build", [dualpipe, dualpipev, zb1p], ids=lambda build: build.__name__)
def test_weight_gradients_run_in_the_order_in_which_they_became_due(build: Builder) -> None:
    for steps in build(6, 16).ranks:
        alone = [step for step in steps if isinstance(step, Action)]
        due = [(a.stage, a.microbatch) for a in alone if a.kind is Kind.INPUT_GRAD]
        done = [(a.stage, a.microbatch) for a in alone if a.kind is Kind.WEIGHT_GRAD]
        assert done == due


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("dualpipe", (0, 20), "dualpipe: num_ranks must be an even number, at least 2, got 0"),
        ("dualpipe", (7, 20), "dualpipe: num_ranks must be an even number, at least 2, got 7"),
        ("dualpipe", (4, 6), "num_microbatches must be an even number, at least 8, got 6"),
        ("dualpipe", (4, 9), "num_microbatches must be an even number, at least 8, got 9"),
        ("dualpipev", (0, 2), "dualpipev: num_ranks must be at least 1, got 0"),
        ("dualpipev", (4, 7), "dualpipev: num_microbatches must be at least 8, got 7"),
        ("1f1b", (4, 3), "1f1b: num_microbatches must be at least 4, got 3"),
        ("1f1b", (-1, 3), "1f1b: num_ranks must be at least 1, got -1"),
        ("zb1p", (4, 3), "zb1p: num_microbatches must be at least 4, got 3"),
        ("zbv", (4, 7), "zbv: num_microbatches must be at least 8, got 7"),
    ],
)
def test_impossible_sizes(name: str, sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ScheduleError) as error:
        SCHEDULES[name](*sizes)
    assert message in str(error.value)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("value", [8.0, "8", True, None])
def test_sizes_must_be_ints(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name}: num_ranks must be an int, got"):
        SCHEDULES[name](value, 16)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{name}: num_microbatches must be an int, got"):
        SCHEDULES[name](2, value)  # type: ignore[arg-type]


actions = st.builds(Action, st.integers(0, 99), st.sampled_from(Kind), st.integers(0, 999))
overlaps = st.builds(Overlap, actions, actions)


@given(actions | overlaps)
def test_parse_step_is_the_inverse_of_str(step: Step) -> None:
    assert parse_step(str(step)) == step
    assert phase_name(step) == f"PP:{step}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2F",
        "F0",
        "2X0",
        "2F0 ",
        "-1F0",
        "2f0",
        "(0F7;7B3)",
        "(0F7)OVERLAP_F_B",
        "((0F1;1B0)OVERLAP_F_B;7B3)OVERLAP_F_B",
    ],
)
def test_parse_step_rejects(text: str) -> None:
    with pytest.raises(ScheduleError, match="parse_step: text must be like '2F0'"):
        parse_step(text)
