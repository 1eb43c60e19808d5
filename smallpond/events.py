"""What a run tells its listeners: tasks that wait, start, advance, end; nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    """What has just become of an attempt at a task."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"  # the attempt; the task may be tried again
    REUSED = "reused"  # an earlier run left the finished output
    CANCELLED = "cancelled"  # another attempt was faster, or the run was interrupted


@dataclass(frozen=True, slots=True)
class Stage:
    """Tasks that do the same to different partitions.

    Attributes:
        stage_idx: its number in the run; inputs have lower numbers.
        name: what it does, such as "group_by (partial)".
        num_tasks: how many tasks it has.
        input_stages: numbers of the stages whose outputs it reads.
        input_bytes: estimate of what its tasks read in all, None where unknown.
    """

    stage_idx: int
    name: str
    num_tasks: int
    input_stages: tuple[int, ...] = ()
    input_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one finished attempt measured.

    Attributes:
        rows_in, rows_out, bytes_in, bytes_out: data read and handed on.
        spilled_bytes: the most that the engine held in its temporary files.
        cpu_s: processor time, where the executor knows it.
    """

    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    spilled_bytes: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A graph of tasks is about to run."""

    run_idx: int
    time_s: float
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One attempt at one task changed state.

    Attributes:
        time_s: seconds since the epoch.
        attempt: 0 for the first try, counted up by retries and speculative copies.
        worker: where it ran, such as "thread-0", "process-1" or a node's name.
        partition: which of the stage's partitions, such as "3/10".
        error: one line, for failed attempts.
        speculative: whether it is a second copy of a straggler.
        passes: in how many passes the task runs; more than one after a lack of memory.
    """

    run_idx: int
    time_s: float
    stage_idx: int
    task_key: str
    state: State
    attempt: int = 0
    worker: str = ""
    partition: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    error: str = ""
    speculative: bool = False
    passes: int = 1


@dataclass(frozen=True, slots=True)
class Advanced:
    """Running tasks got further; sent a few times a second, for a progress bar.

    Attributes:
        fraction: how much of the stage's running tasks is done, summed over them, in tasks.
    """

    run_idx: int
    stage_idx: int
    fraction: float


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event of a run; ``error`` is empty when it succeeded."""

    run_idx: int
    time_s: float
    error: str = ""


Event = RunStarted | TaskEvent | Advanced | RunFinished
Listener = Callable[[Event], None]
