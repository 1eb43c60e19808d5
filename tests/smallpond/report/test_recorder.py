"""What a recorder remembers, against plain dicts and numpy."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpond.events import (
    Advanced,
    Event,
    Metrics,
    RunFinished,
    RunStarted,
    Stage,
    State,
    TaskEvent,
)
from smallpond.report import Recorder
from smallpond.report.stages import StageStatistics
from tests.smallpond.report.made_runs import Sketch, Step

ENDS = (State.FINISHED, State.FAILED, State.CANCELLED)
amounts = st.integers(0, 5)
times = st.integers(0, 40).map(lambda n: n / 8)
metrics = st.builds(Metrics, amounts, amounts, amounts, amounts, amounts, times)
# One attempt: when it starts, how long it takes (None: it runs), how it ends, whether its start
# and its end are told.
attempts = st.fixed_dictionaries(
    {
        "begin": times,
        "length": st.none() | times,
        "end": st.sampled_from(ENDS),
        "start_told": st.booleans(),
        "metrics": metrics,
        "passes": st.sampled_from([1, 4]),
        "speculative": st.booleans(),
    }
)
tasks = st.fixed_dictionaries(
    {
        "stage": st.integers(0, 3),
        "reused": st.booleans(),
        "attempts": st.lists(attempts, max_size=3),
    }
)


def event_stream(told: list[dict[str, Any]]) -> list[TaskEvent]:
    events = []
    for number, task in enumerate(told):
        common = {"run_idx": 7, "stage_idx": task["stage"], "task_key": f"t{number}"}
        if task["reused"]:
            events.append(TaskEvent(time_s=0.0, state=State.REUSED, **common))
        for index, attempt in enumerate(task["attempts"]):
            common |= {"attempt": index, "speculative": attempt["speculative"]}
            common |= {"passes": attempt["passes"]}
            if attempt["start_told"] or attempt["length"] is None:
                events.append(TaskEvent(time_s=attempt["begin"], state=State.STARTED, **common))
            if attempt["length"] is not None:
                end = attempt["begin"] + attempt["length"]
                measured = attempt["metrics"]
                events.append(
                    TaskEvent(time_s=end, state=attempt["end"], metrics=measured, **common)
                )
    # A start comes before the end even where both are at the same time.
    return sorted(events, key=lambda e: (e.time_s, e.state is not State.STARTED))


def expected(stage: int, told: list[dict[str, Any]], last_s: float) -> dict[str, Any]:
    """The statistics of a stage from what was made up."""
    own = [task for task in told if task["stage"] == stage]
    tried = [(task, i, a) for task in own for i, a in enumerate(task["attempts"])]
    spans = []
    for _, _, a in tried:
        end = last_s if a["length"] is None else a["begin"] + a["length"]
        begin = a["begin"] if a["start_told"] or a["length"] is None else end
        spans.append((begin, end))
    done = [
        (task, a, end - begin)
        for (task, _, a), (begin, end) in zip(tried, spans, strict=True)
        if a["length"] is not None and a["end"] is State.FINISHED
    ]
    lengths = [length for _, _, length in done] or [0.0]
    rows = [max(a["metrics"].rows_in, a["metrics"].rows_out) for _, a, _ in done]
    sums = {
        name: sum(getattr(a["metrics"], name) for _, a, _ in done)
        for name in ("rows_in", "rows_out", "bytes_in", "bytes_out", "spilled_bytes", "cpu_s")
    }
    ended = [a["end"] for _, _, a in tried if a["length"] is not None]
    return sums | {
        "num_finished": sum(any(t is task for t, _, _ in done) for task in own),
        "num_reused": sum(task["reused"] for task in own),
        "num_attempts": len(tried),
        "num_failed": ended.count(State.FAILED),
        "num_cancelled": ended.count(State.CANCELLED),
        "num_running": sum(a["length"] is None for _, _, a in tried),
        "num_retries": sum(i > 0 and not a["speculative"] for _, i, a in tried),
        "num_speculative": sum(a["speculative"] for _, _, a in tried),
        "most_passes": max((a["passes"] for _, _, a in tried), default=1),
        "wall_s": max(e for _, e in spans) - min(b for b, _ in spans) if spans else 0.0,
        "busy_s": sum(end - begin for begin, end in spans),
        "p50_s": np.quantile(lengths, 0.5),
        "p95_s": np.quantile(lengths, 0.95),
        "longest_s": max(lengths),
        "most_rows": max(rows, default=0),
        "skew_time": max(*lengths, 1e-3) / max(float(np.median(lengths)), 1e-3),
        "skew_rows": max([*rows, 1]) / max(float(np.median(rows or [1])), 1),
    }


@given(st.lists(tasks, max_size=5))
def test_statistics_are_those_of_the_attempts(told: list[dict[str, Any]]) -> None:
    stages = tuple(Stage(i, f"stage {i}", 3, tuple(range(i)), 10 * i) for i in range(3))
    events = event_stream(told)  # some are of a stage 3, which the run does not have
    recorder = Recorder()
    recorder(RunStarted(7, 0.0, stages))
    for event in events:
        recorder(event)
    (run,) = recorder.runs()
    last_s = max((event.time_s for event in events), default=0.0)
    assert run.last_s == last_s
    for stage, found in zip(stages, run.statistics(), strict=True):
        wanted = expected(stage.stage_idx, told, last_s)
        assert {name: getattr(found, name) for name in wanted} == pytest.approx(wanted)
        assert (found.name, found.num_tasks) == (stage.name, 3)
        assert (found.input_stages, found.input_bytes) == (stage.input_stages, stage.input_bytes)
        known = {"name", "stage_idx", "num_tasks", "input_stages", "input_bytes"}
        assert set(StageStatistics.__slots__) == wanted.keys() | known


def one_run() -> list[Event]:
    task = {"run_idx": 4, "stage_idx": 0, "task_key": "aa", "partition": "0/2"}
    other = task | {"task_key": "bb", "partition": "1/2"}
    return [
        RunStarted(4, 100.0, (Stage(0, "scan", 2, (), 64), Stage(1, "sum", 1, (0,)))),
        TaskEvent(time_s=100.0, state=State.REUSED, **other),
        TaskEvent(time_s=101.0, state=State.STARTED, worker="local", **task),
        Advanced(4, 0, 0.5),
        TaskEvent(
            time_s=102.0, state=State.FAILED, worker="process-1", error="OSError: gone", **task
        ),
        TaskEvent(time_s=102.5, state=State.STARTED, worker="local", attempt=1, **task),
        TaskEvent(
            time_s=104.5, state=State.FINISHED, worker="thread", attempt=1,
            metrics=Metrics(10, 5, 80, 40, 7, 1.5), **task,
        ),
        TaskEvent(4, 105.0, 1, "cc", State.STARTED, speculative=True, passes=4),
    ]  # fmt: skip


def test_json_of_a_small_run() -> None:
    recorder = Recorder()
    for event in one_run():
        recorder(event)
    document = recorder.to_json()
    (run,) = document.pop("runs")
    assert document == {"version": 1, "num_forgotten_runs": 0}
    scan, total = run.pop("stages")
    assert run == {
        "run_idx": 4,
        "begin_s": 100.0,
        "end_s": None,
        "error": "",
        "attempts": {
            "stage_idx": [0, 0, 0, 1],
            "task": ["bb", "aa", "aa", "cc"],
            "partition": ["1/2", "0/2", "0/2", ""],
            "worker": ["", "process-1", "thread", ""],
            "number": [0, 0, 1, 0],
            "passes": [1, 1, 1, 4],
            "speculative": [False, False, False, True],
            "state": ["reused", "failed", "finished", "started"],
            "begin_s": [100.0, 101.0, 102.5, 105.0],
            "end_s": [100.0, 102.0, 104.5, None],
            "rows_in": [0, 0, 10, 0],
            "rows_out": [0, 0, 5, 0],
            "bytes_in": [0, 0, 80, 0],
            "bytes_out": [0, 0, 40, 0],
            "spilled_bytes": [0, 0, 7, 0],
            "cpu_s": [0.0, 0.0, 1.5, 0.0],
        },
        "errors": [(1, "OSError: gone")],
    }
    assert scan == {
        "stage_idx": 0, "name": "scan", "num_tasks": 2, "input_stages": (), "input_bytes": 64,
        "num_finished": 1, "num_reused": 1, "num_attempts": 2, "num_failed": 1,
        "num_cancelled": 0, "num_running": 0, "num_retries": 1, "num_speculative": 0,
        "most_passes": 1, "rows_in": 10, "rows_out": 5, "bytes_in": 80, "bytes_out": 40,
        "spilled_bytes": 7, "cpu_s": 1.5, "wall_s": 3.5, "busy_s": 3.0, "p50_s": 2.0,
        "p95_s": 2.0, "longest_s": 2.0, "most_rows": 10, "skew_time": 1.0, "skew_rows": 1.0,
    }  # fmt: skip
    assert (total["num_running"], total["num_speculative"], total["most_passes"]) == (1, 1, 4)
    json.dumps(recorder.to_json(), allow_nan=False)


def test_a_run_that_is_over_changes_no_more() -> None:
    recorder = Recorder()
    for event in (*one_run(), RunFinished(4, 106.0, "TaskError: no")):
        recorder(event)
    before = json.dumps(recorder.to_json())
    recorder(TaskEvent(4, 107.0, 1, "cc", State.FINISHED))
    recorder(TaskEvent(5, 107.0, 1, "cc", State.FINISHED))
    recorder(RunFinished(4, 108.0))
    assert json.dumps(recorder.to_json()) == before
    (run,) = recorder.to_json()["runs"]
    assert (run["end_s"], run["error"]) == (106.0, "TaskError: no")


def test_a_clock_that_is_set_back_gives_no_negative_times() -> None:
    recorder = Recorder()
    recorder(RunStarted(0, 50.0, (Stage(0, "scan", 1),)))
    recorder(TaskEvent(0, 50.0, 0, "aa", State.STARTED))
    recorder(TaskEvent(0, 20.0, 0, "aa", State.FINISHED))
    (run,) = recorder.runs()
    (stage,) = run.statistics()
    assert (stage.wall_s, stage.busy_s, run.last_s) == (0.0, 0.0, 50.0)


def test_what_is_looked_at_stays_as_it_was() -> None:
    recorder = Recorder()
    events = one_run()
    for event in events[:3]:
        recorder(event)
    (run,) = recorder.runs()
    for event in events[3:]:
        recorder(event)
    (stage, _) = run.statistics()
    assert (stage.num_running, stage.num_failed) == (1, 0)


def tiny(run_idx: int, num_tasks: int) -> list[Event]:
    return Sketch([Step("scan", num_tasks, 0.1)]).events(run_idx)


def test_old_runs_are_forgotten() -> None:
    recorder = Recorder(max_attempts=10)
    for run_idx in range(6):
        for event in tiny(run_idx, 4):
            recorder(event)
    assert [run.run_idx for run in recorder.runs()] == [4, 5]
    assert recorder.num_forgotten == 4
    for event in tiny(6, 30)[:-1]:
        recorder(event)
    assert [len(run.attempts) for run in recorder.runs()] == [30]  # the latest stays whole
    assert recorder.to_json()["num_forgotten_runs"] == 6


def test_runs_without_tasks_are_forgotten_too() -> None:
    recorder = Recorder(max_runs=3)
    for run_idx in range(5):
        for event in tiny(run_idx, 0):
            recorder(event)
    assert [run.run_idx for run in recorder.runs()] == [2, 3, 4]


def test_a_hundred_bytes_an_attempt_and_a_thousand_errors() -> None:
    recorder = Recorder()
    recorder(RunStarted(0, 0.0, (Stage(0, "scan", 1),)))
    for number in range(3000):
        recorder(TaskEvent(0, 0.0, 0, "aa", State.STARTED, number))
        recorder(TaskEvent(0, 0.0, 0, "aa", State.FAILED, number, error="e" * 10_000))
    (run,) = recorder.runs()
    columns = [getattr(run.attempts, name) for name in run.attempts.__slots__]
    assert {len(column) for column in columns} == {3000}
    assert sum(column.itemsize for column in columns) <= 100
    assert len(run.errors) == 1000
    assert max(map(len, run.errors.values())) == 500


def test_events_from_many_threads() -> None:
    recorder = Recorder()
    recorder(RunStarted(0, 0.0, (Stage(0, "scan", 800),)))

    def work(worker: int) -> None:
        for number in range(100):
            key = f"{worker}-{number}"
            recorder(TaskEvent(0, 1.0, 0, key, State.STARTED))
            recorder(TaskEvent(0, 2.0, 0, key, State.FINISHED, metrics=Metrics(rows_out=number)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (run,) = recorder.runs()
    (stage,) = run.statistics()
    assert (stage.num_finished, stage.num_running, stage.rows_out) == (800, 0, 8 * 4950)
    assert stage.busy_s == 800.0
