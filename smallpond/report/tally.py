"""How far a run is: counters that events feed, and what follows from them. Nothing is drawn."""

from __future__ import annotations

from smallpond.events import Advanced, RunStarted, Stage, State, TaskEvent


class StageTally:
    """How far one stage is.

    Attributes:
        begin_s, end_s: when its first attempt started and when an attempt last ended; None until
            then.
        rows, num_bytes: what finished attempts read; what they handed on where that is unknown.
        retries: attempts after the first of a task, without second copies of stragglers.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.begin_s: float | None = None
        self.end_s: float | None = None
        self.rows = 0
        self.num_bytes = 0
        self.retries = 0
        self._done: set[str] = set()
        self._num_reused = 0
        self._num_running = 0
        self._fraction = 0.0

    @property
    def num_done(self) -> int:
        """Tasks whose output is there."""
        return len(self._done)

    @property
    def num_tasks(self) -> int:
        """All tasks."""
        return max(self.stage.num_tasks, len(self._done))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return len(self._done) >= self.stage.num_tasks

    @property
    def is_running(self) -> bool:
        """Whether it has begun, and has something left to do."""
        return self.begin_s is not None and not self.is_done

    def take(self, event: TaskEvent | Advanced) -> None:
        """Counts an event of the stage."""
        if isinstance(event, Advanced):
            self._fraction = max(0.0, event.fraction)
            return
        if event.state is State.STARTED:
            if self.begin_s is None:
                self.begin_s = event.time_s
            self._num_running += 1
            self.retries += event.attempt > 0 and not event.speculative
            self._done.discard(event.task_key)  # its output was damaged, and is made again
            return
        if event.state is State.REUSED:
            self._num_reused += event.task_key not in self._done
            self._done.add(event.task_key)
            return
        self.end_s = event.time_s
        self._num_running = max(0, self._num_running - 1)
        if event.state is State.FINISHED:
            self._done.add(event.task_key)
            self.rows += event.metrics.rows_in or event.metrics.rows_out
            self.num_bytes += event.metrics.bytes_in or event.metrics.bytes_out

    @property
    def tasks_done(self) -> float:
        """Tasks done, with what running ones have done; full only when all are finished."""
        if self.is_done:
            return float(self.num_tasks)
        running = min(self._fraction, 0.99 * self._num_running)
        return min(self.num_done + running, self.num_tasks - 0.01)

    def speeds(self, now_s: float) -> tuple[float, float]:
        """Rows and bytes a second since it began."""
        if self.begin_s is None or now_s <= self.begin_s:
            return 0.0, 0.0
        elapsed_s = now_s - self.begin_s
        num_bytes = float(self.num_bytes)
        if self.stage.input_bytes is not None and self.stage.num_tasks:
            # What running tasks have read is not told; how far they are is.
            running = max(0.0, self.tasks_done - self.num_done)
            num_bytes += running * self.stage.input_bytes / self.stage.num_tasks
        return self.rows / elapsed_s, num_bytes / elapsed_s

    def left_s(self, now_s: float) -> float | None:
        """How much longer it will take if it goes on as it did; None while nothing is known."""
        if self.begin_s is None:
            return None
        worked = self.tasks_done - self._num_reused  # what an earlier run left took no time
        left = self.num_tasks - self.tasks_done
        if worked <= 0:
            return None
        return max(0.0, now_s - self.begin_s) * left / worked


class RunTally:
    """How far a run is; ``stages`` by their numbers."""

    def __init__(self, event: RunStarted) -> None:
        self.run_idx = event.run_idx
        self.begin_s = event.time_s
        self.stages = {stage.stage_idx: StageTally(stage) for stage in event.stages}

    def stage_of(self, event: TaskEvent | Advanced) -> StageTally | None:
        """The stage that an event is about; None if it belongs to another run."""
        return self.stages.get(event.stage_idx) if event.run_idx == self.run_idx else None
