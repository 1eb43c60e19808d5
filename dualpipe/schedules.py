"""Pipeline schedules as data: pure functions from sizes to the list of actions per rank.

DualPipe and DualPipeV follow the eight phases of the DeepSeek-V3 report (section 3.2.1) and of
the public DualPipe project; 1F1B is from PipeDream-Flush (Narayanan et al. 2021), ZB1P (there
ZB-H1) from Zero Bubble Pipeline Parallelism (Qi et al. 2023), ZBV from Pipeline Parallelism with
Controllable Memory (Qi et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dualpipe.actions import (
    Action,
    Kind,
    Overlap,
    Placement,
    Schedule,
    ScheduleError,
    Step,
    actions_of,
)


class _RankBuilder:
    """Appends steps for one rank that holds two chunks and counts the micro-batches of each."""

    def __init__(self, stages: tuple[int, int], first_microbatches: tuple[int, int]) -> None:
        self.steps: list[Step] = []
        self._stages = stages
        self._next = {kind: list(first_microbatches) for kind in (Kind.FORWARD, Kind.BACKWARD)}
        self._owed_weights: list[Action] = []

    def _take(self, kind: Kind, chunk: int) -> Action:
        counters = self._next[Kind.FORWARD if kind is Kind.FORWARD else Kind.BACKWARD]
        counters[chunk] += 1
        return Action(self._stages[chunk], kind, counters[chunk] - 1)

    def forward(self, chunk: int) -> None:
        self.steps.append(self._take(Kind.FORWARD, chunk))

    def backward(self, chunk: int) -> None:
        self.steps.append(self._take(Kind.BACKWARD, chunk))

    def input_grad(self, chunk: int) -> None:
        action = self._take(Kind.INPUT_GRAD, chunk)
        self.steps.append(action)
        self._owed_weights.append(Action(action.stage, Kind.WEIGHT_GRAD, action.microbatch))

    def weight_grad(self, chunk: int | None = None) -> None:
        """The oldest weight gradient still owed: of one chunk, or of either one."""
        stages = self._stages if chunk is None else (self._stages[chunk],)
        oldest = next(action for action in self._owed_weights if action.stage in stages)
        self._owed_weights.remove(oldest)
        self.steps.append(oldest)

    def overlap(self, forward_chunk: int, backward_chunk: int) -> None:
        forward = self._take(Kind.FORWARD, forward_chunk)
        self.steps.append(Overlap(forward, self._take(Kind.BACKWARD, backward_chunk)))


def _eight_phases(
    rank: _RankBuilder, depth: int, num_depths: int, num_microbatches: int, *, overlap_first: bool
) -> None:
    """DualPipe's order for one rank.

    Args:
        rank: the builder; chunk 0 is the one whose micro-batches reach this rank first.
        depth: 0 for the rank where chunk 0 enters the pipeline, num_depths - 1 for the turn.
        num_depths: ranks between entry and turn.
        num_microbatches: per chunk.
        overlap_first: whether the first pair of the main phase is overlapped; on the rank at the
            turn it is not, since its backward would wait for a forward that another rank delays.
    """
    before_turn = num_depths - depth - 1
    for _ in range(2 * before_turn):
        rank.forward(0)
    for _ in range(depth + 1):
        rank.forward(0)
        rank.forward(1)
    for _ in range(before_turn):
        rank.input_grad(1)
        rank.weight_grad()
        rank.forward(1)
    for index in range(num_microbatches - 2 * num_depths + depth + 1):
        if index == 0 and not overlap_first:
            rank.forward(0)
            rank.backward(1)
        else:
            rank.overlap(0, 1)
        rank.overlap(1, 0)
    for _ in range(before_turn):
        rank.backward(1)
        rank.overlap(1, 0)
    # From the middle of this phase on, weights wait so that inputs' gradients leave earlier.
    for index in range(2 * (depth + 1)):
        chunk = 1 - index % 2
        if index <= depth:
            rank.backward(chunk)
        else:
            rank.input_grad(chunk)
    for _ in range(before_turn):
        rank.weight_grad()
        rank.input_grad(0)
    for _ in range(depth + 1):
        rank.weight_grad()


def dualpipe(num_ranks: int, num_microbatches: int) -> Schedule:
    """DualPipe: both ends feed micro-batches, each rank holds copies of stages r and N-1-r.

    Args:
        num_ranks: N, even; also the number of stages.
        num_microbatches: of both directions together; even and at least 2N.
    """
    _check_count("dualpipe", "num_ranks", num_ranks, at_least=2, multiple_of=2)
    _check_count(
        "dualpipe", "num_microbatches", num_microbatches, at_least=2 * num_ranks, multiple_of=2
    )
    per_direction = num_microbatches // 2
    ranks = []
    for rank in range(num_ranks):
        mirrored = num_ranks - 1 - rank
        stages, first = (rank, mirrored), (0, per_direction)
        if rank > mirrored:  # the second half of the ranks sees the other direction first
            stages, first = stages[::-1], first[::-1]
        builder = _RankBuilder(stages, first)
        depth = min(rank, mirrored)
        num_depths = num_ranks // 2
        is_turn = depth == num_depths - 1
        _eight_phases(builder, depth, num_depths, per_direction, overlap_first=not is_turn)
        ranks.append(tuple(builder.steps))
    return Schedule("dualpipe", Placement.BIDIRECTIONAL, num_microbatches, tuple(ranks))


def dualpipev(num_ranks: int, num_microbatches: int) -> Schedule:
    """DualPipeV: half of DualPipe, folded: 2N stages on N ranks, all micro-batches enter at rank 0.

    Args:
        num_ranks: N, at least 1; the model is cut into 2N stages.
        num_microbatches: at least 2N.
    """
    _check_count("dualpipev", "num_ranks", num_ranks, at_least=1)
    _check_count("dualpipev", "num_microbatches", num_microbatches, at_least=2 * num_ranks)
    ranks = []
    for rank in range(num_ranks):
        builder = _RankBuilder((rank, 2 * num_ranks - 1 - rank), (0, 0))
        is_turn = rank == num_ranks - 1
        _eight_phases(builder, rank, num_ranks, num_microbatches, overlap_first=not is_turn)
        ranks.append(tuple(builder.steps))
    return Schedule("dualpipev", Placement.V_SHAPE, num_microbatches, tuple(ranks))


def one_f_one_b(num_ranks: int, num_microbatches: int) -> Schedule:
    """1F1B: as many forwards as there are ranks behind, then one forward, one backward."""

    def backward(rank: int, microbatch: int) -> list[Step]:
        return [Action(rank, Kind.BACKWARD, microbatch)]

    return _one_forward_one_backward("1f1b", num_ranks, num_microbatches, backward)


def zb1p(num_ranks: int, num_microbatches: int) -> Schedule:
    """ZB1P: 1F1B with rank r's weight gradients r micro-batches late, so they fill the bubble."""

    def backward(rank: int, microbatch: int) -> list[Step]:
        steps: list[Step] = [Action(rank, Kind.INPUT_GRAD, microbatch)]
        last = microbatch == num_microbatches - 1
        due = range(max(0, microbatch - rank), num_microbatches if last else microbatch - rank + 1)
        return steps + [Action(rank, Kind.WEIGHT_GRAD, i) for i in due]

    return _one_forward_one_backward("zb1p", num_ranks, num_microbatches, backward)


def _one_forward_one_backward(
    name: str,
    num_ranks: int,
    num_microbatches: int,
    backward: Callable[[int, int], list[Step]],
) -> Schedule:
    _check_count(name, "num_ranks", num_ranks, at_least=1)
    _check_count(name, "num_microbatches", num_microbatches, at_least=num_ranks)
    ranks = []
    for rank in range(num_ranks):
        warm_up = num_ranks - 1 - rank
        steps: list[Step] = [Action(rank, Kind.FORWARD, i) for i in range(warm_up)]
        for i in range(num_microbatches):
            if warm_up + i < num_microbatches:
                steps.append(Action(rank, Kind.FORWARD, warm_up + i))
            steps += backward(rank, i)
        ranks.append(tuple(steps))
    return Schedule(name, Placement.LINEAR, num_microbatches, tuple(ranks))


def zbv(num_ranks: int, num_microbatches: int) -> Schedule:
    """ZBV: two chunks per rank in a V; without bubble in the middle when F = I = W."""
    _check_count("zbv", "num_ranks", num_ranks, at_least=1)
    _check_count("zbv", "num_microbatches", num_microbatches, at_least=2 * num_ranks)
    ranks = []
    for rank in range(num_ranks):
        builder = _RankBuilder((rank, 2 * num_ranks - 1 - rank), (0, 0))
        _zbv_order(builder, rank, num_ranks, num_microbatches)
        ranks.append(tuple(builder.steps))
    return Schedule("zbv", Placement.V_SHAPE, num_microbatches, tuple(ranks))


def _zbv_order(rank: _RankBuilder, depth: int, num_ranks: int, num_microbatches: int) -> None:
    to_turn = num_ranks - depth
    for _ in range(2 * to_turn - 1):
        rank.forward(0)
    for _ in range(depth):
        rank.forward(1)
        rank.forward(0)
    for _ in range(to_turn):
        rank.forward(1)
        rank.input_grad(1)
        rank.weight_grad()
    forwards_left = num_microbatches - (2 * to_turn - 1) - depth
    for index in range(num_microbatches - num_ranks):
        if index < forwards_left:
            rank.forward(0)
        rank.input_grad(0)
        rank.weight_grad()
        rank.forward(1)
        rank.input_grad(1)
        rank.weight_grad()
    for _ in range(depth):
        rank.input_grad(0)
        rank.input_grad(1)
    for _ in range(to_turn):
        rank.input_grad(0)
        rank.weight_grad(0)
    for chunk in (1, 0):
        for _ in range(depth):
            rank.weight_grad(chunk)


def forward_only(schedule: Schedule) -> Schedule:
    """The same order with the forwards alone, for evaluation."""
    ranks = tuple(
        tuple(a for step in steps for a in actions_of(step) if a.kind is Kind.FORWARD)
        for steps in schedule.ranks
    )
    return replace(schedule, ranks=ranks)


def _check_count(op: str, name: str, value: int, *, at_least: int, multiple_of: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: {name} must be an int, got {value!r}")
    if value < at_least or value % multiple_of:
        even = "an even number, " if multiple_of == 2 else ""
        raise ScheduleError(f"{op}: {name} must be {even}at least {at_least}, got {value}")


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {
    "dualpipe": dualpipe,
    "dualpipev": dualpipev,
    "1f1b": one_f_one_b,
    "zb1p": zb1p,
    "zbv": zbv,
}
