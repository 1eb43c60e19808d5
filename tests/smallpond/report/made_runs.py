"""Event streams as a scheduler with retries and second copies would tell them, on a made-up clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from smallpond.events import Event, Metrics, RunFinished, RunStarted, Stage, State, TaskEvent

BEGIN_S = 1_800_000_000.0


@dataclass
class Sketch:
    """A run of which only what matters is said.

    Attributes:
        stages: (name, number of tasks, mean seconds of one, numbers of its inputs).
        lanes: how many tasks of each worker run at once.
        failing: the share of attempts that fail.
        copied: the share of tasks that get a second copy.
        reused: how many tasks of the first stage were finished before.
        error: of the run; its last stage then stops half-way.
    """

    stages: Sequence[tuple[str, int, float, tuple[int, ...]]]
    lanes: dict[str, int] = field(default_factory=lambda: {"thread": 4})
    failing: float = 0.0
    copied: float = 0.0
    reused: int = 0
    skew: float = 0.3
    error: str = ""
    begin_s: float = BEGIN_S

    def events(self, run_idx: int = 0, seed: int = 0) -> list[Event]:
        """The stream, in the order of time."""
        rng = random.Random(seed)
        stages = tuple(Stage(i, n, k, inputs) for i, (n, k, _, inputs) in enumerate(self.stages))
        told: list[Event] = []
        free = [(self.begin_s, name, i) for name, count in self.lanes.items() for i in range(count)]
        heapq.heapify(free)
        ends = [self.begin_s] * len(stages)
        for stage in stages:
            mean_s = self.stages[stage.stage_idx][2]
            ready_s = max((ends[i] for i in stage.input_stages), default=self.begin_s)
            tasks = [f"{run_idx:02x}{stage.stage_idx:02x}{i:028x}" for i in range(stage.num_tasks)]
            for i, key in enumerate(tasks):
                partition = f"{i}/{stage.num_tasks}"
                if stage.stage_idx == 0 and i < self.reused:
                    told.append(
                        TaskEvent(
                            run_idx, self.begin_s, 0, key, State.REUSED, partition=partition
                        )
                    )
                    continue
                number = 0
                while True:
                    free_s, worker, lane = heapq.heappop(free)
                    at_s = max(free_s, ready_s) + 0.0004
                    took_s = mean_s * rng.lognormvariate(0, self.skew)
                    failed = rng.random() < self.failing and number < 3
                    copied = not failed and rng.random() < self.copied
                    stopped = bool(self.error) and stage is stages[-1] and i > stage.num_tasks // 2
                    rows = int(took_s * 2e6)
                    common = {
                        "run_idx": run_idx,
                        "stage_idx": stage.stage_idx,
                        "task_key": key,
                        "partition": partition,
                        "passes": 4 if number == 2 else 1,
                    }
                    end_s = at_s + took_s * (0.4 if failed or stopped else 1.0)
                    state = State.FINISHED
                    error = ""
                    if failed:
                        state = State.FAILED
                        error = rng.choice(ERRORS)
                    elif stopped:
                        state = State.CANCELLED
                    metrics = Metrics(
                        rows, rows // 3, rows * 40, rows * 14, rows * 9 * (number == 2), took_s * 0.9
                    )
                    start = TaskEvent(
                        time_s=at_s, state=State.STARTED, attempt=number, worker=worker, **common
                    )
                    end = TaskEvent(
                        time_s=end_s, state=state, attempt=number, worker=worker, error=error,
                        metrics=metrics if state is State.FINISHED else Metrics(), **common,
                    )  # fmt: skip
                    told += [start, end]
                    heapq.heappush(free, (end_s, worker, lane))
                    ends[stage.stage_idx] = max(ends[stage.stage_idx], end_s)
                    if copied:
                        other_s, other, other_lane = heapq.heappop(free)
                        begin_s = max(other_s, at_s + took_s * 0.6)
                        if begin_s < end_s:
                            for time_s, what in ((begin_s, State.STARTED), (end_s, State.CANCELLED)):
                                told.append(
                                    TaskEvent(
                                        time_s=time_s, state=what, attempt=number + 1,
                                        worker=other, speculative=True, **common,
                                    )  # fmt: skip
                                )
                            other_s = end_s
                        heapq.heappush(free, (other_s, other, other_lane))
                    if not failed:
                        break
                    number += 1
        told.sort(key=lambda event: event.time_s)
        last_s = max(ends)
        return [
            RunStarted(run_idx, self.begin_s, stages),
            *told,
            RunFinished(run_idx, last_s + 0.01, self.error),
        ]


ERRORS = (
    "OSError: [Errno 5] input/output error: part-00017.parquet",
    "NonzeroExitCode: the worker process was ended by SIGKILL (out of memory?)",
    "CorruptedDataError: segment 3 has another checksum than its manifest",
)
