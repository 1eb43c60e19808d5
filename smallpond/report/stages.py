"""What the attempts of a stage did together: counts, sums, and how unequal its tasks were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from smallpond.events import Stage, State

_NOISE_S = 1e-3  # times below a millisecond are all alike
_NOISE_ROWS = 1.0


class Attempt(NamedTuple):
    """One attempt at a task; ``end_s`` is now for one that runs."""

    stage_idx: int
    task: int
    state: State
    number: int
    speculative: bool
    passes: int
    begin_s: float
    end_s: float
    rows_in: int
    rows_out: int
    bytes_in: int
    bytes_out: int
    spilled_bytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """A stage in numbers. Sums and times of tasks are those of finished attempts.

    Attributes:
        num_finished, num_reused: tasks that finished, and that an earlier run had finished.
        num_attempts: all that started; so many of them failed, were cancelled, still run.
        num_retries: attempts after the first of their task, without second copies of stragglers,
            which are num_speculative.
        most_passes: over all attempts; more than one where memory was short.
        wall_s: from the first start to the last end of an attempt.
        busy_s: times of all attempts, added up.
        p50_s, p95_s, longest_s: of the times that tasks took.
        most_rows: of one task, read or handed on, whichever is more.
        skew_time, skew_rows: the longest time over the median, the most rows over the median; at
            least 1, which also stands where there is nothing to compare.
    """

    stage_idx: int
    name: str
    num_tasks: int
    input_stages: tuple[int, ...]
    input_bytes: int | None
    num_finished: int
    num_reused: int
    num_attempts: int
    num_failed: int
    num_cancelled: int
    num_running: int
    num_retries: int
    num_speculative: int
    most_passes: int
    rows_in: int
    rows_out: int
    bytes_in: int
    bytes_out: int
    spilled_bytes: int
    cpu_s: float
    wall_s: float
    busy_s: float
    p50_s: float
    p95_s: float
    longest_s: float
    most_rows: int
    skew_time: float
    skew_rows: float


def stage_statistics(
    stages: Sequence[Stage], attempts: Iterable[Attempt]
) -> tuple[StageStatistics, ...]:
    """Returns the statistics of each stage, in their order, from the attempts of all of them."""
    by_stage: dict[int, list[Attempt]] = {stage.stage_idx: [] for stage in stages}
    for attempt in attempts:
        by_stage.get(attempt.stage_idx, []).append(attempt)
    return tuple(_of_stage(stage, by_stage[stage.stage_idx]) for stage in stages)


def _of_stage(stage: Stage, attempts: Sequence[Attempt]) -> StageStatistics:
    reused = [a for a in attempts if a.state is State.REUSED]
    started = [a for a in attempts if a.state is not State.REUSED]
    finished = [a for a in started if a.state is State.FINISHED]
    states = Counter(a.state for a in started)
    times_s = sorted(a.end_s - a.begin_s for a in finished)
    rows = sorted(max(a.rows_in, a.rows_out) for a in finished)
    begin_s = min((a.begin_s for a in started), default=0.0)
    end_s = max((a.end_s for a in started), default=0.0)
    return StageStatistics(
        stage_idx=stage.stage_idx,
        name=stage.name,
        num_tasks=stage.num_tasks,
        input_stages=stage.input_stages,
        input_bytes=stage.input_bytes,
        num_finished=len({a.task for a in finished}),
        num_reused=len({a.task for a in reused}),
        num_attempts=len(started),
        num_failed=states[State.FAILED],
        num_cancelled=states[State.CANCELLED],
        num_running=states[State.STARTED],
        num_retries=sum(a.number > 0 and not a.speculative for a in started),
        num_speculative=sum(a.speculative for a in started),
        most_passes=max((a.passes for a in started), default=1),
        rows_in=sum(a.rows_in for a in finished),
        rows_out=sum(a.rows_out for a in finished),
        bytes_in=sum(a.bytes_in for a in finished),
        bytes_out=sum(a.bytes_out for a in finished),
        spilled_bytes=sum(a.spilled_bytes for a in finished),
        cpu_s=sum(a.cpu_s for a in finished),
        wall_s=end_s - begin_s,
        busy_s=sum(a.end_s - a.begin_s for a in started),
        p50_s=quantile(times_s, 0.5),
        p95_s=quantile(times_s, 0.95),
        longest_s=times_s[-1] if times_s else 0.0,
        most_rows=rows[-1] if rows else 0,
        skew_time=skew(times_s, _NOISE_S),
        skew_rows=skew(rows, _NOISE_ROWS),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """What that share of the values does not exceed, between two of them in proportion; 0 of none.

    Args:
        ordered: ascending.
        share: from 0, the least, to 1, the greatest; 0.5 is the median.
    """
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def skew(ordered: Sequence[float], noise: float) -> float:
    """The greatest of ascending values over their median; values under ``noise`` count as it."""
    if not ordered:
        return 1.0
    return max(ordered[-1], noise) / max(quantile(ordered, 0.5), noise)
