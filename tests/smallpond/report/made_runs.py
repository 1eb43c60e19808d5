"""Event streams as a scheduler with retries and second copies tells them, on a made-up clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from smallpond.events import Event, Metrics, RunFinished, RunStarted, Stage, State, TaskEvent

BEGIN_S = 1_800_000_000.0
ERRORS = (
    "OSError: [Errno 5] input/output error: part-00017.parquet",
    "NonzeroExitCode: the worker process was ended by SIGKILL (out of memory?)",
    "CorruptedDataError: segment 3 has another checksum than its manifest",
)


@dataclass(frozen=True)
class Step:
    """A stage to be: its tasks, and how long one takes in the mean."""

    name: str
    num_tasks: int
    mean_s: float
    inputs: tuple[int, ...] = ()


class Sketch:
    """A run of which only what matters is said.

    Args:
        steps: stages, inputs first.
        lanes: how many tasks of each worker run at once.
        failing, copied: the share of attempts that fail, and of tasks that get a second copy.
        reused: how many tasks of the first stage an earlier run had finished.
        error: of the run; the last stage is then broken off half-way.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        lanes: Mapping[str, int] | None = None,
        *,
        failing: float = 0.0,
        copied: float = 0.0,
        reused: int = 0,
        error: str = "",
        begin_s: float = BEGIN_S,
        seed: int = 0,
    ) -> None:
        self._steps, self._error, self._begin_s = steps, error, begin_s
        self._failing, self._copied, self._reused = failing, copied, reused
        self._random = random.Random(seed)
        workers = (lanes or {"thread": 4}).items()
        self._free = [(begin_s, name, i) for name, count in workers for i in range(count)]
        heapq.heapify(self._free)

    def events(self, run_idx: int = 0) -> list[Event]:
        """The stream, in the order of time."""
        told: list[TaskEvent] = []
        ends_s: list[float] = []
        for number, step in enumerate(self._steps):
            ready_s = max((ends_s[i] for i in step.inputs), default=self._begin_s)
            stage = [
                e for i in range(step.num_tasks) for e in self._task(run_idx, number, i, ready_s)
            ]
            ends_s.append(max((event.time_s for event in stage), default=ready_s))
            told += stage
        told.sort(key=lambda event: event.time_s)
        stages = tuple(
            Stage(number, step.name, step.num_tasks, step.inputs)
            for number, step in enumerate(self._steps)
        )
        end_s = max(ends_s, default=self._begin_s) + 0.01
        return [
            RunStarted(run_idx, self._begin_s, stages),
            *told,
            RunFinished(run_idx, end_s, self._error),
        ]

    def _task(self, run_idx: int, stage: int, task: int, ready_s: float) -> list[TaskEvent]:
        step = self._steps[stage]
        event = TaskEvent(
            run_idx, self._begin_s, stage, f"{run_idx:02x}{stage:02x}{task:028x}", State.REUSED,
            partition=f"{task}/{step.num_tasks}",
        )  # fmt: skip
        if stage == 0 and task < self._reused:
            return [event]
        told: list[TaskEvent] = []
        for number in range(4):
            failed = number < 3 and self._random.random() < self._failing
            told += self._attempt(replace(event, attempt=number), ready_s, failed=failed)
            if not failed:
                break
        return told

    def _attempt(self, event: TaskEvent, ready_s: float, *, failed: bool) -> list[TaskEvent]:
        step = self._steps[event.stage_idx]
        free_s, worker, lane = heapq.heappop(self._free)
        begin_s = max(free_s, ready_s) + 0.0004
        took_s = step.mean_s * self._random.lognormvariate(0, 0.6)
        last = event.stage_idx == len(self._steps) - 1
        broken_off = bool(self._error) and last and begin_s > ready_s + step.mean_s
        end_s = begin_s + took_s * (0.4 if failed or broken_off else 1.0)
        start = replace(event, time_s=begin_s, state=State.STARTED, worker=worker)
        end = replace(start, time_s=end_s, state=State.CANCELLED)
        if failed:
            end = replace(end, state=State.FAILED, error=self._random.choice(ERRORS))
        elif not broken_off:
            rows = int(took_s * 2e6)
            metrics = Metrics(rows, rows // 3, rows * 40, rows * 14, 0, took_s * 0.9)
            end = replace(end, state=State.FINISHED, metrics=metrics)
        heapq.heappush(self._free, (end_s, worker, lane))
        copied = end.state is State.FINISHED and self._random.random() < self._copied
        return [start, end, *(self._copy(start, end) if copied else ())]

    def _copy(self, start: TaskEvent, end: TaskEvent) -> list[TaskEvent]:
        """A second copy, which is too late."""
        free_s, worker, lane = heapq.heappop(self._free)
        begin_s = max(free_s, start.time_s + 0.6 * (end.time_s - start.time_s))
        heapq.heappush(self._free, (max(free_s, end.time_s), worker, lane))
        if begin_s >= end.time_s:
            return []
        copy = replace(
            start, time_s=begin_s, attempt=start.attempt + 1, worker=worker, speculative=True
        )
        return [copy, replace(copy, time_s=end.time_s, state=State.CANCELLED)]
