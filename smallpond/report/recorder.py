"""What happened in a session, kept small: a row of numbers for each attempt at a task."""

from __future__ import annotations

import copy
import math
import threading
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from smallpond.events import Event, RunFinished, RunStarted, Stage, State, TaskEvent
from smallpond.report.stages import Attempt, StageStatistics, stage_statistics

MAX_ATTEMPTS = 200_000
MAX_RUNS = 1000
_MAX_ERRORS = 1000
_MAX_ERROR_LENGTH = 500
STATES = tuple(State)
_STATE_IDX = {state: index for index, state in enumerate(STATES)}


class Names:
    """Texts with a number each."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a text, which gets the next one when it is new."""
        return self._numbers.setdefault(name, len(self._numbers))

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


def _flags() -> array[int]:
    return array("b")


def _numbers() -> array[int]:
    return array("i")


def _amounts() -> array[int]:
    return array("q")


def _seconds() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Attempts:
    """A column for each thing that is known of attempts; row i of all of them is one attempt.

    A task that was not run because its output was there has a row, too, that ends as it begins.

    Attributes:
        task, partition, worker: numbers of names.
        number: 0 for the first try of a task.
        state: index into `STATES`.
        end_s: NaN while it runs.
    """

    stage_idx: array[int] = field(default_factory=_numbers)
    task: array[int] = field(default_factory=_numbers)
    partition: array[int] = field(default_factory=_numbers)
    worker: array[int] = field(default_factory=_numbers)
    number: array[int] = field(default_factory=_numbers)
    passes: array[int] = field(default_factory=_numbers)
    speculative: array[int] = field(default_factory=_flags)
    state: array[int] = field(default_factory=_flags)
    begin_s: array[float] = field(default_factory=_seconds)
    end_s: array[float] = field(default_factory=_seconds)
    rows_in: array[int] = field(default_factory=_amounts)
    rows_out: array[int] = field(default_factory=_amounts)
    bytes_in: array[int] = field(default_factory=_amounts)
    bytes_out: array[int] = field(default_factory=_amounts)
    spilled_bytes: array[int] = field(default_factory=_amounts)
    cpu_s: array[float] = field(default_factory=_seconds)

    def __len__(self) -> int:
        return len(self.task)


class Run:
    """One run of a graph of tasks.

    Attributes:
        begin_s, last_s: seconds since the epoch of its first and its latest event.
        is_over: whether the latest event is its last.
        error: one line; empty while it runs, and when it succeeded.
        attempts: in the order in which they started.
        errors: of failed attempts, by row; the first thousand.
        tasks, partitions, workers: names, in the order of their numbers.
    """

    def __init__(self, event: RunStarted) -> None:
        self.run_idx = event.run_idx
        self.stages: tuple[Stage, ...] = event.stages
        self.begin_s = self.last_s = event.time_s
        self.is_over = False
        self.error = ""
        self.attempts = Attempts()
        self.errors: dict[int, str] = {}
        self.tasks, self.partitions, self.workers = Names(), Names(), Names()
        self._open: dict[tuple[str, int], int] = {}

    def take(self, event: TaskEvent) -> None:
        """Keeps what an event says of one attempt."""
        self.last_s = max(self.last_s, event.time_s)
        if event.state is State.STARTED:
            self._open[event.task_key, event.attempt] = self._begin(event)
        elif event.state is State.REUSED:
            self._end(self._begin(event), event)
        else:
            row = self._open.pop((event.task_key, event.attempt), None)
            self._end(self._begin(event) if row is None else row, event)

    def finish(self, event: RunFinished) -> None:
        """Takes the last event."""
        self.last_s = max(self.last_s, event.time_s)
        self.error, self.is_over = event.error, True
        self._open = {}

    def ends_s(self) -> array[float]:
        """When attempts ended; for those that run, the latest moment that is known of."""
        return array("d", (self.last_s if math.isnan(s) else s for s in self.attempts.end_s))

    def statistics(self) -> tuple[StageStatistics, ...]:
        """What became of each stage."""
        a, ends_s = self.attempts, self.ends_s()
        attempts = (
            Attempt(
                a.stage_idx[row], a.task[row], STATES[a.state[row]], a.number[row],
                bool(a.speculative[row]), a.passes[row], a.begin_s[row], ends_s[row],
                a.rows_in[row], a.rows_out[row], a.bytes_in[row], a.bytes_out[row],
                a.spilled_bytes[row], a.cpu_s[row],
            )
            for row in range(len(a))
        )  # fmt: skip
        return stage_statistics(self.stages, attempts)

    def _begin(self, event: TaskEvent) -> int:
        a = self.attempts
        a.stage_idx.append(event.stage_idx)
        a.task.append(self.tasks.number(event.task_key))
        a.partition.append(self.partitions.number(event.partition))
        a.worker.append(self.workers.number(event.worker))
        a.number.append(event.attempt)
        a.passes.append(event.passes)
        a.speculative.append(event.speculative)
        a.state.append(_STATE_IDX[State.STARTED])
        a.begin_s.append(event.time_s)
        a.end_s.append(math.nan)
        for column in (a.rows_in, a.rows_out, a.bytes_in, a.bytes_out, a.spilled_bytes):
            column.append(0)
        a.cpu_s.append(0.0)
        return len(a) - 1

    def _end(self, row: int, event: TaskEvent) -> None:
        a, metrics = self.attempts, event.metrics
        a.state[row] = _STATE_IDX[event.state]
        a.end_s[row] = max(event.time_s, a.begin_s[row])  # clocks are set back now and then
        if event.worker:  # the one that ran it is better known at the end
            a.worker[row] = self.workers.number(event.worker)
        a.rows_in[row], a.rows_out[row] = metrics.rows_in, metrics.rows_out
        a.bytes_in[row], a.bytes_out[row] = metrics.bytes_in, metrics.bytes_out
        a.spilled_bytes[row], a.cpu_s[row] = metrics.spilled_bytes, metrics.cpu_s
        if event.error and len(self.errors) < _MAX_ERRORS:
            self.errors[row] = event.error[:_MAX_ERROR_LENGTH]


class Recorder:
    """A listener that remembers: the latest runs, whole.

    Args:
        max_attempts, max_runs: when there are more of them, runs that are over are forgotten, the
            oldest first.
    """

    def __init__(self, max_attempts: int = MAX_ATTEMPTS, max_runs: int = MAX_RUNS) -> None:
        self._max_attempts, self._max_runs = max_attempts, max_runs
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}
        self._num_attempts = 0
        self._num_forgotten = 0

    def __call__(self, event: Event) -> None:
        """Takes an event, from any thread."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._runs[event.run_idx] = Run(event)
                self._forget()
                return
            run = self._runs.get(event.run_idx)
            if run is None or run.is_over:
                return
            if isinstance(event, TaskEvent):
                before = len(run.attempts)
                run.take(event)
                self._num_attempts += len(run.attempts) - before
                self._forget()
            elif isinstance(event, RunFinished):
                run.finish(event)

    def _forget(self) -> None:
        while self._num_attempts > self._max_attempts or len(self._runs) > self._max_runs:
            oldest = next((run for run in self._runs.values() if run.is_over), None)
            if oldest is None:
                return
            del self._runs[oldest.run_idx]
            self._num_attempts -= len(oldest.attempts)
            self._num_forgotten += 1

    @property
    def num_forgotten(self) -> int:
        """How many runs there were before those that are remembered."""
        return self._num_forgotten

    def runs(self) -> tuple[Run, ...]:
        """The runs that are remembered, as they are now."""
        with self._lock:
            return tuple(r if r.is_over else copy.deepcopy(r) for r in self._runs.values())

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values that `json` can write.

        ``version`` changes when a name below it changes its meaning or goes. Each of ``runs`` has
        the fields of `StageStatistics` for each of its ``stages``, and the columns of `Attempts`
        with names instead of numbers and None for NaN; ``errors`` are pairs of row and text.
        """
        return {
            "version": 1,
            "num_forgotten_runs": self.num_forgotten,
            "runs": [_run_to_json(run) for run in self.runs()],
        }


def _run_to_json(run: Run) -> dict[str, Any]:
    a = run.attempts
    columns: dict[str, list[Any]] = {name: getattr(a, name).tolist() for name in Attempts.__slots__}
    for column, names in (
        ("task", run.tasks),
        ("partition", run.partitions),
        ("worker", run.workers),
    ):
        texts = list(names)
        columns[column] = [texts[number] for number in columns[column]]
    columns["state"] = [STATES[index].value for index in a.state]
    columns["speculative"] = [bool(value) for value in a.speculative]
    columns["end_s"] = [None if math.isnan(end) else end for end in a.end_s]
    return {
        "run_idx": run.run_idx,
        "begin_s": run.begin_s,
        "end_s": run.last_s if run.is_over else None,
        "error": run.error,
        "stages": [asdict(stage) for stage in run.statistics()],
        "attempts": columns,
        "errors": list(run.errors.items()),
    }
