"""One loop that runs a graph of tasks on any executor.

It retries what failed by accident, runs again in several passes what lacked memory, starts second
copies of stragglers, and never waits for what cannot come.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import statistics
import time
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from smallpond.engine.passes import can_be_cut
from smallpond.errors import (
    CorruptedDataError,
    DeviceError,
    InjectedFault,
    NonzeroExitCode,
    OutOfMemory,
    PlanError,
    SmallpondError,
    StallError,
    TaskError,
)
from smallpond.events import (
    Advanced,
    Event,
    Listener,
    Metrics,
    RunFinished,
    RunStarted,
    State,
    TaskEvent,
)
from smallpond.executors import Executor, Outcome, Worker
from smallpond.handoff import split_parts_by_rows
from smallpond.interrupts import held_back
from smallpond.leaves import rows_of, size_of
from smallpond.physical import Graph
from smallpond.placing import Free, all_of_one, clamped
from smallpond.results import Results
from smallpond.task import Attempt, Resources, Result, Settings, Task, ToRowRanges, with_inputs

MAX_FAILURES = 4
PASSES = (1, 4, 16, 64)
STALL_S = 30.0
_POLL_S = 0.1
_QUIET_S = 10.0
_MIN_SAMPLES = 5
_MIN_STRAGGLER_S = 1.0
_RETRY_S = 0.05

_log = logging.getLogger("smallpond")


@dataclass
class _Running:
    task: Task
    attempt: Attempt
    worker: Worker
    started_s: float


@dataclass
class _Story:
    """What has happened to one task so far."""

    attempts: int = 0
    failures: int = 0
    losses: int = 0
    remade: bool = False
    memory_step: int = 0
    not_before_s: float = 0.0


@dataclass
class Scheduler:
    """Runs graphs; one for a session.

    Attributes:
        results: finished tasks, in this run and earlier ones.
        speculate: whether stragglers get second copies.
        max_failures: how often a task may fail by accident; None for MAX_FAILURES.
        runs: numbers them.
    """

    executor: Executor
    settings: Settings
    results: Results
    listeners: Sequence[Listener] = ()
    speculate: bool = True
    max_failures: int | None = None
    stall_s: float = STALL_S
    runs: Iterator[int] = field(default_factory=itertools.count)
    _warned: set[str] = field(default_factory=set)

    def run(self, graph: Graph) -> dict[str, Result]:
        """Runs all tasks of a graph that have not been run before.

        Returns:
            Result by task key.

        Raises:
            TaskError: a task failed for good; the others were stopped.
            StallError: some tasks can never run.
        """
        run = _Run(self, graph)
        run.emit(RunStarted(run.idx, run.began_s, tuple(graph.stages)))
        error = "interrupted"
        try:
            results = run.loop()
            error = ""
        except SmallpondError as failure:
            error = str(failure).splitlines()[0]
            raise
        finally:
            with held_back():
                run.stop()
                run.emit(RunFinished(run.idx, time.time(), error))
        return results

    def warn(self, message: str) -> None:
        """Says it, the first time."""
        if message not in self._warned:
            self._warned.add(message)
            _log.warning(message)


class _Run:
    """The state of one run."""

    def __init__(self, scheduler: Scheduler, graph: Graph) -> None:
        self.idx = next(scheduler.runs)
        self._scheduler = scheduler
        self._executor = scheduler.executor
        self._tasks = {task.key: task for task in graph.tasks}
        self._results: dict[str, Result] = {}
        self._stories = {key: _Story() for key in self._tasks}
        self._running: dict[str, _Running] = {}
        self._durations: dict[int, list[float]] = {}
        self._waiting = dict.fromkeys(self._tasks)
        self._users: dict[str, list[str]] = {}
        for task in graph.tasks:
            for key in task.needs:
                self._users.setdefault(key, []).append(task.key)
        self._ready: list[str] = []  # in the order of their stages
        self._delayed: set[str] = set()  # of those, retries that may have to wait
        self._stalled_since_s: float | None = None
        self._advanced_s = 0.0
        self._cancelled = False
        self.began_s = time.time()

    def emit(self, event: Event) -> None:
        for listener in self._scheduler.listeners:
            listener(event)

    # ---- the loop

    def loop(self) -> dict[str, Result]:
        self._reuse()
        self._find_ready(self._tasks)
        while len(self._results) < len(self._tasks):
            self._start_ready()
            self._copy_stragglers()
            if len(self._results) == len(self._tasks):
                break
            for outcome in self._executor.wait(self._patience_s()):
                self._finish(outcome)
            self._tell_progress()
            self._look_for_stall()
        return self._results

    def stop(self) -> None:
        """Cancels what still runs, and waits until it writes no more."""
        unfinished = list(self._running)
        for attempt_id in unfinished:
            self._drop(attempt_id, State.CANCELLED)
        if unfinished or self._cancelled:
            self._executor.quiet(_QUIET_S)
            self._executor.wait(0.0)  # what became of them is nobody's business any more

    def _patience_s(self) -> float:
        """Until an outcome, or until a retry is due."""
        now = time.monotonic()
        due = [self._stories[key].not_before_s - now for key in self._delayed]
        return min([_POLL_S, *(max(0.001, wait) for wait in due)])

    def _reuse(self) -> None:
        """Tasks that an earlier run finished, and those that nobody needs any more for that."""
        for key, task in self._tasks.items():
            found = self._scheduler.results.find(key)
            if found is not None:
                self._results[key] = found
                del self._waiting[key]
                self._tell(task, State.REUSED, 0, "", found.metrics)
        # What only finished tasks would read need not be computed.
        for key in reversed(list(self._tasks)):
            users = self._users.get(key, [])
            if key in self._waiting and users and all(user in self._results for user in users):
                self._results[key] = Result()
                del self._waiting[key]
                self._tell(self._tasks[key], State.REUSED, 0, "", Metrics())

    def _find_ready(self, keys: Iterable[str]) -> None:
        for key in keys:
            task = self._tasks[key]
            if key in self._waiting and task.needs <= self._results.keys():
                del self._waiting[key]
                if isinstance(task.sink, ToRowRanges):
                    self._cut_rows(task)
                else:
                    insort(self._ready, key, key=self._stage_of)

    def _stage_of(self, key: str) -> int:
        return self._tasks[key].stage_idx

    def _start_ready(self) -> None:
        if not self._ready:
            return
        workers = self._executor.workers()
        if not workers:
            return
        free = Free(workers, self._used())
        now = time.monotonic()
        for key in list(self._ready):
            story = self._stories[key]
            if story.not_before_s > now:
                continue
            task = self._tasks[key]
            wants = (
                all_of_one(task, workers)
                if story.memory_step
                else clamped(task, workers, self._scheduler.warn)
            )
            worker = free.take(wants)
            if worker is not None:
                self._ready.remove(key)
                self._delayed.discard(key)
                self._submit(task, worker, wants)
            elif free.none_left:
                break

    def _used(self) -> Iterator[tuple[str, Resources]]:
        return ((run.worker.name, run.task.resources) for run in self._running.values())

    def _submit(
        self, task: Task, worker: Worker, wants: Resources, *, speculative: bool = False
    ) -> None:
        story = self._stories[task.key]
        memory = wants.memory_bytes or worker.memory_bytes * wants.cpus // worker.cpus
        passes = PASSES[story.memory_step]
        attempt = Attempt(
            task=with_inputs(task, self._results),
            key=task.key,
            number=story.attempts,
            passes=passes,
            cpus=wants.cpus if passes == 1 else 1,
            memory_bytes=memory,
            settings=self._scheduler.settings,
            speculative=speculative,
            run_idx=self.idx,
            time_s=self.began_s,
        )
        story.attempts += 1
        self._running[attempt.id] = _Running(
            dataclasses.replace(task, resources=wants), attempt, worker, time.monotonic()
        )
        self._tell(task, State.STARTED, attempt.number, worker.name, attempt=attempt)
        self._executor.submit(attempt)

    def _cut_rows(self, task: Task) -> None:
        """Done here and now, for it only divides what is known of parts."""
        resolved = with_inputs(task, self._results)
        parts = getattr(resolved.program, "parts", ())
        self._tell(task, State.STARTED, 0, "driver")
        groups = split_parts_by_rows(parts, task.sink.num_outputs)
        rows = sum(part.rows for part in parts)
        self._tell(task, State.FINISHED, 0, "driver", Metrics(rows_in=rows, rows_out=rows))
        self._done(task, Result(outputs=tuple(tuple(group) for group in groups)))

    # ---- outcomes

    def _finish(self, outcome: Outcome) -> None:
        running = self._running.pop(outcome.attempt_id, None)
        if running is None:
            return  # it was cancelled
        task = self._tasks[running.task.key]
        if outcome.result is not None:
            elapsed = time.monotonic() - running.started_s
            self._durations.setdefault(task.stage_idx, []).append(elapsed)
            self._drop_copies(task)
            read = running.attempt.task.program
            metrics = dataclasses.replace(
                outcome.result.metrics, rows_in=rows_of(read), bytes_in=size_of(read)
            )
            result = dataclasses.replace(outcome.result, metrics=metrics)
            kept = self._scheduler.results.keep(task, result)
            self._tell(
                task, State.FINISHED, running.attempt.number, outcome.worker,
                metrics, attempt=running.attempt,
            )  # fmt: skip
            self._done(task, kept)
        else:
            assert outcome.error is not None  # noqa: S101 (one or the other)
            self._failed(task, running, outcome)

    def _done(self, task: Task, result: Result) -> None:
        self._results[task.key] = result
        self._find_ready(self._users.get(task.key, ()))

    def _failed(self, task: Task, running: _Running, outcome: Outcome) -> None:
        error = outcome.error
        assert error is not None  # noqa: S101
        self._tell(
            task, State.FAILED, running.attempt.number, outcome.worker,
            error=str(error).splitlines()[0] if str(error) else type(error).__name__,
            attempt=running.attempt,
        )  # fmt: skip
        if any(other.task.key == task.key for other in self._running.values()):
            return  # another copy is still at it
        story = self._stories[task.key]
        if isinstance(error, CorruptedDataError) and self._remake(error):
            self._waiting[task.key] = None
            self._find_ready([task.key])
            return
        if outcome.lost:
            story.losses += 1
        if isinstance(error, OutOfMemory) or story.losses >= 2:
            story.losses = 0
            self._less_memory(task, story, error)
        elif _is_accident(error) or outcome.lost:
            story.failures += 1
            if story.failures >= (self._scheduler.max_failures or MAX_FAILURES):
                raise _final(task, error, f"failed {story.failures} times") from error
            story.not_before_s = time.monotonic() + _RETRY_S * 2**story.failures
            self._delayed.add(task.key)
        else:
            raise _final(task, error) from error
        insort(self._ready, task.key, key=self._stage_of)

    def _less_memory(self, task: Task, story: _Story, error: BaseException) -> None:
        """The next attempt has a worker to itself, and takes the data in more passes."""
        limit = len(PASSES) - 1 if can_be_cut(task.program) else 1
        if story.memory_step >= limit:
            advice = "raise memory_limit, or repartition() into more partitions first"
            if isinstance(error, NonzeroExitCode):
                raise _final(task, error, "its worker died each time") from error
            where = f" of partition {task.partition}" if task.partition else ""
            raise OutOfMemory(f"{task.name}{where}: {error}; {advice}") from error
        story.memory_step += 1
        _log.info("%s lacks memory; once more in %d passes", task.name, PASSES[story.memory_step])

    def _remake(self, error: CorruptedDataError) -> bool:
        """Runs the task again whose hand-off file is damaged; once."""
        key = self._scheduler.results.owner(error.url)
        if key not in self._tasks:
            return False
        result = self._results.get(key)
        if result is None or all(p.url != error.url for output in result.outputs for p in output):
            return True  # another reader was faster to find out
        if self._stories[key].remade:
            return False
        _log.warning("%s; computing it again", error)
        self._stories[key].remade = True
        self._scheduler.results.forget(key)
        del self._results[key]
        for needed in self._tasks[key].needs:
            if needed in self._results and not self._results[needed].outputs:
                # It was skipped for the finished result.
                self._scheduler.results.forget(needed)
                del self._results[needed]
                self._waiting[needed] = None
        self._waiting |= dict.fromkeys([key, *self._ready])
        self._ready.clear()
        self._delayed.clear()
        self._find_ready(list(self._waiting))
        return True

    def _drop(self, attempt_id: str, state: State) -> None:
        running = self._running.pop(attempt_id)
        self._executor.cancel(attempt_id)
        self._cancelled = True
        task = self._tasks[running.task.key]
        self._tell(
            task, state, running.attempt.number, running.worker.name, attempt=running.attempt
        )

    def _drop_copies(self, task: Task) -> None:
        for attempt_id, running in list(self._running.items()):
            if running.task.key == task.key:
                self._drop(attempt_id, State.CANCELLED)

    # ---- stragglers and stalls

    def _copy_stragglers(self) -> None:
        """A second copy of what takes far longer than its siblings did, on idle processors."""
        if not self._scheduler.speculate or self._ready or not self._running:
            return
        workers = self._executor.workers()
        free = Free(workers, self._used())
        now = time.monotonic()
        counts: dict[str, int] = {}
        for running in self._running.values():
            counts[running.task.key] = counts.get(running.task.key, 0) + 1
        for running in list(self._running.values()):
            finished = self._durations.get(running.task.stage_idx, [])
            if len(finished) < _MIN_SAMPLES or counts[running.task.key] > 1:
                continue
            usual_s = statistics.quantiles(finished, n=20)[-1]
            if now - running.started_s < max(_MIN_STRAGGLER_S, 3 * usual_s):
                continue
            worker = free.take(running.task.resources)
            if worker is not None:
                task = self._tasks[running.task.key]
                self._submit(task, worker, running.task.resources, speculative=True)

    def _look_for_stall(self) -> None:
        """Nothing runs, nothing can start, and something is left to do."""
        if self._running or len(self._results) == len(self._tasks):
            self._stalled_since_s = None
            return
        now = time.monotonic()
        if any(self._stories[key].not_before_s > now for key in self._delayed):
            return
        if self._ready and self._executor.workers():
            self._stalled_since_s = None
            return
        if self._stalled_since_s is None:
            self._stalled_since_s = now
        if self._ready and now - self._stalled_since_s < self._scheduler.stall_s:
            return
        blocked = [self._tasks[key] for key in (*self._ready, *self._waiting)]
        names = ", ".join(dict.fromkeys(f"{t.name} {t.partition}".strip() for t in blocked[:10]))
        why = "there is no worker left" if self._ready else "their inputs cannot come"
        raise StallError(f"{len(blocked)} tasks are blocked, because {why}: {names}")

    # ---- telling

    def _tell(
        self,
        task: Task,
        state: State,
        number: int,
        worker: str,
        metrics: Metrics | None = None,
        *,
        error: str = "",
        attempt: Attempt | None = None,
    ) -> None:
        self.emit(
            TaskEvent(
                self.idx, time.time(), task.stage_idx, task.key, state, number, worker,
                task.partition, metrics or Metrics(), error,
                speculative=attempt is not None and attempt.speculative,
                passes=attempt.passes if attempt is not None else 1,
            )
        )  # fmt: skip

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now - self._advanced_s < 2 * _POLL_S or not self._running:
            return
        self._advanced_s = now
        sums: dict[int, float] = {}
        for attempt_id, fraction in self._executor.progress().items():
            running = self._running.get(attempt_id)
            if running is not None:
                stage = running.task.stage_idx
                sums[stage] = sums.get(stage, 0.0) + max(0.0, fraction)
        for stage, fraction in sums.items():
            self.emit(Advanced(self.idx, stage, fraction))


def _is_accident(error: BaseException) -> bool:
    """Whether the same attempt may well succeed the next time."""
    if isinstance(error, InjectedFault | NonzeroExitCode | DeviceError):
        return True
    return isinstance(error, OSError) and not isinstance(
        error, FileNotFoundError | PermissionError | IsADirectoryError
    )


def _final(task: Task, error: BaseException, how: str = "") -> BaseException:
    """The error that the user gets: which operation, which partition, why."""
    where = f" (partition {task.partition})" if task.partition else ""
    note = f"{how}: " if how else ""
    if isinstance(error, PlanError):
        return type(error)(f"{task.name}{where}: {note}{error}")
    if isinstance(error, TaskError) and not how:
        return error
    return TaskError(f"{task.name}{where}: {note}{type(error).__name__}: {error}")
