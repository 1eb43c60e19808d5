"""The scheduler's loop against an executor that does just what a test says."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from smallpond import scheduler
from smallpond.errors import (
    CorruptedDataError,
    DeviceError,
    InjectedFault,
    NonzeroExitCode,
    OutOfMemory,
    PlanError,
    StallError,
    TaskError,
)
from smallpond.events import Event, Stage, State, TaskEvent
from smallpond.executors import Outcome, Worker
from smallpond.handoff import Part
from smallpond.physical import Graph
from smallpond.plan import Concat, Distinct, Memory, Parts, Plan, Sort, SortKey, TaskOutput
from smallpond.results import Results
from smallpond.scheduler import Scheduler
from smallpond.task import Attempt, Resources, Result, Settings, Task, ToParts

Answer = Callable[[Attempt], Outcome | None]
TABLE = Memory("table", pa.table({"a": [1, 2, 3]}))
SOURCE = Distinct(TABLE)
TWO = (Worker("w0", 2, 1000),)


def part(attempt: Attempt) -> Part:
    """What an attempt leaves; there is no file, and nobody reads it."""
    return Part(f"{attempt.settings.output_root}/{attempt.id}.arrow", (), 3, 24, lossless=True)


def done(attempt: Attempt) -> Outcome:
    """The attempt finishes."""
    return Outcome(attempt.id, Result(((part(attempt),),)), worker="w0")


def failed(error: BaseException, *, lost: bool = False) -> Answer:
    """Every attempt fails so."""
    return lambda attempt: Outcome(attempt.id, error=error, lost=lost, worker="w0")


@dataclass
class Scripted:
    """An executor that asks `answer` what has become of each running attempt; None: it runs on."""

    answer: Answer = done
    present: Sequence[Worker] = TWO
    shared_memory: bool = True
    submitted: list[Attempt] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    running: dict[str, Attempt] = field(default_factory=dict)
    busiest: int = 0

    def workers(self) -> list[Worker]:
        return list(self.present)

    def submit(self, attempt: Attempt) -> None:
        self.submitted.append(attempt)
        self.running[attempt.id] = attempt
        self.busiest = max(self.busiest, sum(a.cpus for a in self.running.values()))

    def cancel(self, attempt_id: str) -> None:
        self.cancelled.append(attempt_id)
        self.running.pop(attempt_id, None)

    def quiet(self, timeout_s: float) -> None:
        del timeout_s
        self.calls.append("quiet")

    def wait(self, timeout_s: float) -> list[Outcome]:
        outcomes = [o for a in list(self.running.values()) if (o := self.answer(a)) is not None]
        for outcome in outcomes:
            del self.running[outcome.attempt_id]
        if not outcomes:
            time.sleep(min(timeout_s, 0.001))
        return outcomes

    def progress(self) -> dict[str, float]:
        return {}

    def warm(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


@dataclass
class Setting:
    """A scheduler over a scripted executor, and what it told."""

    root: Path
    executor: Scripted = field(default_factory=Scripted)
    seen: list[Event] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    made: Scheduler | None = None

    @property
    def scheduler(self) -> Scheduler:
        if self.made is None:
            settings = Settings(str(self.root), str(self.root))
            results = Results(str(self.root), resumed=False)
            self.made = Scheduler(
                self.executor, settings, results, [self.seen.append], **self.changes
            )
        return self.made

    def run(self, *tasks: Task) -> dict[str, Result]:
        stages = {t.stage_idx: Stage(t.stage_idx, t.name, 1) for t in tasks}
        return self.scheduler.run(Graph(list(tasks), list(stages.values())))

    def states(self, *wanted: State) -> list[tuple[str, int]]:
        return [
            (e.task_key, e.attempt)
            for e in self.seen
            if isinstance(e, TaskEvent) and e.state in wanted
        ]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(scheduler, "_RETRY_S", 0.0005)
    return Setting(tmp_path)


def task(name: str, *, stage: int = 0, program: Plan = SOURCE, **resources: Any) -> Task:
    """A task that can be cut into passes; its name is a part of its key, through the seed."""
    seed = zlib.crc32(name.encode())
    return Task(program, ToParts(), stage, name, resources=Resources(**resources), seed=seed)


def after(name: str, *inputs: Task, stage: int = 1) -> Task:
    """A task that reads what others leave."""
    return task(name, stage=stage, program=Concat(tuple(TaskOutput(t.key) for t in inputs)))


def keys(attempts: Sequence[Attempt]) -> list[str]:
    return [attempt.key for attempt in attempts]


# ---- when all goes well


def test_a_task_gets_what_its_inputs_left(setting: Setting) -> None:
    a, b = task("a"), task("b")
    c = after("c", a, b)
    results = setting.run(a, b, c)
    first, second, third = setting.executor.submitted
    assert keys([first, second, third]) == [a.key, b.key, c.key]
    assert third.task.program == Parts((part(first), part(second)))
    assert results[c.key].outputs == ((part(third),),)
    assert setting.states(State.STARTED) == setting.states(State.FINISHED)
    assert "quiet" not in setting.executor.calls, "nothing is left that could write"


def test_earlier_stages_come_first_and_no_worker_is_overloaded(setting: Setting) -> None:
    tasks = [task(f"t{i}", stage=i % 3) for i in range(12)]
    setting.run(*tasks)
    stages = [attempt.task.stage_idx for attempt in setting.executor.submitted]
    assert stages == sorted(stages)
    assert setting.executor.busiest == 2


def test_finished_tasks_and_what_only_they_read_are_not_run_again(setting: Setting) -> None:
    a = task("a")
    b = after("b", a)
    c = after("c", b, stage=2)
    setting.run(a, b)
    setting.scheduler.results.forget(a.key)
    setting.executor.submitted.clear()
    results = setting.run(a, b, c)
    assert keys(setting.executor.submitted) == [c.key]
    assert results[b.key].outputs
    assert results[a.key] == Result()
    assert [key for key, _ in setting.states(State.REUSED)] == [b.key, a.key]


def test_what_was_left_is_read_again_by_a_run_that_takes_up_the_job(setting: Setting) -> None:
    a = task("a")
    setting.run(a)
    setting.made = None
    again = setting.scheduler
    again.results = Results(str(setting.root), resumed=True)
    setting.run(a)
    assert len(setting.executor.submitted) == 1


def test_what_one_reader_still_needs_is_run_again(setting: Setting) -> None:
    a = task("a")
    b, c = after("b", a), after("c", a)
    setting.run(a, b)
    setting.scheduler.results.forget(a.key)
    setting.executor.submitted.clear()
    setting.run(a, b, c)
    assert keys(setting.executor.submitted) == [a.key, c.key]


# ---- accidents


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk"),
        InjectedFault("on purpose"),
        DeviceError("read failed"),
        NonzeroExitCode("exit code 3"),
    ],
)
def test_accidents_are_tried_again_three_times(setting: Setting, error: Exception) -> None:
    setting.executor.answer = lambda a: done(a) if a.number == 3 else failed(error)(a)
    a = task("a")
    assert setting.run(a)[a.key].outputs
    assert [attempt.number for attempt in setting.executor.submitted] == [0, 1, 2, 3]
    assert {attempt.passes for attempt in setting.executor.submitted} == {1}
    assert len({attempt.id for attempt in setting.executor.submitted}) == 4


def test_each_retry_waits_longer_than_the_one_before(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_RETRY_S", 0.02)
    times: list[float] = []

    def answer(attempt: Attempt) -> Outcome | None:
        times.append(time.monotonic())
        return failed(OSError("disk"))(attempt)

    setting.executor.answer = answer
    with pytest.raises(TaskError):
        setting.run(task("a"))
    waited = [later - earlier for earlier, later in pairwise(times)]
    assert all(wait >= least for wait, least in zip(waited, [0.04, 0.08, 0.16], strict=True))


def test_the_fourth_accident_is_final(setting: Setting) -> None:
    setting.executor.answer = failed(OSError("disk"))
    with pytest.raises(TaskError, match="sort: failed 4 times: OSError: disk"):
        setting.run(task("sort"))
    assert len(setting.executor.submitted) == 4


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("gone"),
        PermissionError("no"),
        IsADirectoryError("a folder"),
        ValueError("wrong"),
        TaskError("map: f raised"),
    ],
)
def test_mistakes_are_not_tried_again(setting: Setting, error: Exception) -> None:
    setting.executor.answer = failed(error)
    with pytest.raises(TaskError, match=str(error)) as raised:
        setting.run(task("a"), task("b"))
    assert len(setting.executor.submitted) <= 2
    assert (raised.value is error) == isinstance(error, TaskError)


def test_a_mistake_in_a_plan_names_the_task(setting: Setting) -> None:
    setting.executor.answer = failed(PlanError("no such key"))
    with pytest.raises(PlanError, match="range partition: no such key"):
        setting.run(task("range partition"))


def test_the_others_are_stopped_when_one_has_failed_for_good(setting: Setting) -> None:
    a, b = task("a"), task("b")
    setting.executor.answer = lambda x: failed(ValueError("wrong"))(x) if x.key == a.key else None
    with pytest.raises(TaskError):
        setting.run(a, b)
    [other] = [x for x in setting.executor.submitted if x.key == b.key]
    assert setting.executor.cancelled == [other.id]
    assert setting.executor.calls == ["quiet"], "what still writes is waited for"
    assert setting.states(State.CANCELLED) == [(b.key, 0)]


def test_an_interrupt_stops_what_runs(setting: Setting) -> None:
    def answer(attempt: Attempt) -> None:
        raise KeyboardInterrupt

    setting.executor.answer = answer
    with pytest.raises(KeyboardInterrupt):
        setting.run(task("a"), task("b"))
    assert len(setting.executor.cancelled) == 2
    assert setting.executor.calls == ["quiet"]


# ---- memory


def test_what_lacks_memory_gets_a_worker_for_itself_and_more_passes(setting: Setting) -> None:
    setting.executor.present = [Worker("small", 4, 100), Worker("big", 2, 1000)]
    setting.executor.answer = lambda a: (
        done(a) if a.passes == 64 else failed(OutOfMemory("not enough"))(a)
    )
    setting.run(task("a"))
    assert [a.passes for a in setting.executor.submitted] == [1, 4, 16, 64]
    assert [(a.cpus, a.memory_bytes) for a in setting.executor.submitted] == [
        (1, 25), (1, 1000), (1, 1000), (1, 1000),
    ]  # fmt: skip


def test_what_lacks_memory_in_64_passes_never_has_enough(setting: Setting) -> None:
    setting.executor.answer = failed(OutOfMemory("not enough"))
    with pytest.raises(OutOfMemory, match="distinct: not enough; raise memory_limit, or repart"):
        setting.run(task("distinct"))
    assert len(setting.executor.submitted) == 4


def test_what_cannot_be_cut_is_tried_once_more_alone(setting: Setting) -> None:
    setting.executor.answer = failed(OutOfMemory("not enough"))
    whole = task("sort", program=Sort(TABLE, (SortKey("a"),)))
    with pytest.raises(OutOfMemory, match="sort: not enough"):
        setting.run(whole)
    assert len(setting.executor.submitted) == 2


def test_a_worker_lost_twice_may_have_lacked_memory(setting: Setting) -> None:
    error = NonzeroExitCode("ended by SIGKILL")
    setting.executor.answer = lambda a: done(a) if a.number == 5 else failed(error, lost=True)(a)
    setting.run(task("a"))
    assert [a.passes for a in setting.executor.submitted] == [1, 1, 4, 4, 16, 16]


def test_a_worker_lost_by_what_cannot_be_cut_is_no_lack_of_memory_for_sure(
    setting: Setting,
) -> None:
    setting.executor.answer = failed(NonzeroExitCode("ended by SIGKILL"), lost=True)
    whole = task("sort", program=Sort(TABLE, (SortKey("a"),)))
    with pytest.raises(TaskError, match=r"sort: its worker died each time: .*ended by SIGKILL"):
        setting.run(whole)
    assert len(setting.executor.submitted) == 4


def test_a_worker_lost_again_and_again_is_told_as_such(setting: Setting) -> None:
    setting.executor.answer = failed(NonzeroExitCode("ended by SIGKILL"), lost=True)
    with pytest.raises(TaskError, match=r"map: .*ended by SIGKILL"):
        setting.run(task("map"))
    assert len(setting.executor.submitted) <= 8


# ---- stragglers


@pytest.fixture
def hasty(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Nothing is too short to be a straggler."""
    monkeypatch.setattr(scheduler, "_MIN_STRAGGLER_S", 0.01)
    return setting


def six(setting: Setting, straggles: Answer) -> tuple[list[Task], dict[str, Result]]:
    """Runs six tasks of one stage, of which the last does as it is told."""
    tasks = [task(f"t{i}") for i in range(6)]
    setting.executor.answer = lambda a: straggles(a) if a.key == tasks[-1].key else done(a)
    return tasks, setting.run(*tasks)


def test_a_straggler_gets_a_copy_and_the_first_to_finish_counts(hasty: Setting) -> None:
    tasks, results = six(hasty, lambda a: done(a) if a.number == 1 else None)
    original, copy = (a for a in hasty.executor.submitted if a.key == tasks[-1].key)
    assert (original.speculative, copy.speculative) == (False, True)
    assert results[copy.key].outputs == ((part(copy),),)
    assert hasty.executor.cancelled == [original.id]
    assert hasty.states(State.CANCELLED) == [(copy.key, 0)]


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_copy_that_fails_leaves_it_to_the_other(hasty: Setting, wrong: int) -> None:
    fails = failed(ValueError("only here"))
    begun: set[str] = set()

    def answer(attempt: Attempt) -> Outcome | None:
        begun.add(attempt.id)
        if len(begun) < 2:
            return None
        if attempt.number == wrong:
            return fails(attempt)
        return done(attempt) if hasty.states(State.FAILED) else None

    tasks, results = six(hasty, answer)
    assert results[tasks[-1].key].outputs
    assert hasty.states(State.FAILED) == [(tasks[-1].key, wrong)]


def test_a_copy_that_wins_frees_the_other_s_place_at_once(hasty: Setting) -> None:
    tasks = [task(f"t{i}") for i in range(6)]
    last = after("last", *tasks)

    def answer(attempt: Attempt) -> Outcome | None:
        if attempt.key == last.key:
            assert len(hasty.executor.running) == 1
        slow = attempt.key == tasks[-1].key and attempt.number == 0
        return None if slow else done(attempt)

    hasty.executor.answer = answer
    hasty.run(*tasks, last)
    assert len(hasty.executor.submitted) == 8


def test_what_takes_no_long_time_gets_no_copy(setting: Setting) -> None:
    end = time.monotonic() + 0.1
    six(setting, lambda a: done(a) if time.monotonic() > end else None)
    assert len(setting.executor.submitted) == 6


def test_a_copy_takes_no_place_from_what_waits(hasty: Setting) -> None:
    tasks = [*(task(f"t{i}") for i in range(6)), task("big", stage=1, cpus=2)]
    end = time.monotonic() + 0.1
    hasty.executor.answer = lambda a: (
        None if a.key == tasks[5].key and time.monotonic() < end else done(a)
    )
    hasty.run(*tasks)
    assert keys(hasty.executor.submitted) == [t.key for t in tasks]


def test_there_is_one_copy_at_a_time(hasty: Setting) -> None:
    hasty.executor.present = [Worker("w0", 4, 1000)]
    end = time.monotonic() + 0.2
    tasks, _ = six(hasty, lambda a: done(a) if time.monotonic() > end else None)
    assert keys(hasty.executor.submitted).count(tasks[-1].key) == 2


def test_no_copies_if_they_are_not_wanted_or_no_worker_is_idle(hasty: Setting) -> None:
    hasty.changes["speculate"] = False
    end = time.monotonic() + 0.1
    six(hasty, lambda a: done(a) if time.monotonic() > end else None)
    assert len(hasty.executor.submitted) == 6
    hasty.made, hasty.changes = None, {}
    hasty.scheduler.results = Results(str(hasty.root / "other"), resumed=False)
    hasty.executor.submitted.clear()
    hasty.executor.present = [Worker("w0", 1, 1000)]
    end = time.monotonic() + 0.1
    six(hasty, lambda a: done(a) if time.monotonic() > end else None)
    assert len(hasty.executor.submitted) == 6


# ---- damaged files


def damaged(by: Attempt) -> CorruptedDataError:
    """The error of one who finds a file damaged that an attempt wrote."""
    return CorruptedDataError(f"{part(by).url}: damaged")


def test_the_writer_of_a_damaged_file_runs_again_once(setting: Setting) -> None:
    a = task("a")
    b = after("b", a)
    submitted = setting.executor.submitted
    setting.executor.answer = lambda x: (
        done(x) if x.key == a.key or len(submitted) > 3 else failed(damaged(submitted[0]))(x)
    )
    setting.run(a, b)
    assert keys(submitted) == [a.key, b.key, a.key, b.key]
    assert submitted[3].task.program == Parts((part(submitted[2]),))


def test_a_file_that_is_damaged_again_is_an_error(setting: Setting) -> None:
    a = task("a")
    b = after("b", a)
    submitted = setting.executor.submitted
    setting.executor.answer = lambda x: (
        done(x)
        if x.key == a.key
        else failed(damaged([y for y in submitted if y.key == a.key][-1]))(x)
    )
    with pytest.raises(TaskError, match=r"b: CorruptedDataError: .*damaged"):
        setting.run(a, b)
    assert keys(submitted) == [a.key, b.key] * 2


def test_inputs_that_were_skipped_are_computed_for_a_damaged_result(setting: Setting) -> None:
    a = task("a")
    b = after("b", a)
    c = after("c", b, stage=2)
    submitted = setting.executor.submitted
    setting.run(a, b)
    old = submitted[1]
    setting.scheduler.results.forget(a.key)
    submitted.clear()
    setting.executor.answer = lambda x: (
        failed(damaged(old))(x) if x.key == c.key and len(submitted) == 1 else done(x)
    )
    setting.run(a, b, c)
    assert keys(submitted) == [c.key, a.key, b.key, c.key]


def test_a_damaged_file_of_nobody_here_is_an_error(setting: Setting) -> None:
    setting.executor.answer = failed(CorruptedDataError("/elsewhere/x-0-0.arrow: damaged"))
    with pytest.raises(TaskError, match="elsewhere"):
        setting.run(task("a"))
    assert len(setting.executor.submitted) == 1


def test_two_readers_of_a_damaged_file_have_it_made_once(setting: Setting) -> None:
    a = task("a")
    b, c = after("b", a), after("c", a)
    submitted = setting.executor.submitted

    def answer(x: Attempt) -> Outcome | None:
        if x.key == a.key:
            return done(x)
        reads_first = x.task.program == Parts((part(submitted[0]),))
        if reads_first and len(submitted) < 3:
            return None  # until both run
        return failed(damaged(submitted[0]))(x) if reads_first else done(x)

    setting.executor.answer = answer
    setting.run(a, b, c)
    assert keys(submitted).count(a.key) == 2
    assert len(submitted) == 6


def test_what_was_ready_to_read_a_damaged_file_waits_for_the_new_one(setting: Setting) -> None:
    setting.executor.present = [Worker("w0", 1, 1000)]
    a = task("a")
    b, c = after("b", a), after("c", a)
    submitted = setting.executor.submitted
    setting.executor.answer = lambda x: (
        failed(damaged(submitted[0]))(x) if len(submitted) == 2 else done(x)
    )
    setting.run(a, b, c)
    assert keys(submitted) == [a.key, b.key, a.key, b.key, c.key]
    assert {x.task.program for x in submitted[3:]} == {Parts((part(submitted[2]),))}


# ---- what cannot come


def test_no_worker_is_an_error_that_names_the_tasks(setting: Setting) -> None:
    setting.executor.present = ()
    setting.changes["stall_s"] = 0.05
    with pytest.raises(
        StallError, match="2 tasks are blocked, because there is no worker left: so"
    ):
        setting.run(task("sort"), task("other"))


def test_workers_that_come_in_time_are_used(setting: Setting) -> None:
    setting.executor.present = ()
    setting.changes["stall_s"] = 60.0
    calls = 0

    def workers() -> list[Worker]:
        nonlocal calls
        calls += 1
        return list(TWO) if calls > 20 else []

    setting.executor.workers = workers  # type: ignore[method-assign]
    setting.run(task("a"))
    assert len(setting.executor.submitted) == 1


def test_inputs_that_cannot_come_are_an_error_at_once(setting: Setting) -> None:
    setting.changes["stall_s"] = 3600.0
    with pytest.raises(StallError, match="1 tasks are blocked, because their inputs cannot come"):
        setting.run(after("b", task("a that is not in the graph")))


def test_more_than_there_is_is_said_once(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "smallpond"):
        setting.run(*(replace(task(f"t{i}", cpus=9), name="map") for i in range(3)))
    assert [record.getMessage() for record in caplog.records] == [
        "map asks for 9 CPUs, more than any worker has; it gets 2 CPUs"
    ]
    assert {attempt.cpus for attempt in setting.executor.submitted} == {2}
