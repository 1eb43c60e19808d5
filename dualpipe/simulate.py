"""Plays a schedule with given times: who works when, who idles, what is kept in memory.

The model: a step starts when its rank is free and its inputs have arrived; every transfer between
two ranks takes the same time and occupies neither. That is the best a runtime can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

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
from dualpipe.schedules import SCHEDULES

PerStage = float | tuple[float, ...]
STAGE_FIELDS = ("forward", "input_grad", "weight_grad")  # of Times: these may differ by stage


@dataclass(frozen=True, slots=True)
class Times:
    """Durations in any one unit; a number holds for every stage, a tuple gives one per stage.

    Attributes:
        forward: F of one micro-batch.
        input_grad: I, the part of the backward that the previous stage waits for.
        weight_grad: W, the rest of the backward; a full backward takes I + W.
        overlap_factor: time of an overlapped forward and backward, as a share of F + I + W;
            1 means that overlapping gains nothing.
        communication: one transfer between two ranks.
    """

    forward: PerStage = 1.0
    input_grad: PerStage = 1.0
    weight_grad: PerStage = 1.0
    overlap_factor: float = 1.0
    communication: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            per_stage = field.name in STAGE_FIELDS and isinstance(value, tuple)
            values = value if per_stage else (value,)
            for number in values:
                if isinstance(number, bool) or not isinstance(number, int | float):
                    raise TypeError(f"Times: {field.name} must hold numbers, got {number!r}")
                smallest_ok = number >= 0 if field.name == "communication" else number > 0
                if not (smallest_ok and math.isfinite(number)):
                    rule = "0 or more" if field.name == "communication" else "positive"
                    raise ValueError(f"Times: {field.name} must be {rule} and finite, got {number}")

    def of(self, step: Step) -> float:
        """How long a step takes."""
        total = sum(self._of_action(action) for action in actions_of(step))
        return total * self.overlap_factor if isinstance(step, Overlap) else total

    def _of_action(self, action: Action) -> float:
        if action.kind is Kind.BACKWARD:
            return _at(self.input_grad, action.stage) + _at(self.weight_grad, action.stage)
        by_kind = {
            Kind.FORWARD: self.forward,
            Kind.INPUT_GRAD: self.input_grad,
            Kind.WEIGHT_GRAD: self.weight_grad,
        }
        return _at(by_kind[action.kind], action.stage)

    def merged(self) -> Times:
        """The times when every two neighbouring stages are one."""
        return Times(
            _merge(self.forward),
            _merge(self.input_grad),
            _merge(self.weight_grad),
            self.overlap_factor,
            self.communication,
        )

    def check_stages(self, num_stages: int) -> None:
        """Raises ValueError unless every tuple has one entry per stage."""
        for name in STAGE_FIELDS:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_stages:
                raise ValueError(
                    f"Times: {name} must have one entry per stage, {num_stages}, got {len(value)}"
                )


def _at(value: PerStage, stage: int) -> float:
    return value[stage] if isinstance(value, tuple) else value


def _merge(value: PerStage) -> PerStage:
    if not isinstance(value, tuple):
        return 2 * value
    return tuple(a + b for a, b in zip(value[::2], value[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Span:
    """A step on the time axis."""

    step: Step
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The outcome of a simulation: the spans of every rank, in order."""

    schedule: Schedule
    spans: tuple[tuple[Span, ...], ...]

    @property
    def makespan(self) -> float:
        """From the start of the step until the last rank is done."""
        return max(span.end for row in self.spans for span in row)

    def idle(self, rank: int) -> float:
        """The bubble of one rank: the part of the makespan in which it does nothing."""
        # A sum of waits, not a difference of large sums: exactly 0 where nothing waits.
        starts = [span.start for span in self.spans[rank]] + [self.makespan]
        ends = [0.0] + [span.end for span in self.spans[rank]]
        return sum(start - end for start, end in zip(starts, ends, strict=True))

    @property
    def bubble(self) -> float:
        """The share of all ranks' time that is idle."""
        num_ranks = self.schedule.num_ranks
        return sum(self.idle(rank) for rank in range(num_ranks)) / (num_ranks * self.makespan)

    def memory(self, rank: int) -> list[tuple[float, int]]:
        """(time, stage activations held) after each change on a rank.

        An activation is held from the start of its forward to the end of its full backward or
        weight gradient. What ends frees before what begins at the same time.
        """
        changes = sorted(_memory_changes(self.spans[rank]))
        held, curve = 0, []
        for time, change in changes:
            held += change
            curve.append((time, held))
        return curve

    def peak_memory(self, rank: int) -> int:
        """The most stage activations that a rank holds at once."""
        return max(held for _, held in self.memory(rank))


def _memory_changes(spans: tuple[Span, ...]) -> Iterator[tuple[float, int]]:
    for span in spans:
        for action in actions_of(span.step):
            if action.kind is Kind.FORWARD:
                yield span.start, 1
            elif action.kind is not Kind.INPUT_GRAD:
                yield span.end, -1


def inputs_of(schedule: Schedule, action: Action) -> Iterator[Action]:
    """The actions whose results an action needs; I stands for a full backward too."""
    stage, microbatch = action.stage, action.microbatch
    if action.kind is Kind.FORWARD:
        if stage > 0:
            yield Action(stage - 1, Kind.FORWARD, microbatch)
    elif action.kind is Kind.WEIGHT_GRAD:
        yield Action(stage, Kind.INPUT_GRAD, microbatch)
    else:
        yield Action(stage, Kind.FORWARD, microbatch)
        if stage < schedule.num_stages - 1:
            yield Action(stage + 1, Kind.INPUT_GRAD, microbatch)


def simulate(schedule: Schedule, times: Times) -> Timeline:
    """Plays a schedule.

    Args:
        schedule: any list of steps per rank.
        times: per stage of this schedule.

    Raises:
        ScheduleError: when the ranks wait for one another for ever.
        ValueError: when a tuple in `times` has not one entry per stage.
    """
    times.check_stages(schedule.num_stages)
    finished: dict[Action, float] = {}
    spans: list[list[Span]] = [[] for _ in schedule.ranks]
    waiting = set(range(schedule.num_ranks))
    while waiting:
        stuck = True
        for rank in sorted(waiting):
            stuck &= not _advance(schedule, times, rank, spans[rank], finished)
            if len(spans[rank]) == len(schedule.ranks[rank]):
                waiting.discard(rank)
        if stuck and waiting:
            rank = min(waiting)
            raise ScheduleError(
                f"simulate: {schedule.name} deadlocks\n"
                + schedule.grid("waits for ever", rank, len(spans[rank]))
            )
    return Timeline(schedule, tuple(map(tuple, spans)))


def _advance(
    schedule: Schedule,
    times: Times,
    rank: int,
    spans: list[Span],
    finished: dict[Action, float],
) -> bool:
    """Runs the rank's next steps as far as their inputs are known; says whether any ran."""
    steps, first = schedule.ranks[rank], len(spans)
    while len(spans) < len(steps):
        step = steps[len(spans)]
        needs = [need for action in actions_of(step) for need in inputs_of(schedule, action)]
        if any(need not in finished for need in needs):
            break
        start = spans[-1].end if spans else 0.0
        for need in needs:
            away = schedule.rank_of(need.stage, need.microbatch) != rank
            start = max(start, finished[need] + (times.communication if away else 0.0))
        end = start + times.of(step)
        spans.append(Span(step, start, end))
        for action in actions_of(step):
            kind = Kind.INPUT_GRAD if action.kind is Kind.BACKWARD else action.kind
            finished[Action(action.stage, kind, action.microbatch)] = end
    return len(spans) > first


def compare(num_ranks: int, num_microbatches: int, half_stage: Times) -> list[Timeline]:
    """Every schedule that fits the sizes, fastest first, on the same devices and model.

    Args:
        num_ranks: devices.
        num_microbatches: per step.
        half_stage: times of the model cut into 2 * num_ranks parts; a schedule with one stage per
            rank runs two neighbouring parts as one.
    """
    timelines = []
    for build in SCHEDULES.values():
        try:
            schedule = build(num_ranks, num_microbatches)
        except ScheduleError:  # sizes that this schedule cannot do
            continue
        folded = schedule.placement is Placement.V_SHAPE
        timelines.append(simulate(schedule, half_stage if folded else half_stage.merged()))
    return sorted(timelines, key=lambda timeline: timeline.makespan)
