"""What happened in a session, kept small: one row per attempt, sums per stage."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from smallpond.events import Event, RunFinished, RunStarted, Stage, State, TaskEvent

MAX_ATTEMPTS = 200_000


@dataclass(slots=True)
class Attempt:
    """One try at a task.

    Attributes:
        lane: which of the processors that were busy at the same time it had, for drawing.
        end_s: None while it runs.
    """

    stage_idx: int
    task_key: str
    partition: str
    number: int
    worker: str
    begin_s: float
    lane: int
    end_s: float | None = None
    state: State = State.STARTED
    rows: int = 0
    num_bytes: int = 0
    spilled_bytes: int = 0
    cpu_s: float = 0.0
    error: str = ""
    speculative: bool = False
    passes: int = 1


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What the tasks of a stage did together.

    Attributes:
        skew: the longest task's time over the median one's.
    """

    stage_idx: int
    name: str
    num_tasks: int
    finished: int
    reused: int
    failed: int
    speculative: int
    rows: int
    num_bytes: int
    spilled_bytes: int
    cpu_s: float
    wall_s: float
    median_s: float
    longest_s: float
    skew: float


@dataclass(slots=True)
class Run:
    """One run of a graph of tasks."""

    idx: int
    begin_s: float
    stages: tuple[Stage, ...]
    attempts: list[Attempt] = field(default_factory=list)
    reused: dict[int, int] = field(default_factory=dict)
    end_s: float | None = None
    error: str = ""
    dropped: int = 0

    def summaries(self) -> list[StageSummary]:
        """The stages, in order."""
        by_stage: dict[int, list[Attempt]] = {stage.stage_idx: [] for stage in self.stages}
        for attempt in self.attempts:
            by_stage[attempt.stage_idx].append(attempt)
        return [self._summary(stage, by_stage[stage.stage_idx]) for stage in self.stages]

    def _summary(self, stage: Stage, attempts: list[Attempt]) -> StageSummary:
        done = [a for a in attempts if a.state is State.FINISHED and a.end_s is not None]
        times = [a.end_s - a.begin_s for a in done if a.end_s is not None]
        ends = [a.end_s for a in attempts if a.end_s is not None]
        median = statistics.median(times) if times else 0.0
        longest = max(times, default=0.0)
        return StageSummary(
            stage.stage_idx,
            stage.name,
            stage.num_tasks,
            len(done),
            self.reused.get(stage.stage_idx, 0),
            sum(a.state is State.FAILED for a in attempts),
            sum(a.speculative for a in attempts),
            sum(a.rows for a in done),
            sum(a.num_bytes for a in done),
            max((a.spilled_bytes for a in done), default=0),
            sum(a.cpu_s for a in done),
            max(ends) - min(a.begin_s for a in attempts) if ends else 0.0,
            median,
            longest,
            longest / median if median else 1.0,
        )


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._open: dict[tuple[int, str, int], Attempt] = {}
        self._busy: dict[int, set[int]] = {}
        self._count = 0

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.runs.append(Run(event.run_idx, event.time_s, event.stages))
                self._busy[event.run_idx] = set()
            case TaskEvent():
                self._task(event)
            case RunFinished():
                run = self._run(event.run_idx)
                if run is not None:
                    run.end_s, run.error = event.time_s, event.error

    def _run(self, run_idx: int) -> Run | None:
        return next((run for run in reversed(self.runs) if run.idx == run_idx), None)

    def _task(self, event: TaskEvent) -> None:
        run = self._run(event.run_idx)
        if run is None:
            return
        key = (event.run_idx, event.task_key, event.attempt)
        if event.state is State.REUSED:
            run.reused[event.stage_idx] = run.reused.get(event.stage_idx, 0) + 1
        elif event.state is State.STARTED:
            busy = self._busy[event.run_idx]
            lane = next(i for i in range(len(busy) + 1) if i not in busy)
            busy.add(lane)
            attempt = Attempt(
                event.stage_idx, event.task_key, event.partition, event.attempt, event.worker,
                event.time_s, lane, speculative=event.speculative, passes=event.passes,
            )  # fmt: skip
            self._open[key] = attempt
            if self._count < MAX_ATTEMPTS:
                run.attempts.append(attempt)
                self._count += 1
            else:
                run.dropped += 1
        elif key in self._open:
            attempt = self._open.pop(key)
            self._busy[event.run_idx].discard(attempt.lane)
            metrics = event.metrics
            attempt.end_s, attempt.state, attempt.error = event.time_s, event.state, event.error
            attempt.worker = event.worker or attempt.worker
            attempt.rows, attempt.num_bytes = metrics.rows_out, metrics.bytes_out
            attempt.spilled_bytes, attempt.cpu_s = metrics.spilled_bytes, metrics.cpu_s

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values, times in seconds from the run's beginning."""
        return {"runs": [_run_to_json(run) for run in self.runs]}


def _run_to_json(run: Run) -> dict[str, Any]:
    end = run.end_s if run.end_s is not None else run.begin_s
    return {
        "run": run.idx,
        "begin_s": run.begin_s,
        "wall_s": end - run.begin_s,
        "error": run.error,
        "not_shown": run.dropped,
        "stages": [
            {
                **{name: getattr(summary, name) for name in StageSummary.__slots__},
                "inputs": list(stage.input_stages),
            }
            for summary, stage in zip(run.summaries(), run.stages, strict=True)
        ],
        "attempts": [
            {
                "stage": a.stage_idx,
                "partition": a.partition,
                "number": a.number,
                "worker": a.worker,
                "lane": a.lane,
                "begin_s": a.begin_s - run.begin_s,
                "end_s": (end if a.end_s is None else a.end_s) - run.begin_s,
                "state": a.state.value,
                "rows": a.rows,
                "bytes": a.num_bytes,
                "spilled_bytes": a.spilled_bytes,
                "error": a.error,
                "speculative": a.speculative,
                "passes": a.passes,
            }
            for a in run.attempts
        ],
    }
