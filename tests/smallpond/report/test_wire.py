"""What a page carries, and how it comes into its file."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from smallpond.errors import PlanError
from smallpond.events import Event, Metrics, RunFinished, RunStarted, Stage, State, TaskEvent
from smallpond.report import Recorder, timeline
from smallpond.report.timeline import page, write_html
from smallpond.report.wire import run_document
from tests.smallpond.report.made_runs import Sketch, Step


def recorded(*streams: Iterable[Event]) -> Recorder:
    recorder = Recorder()
    for stream in streams:
        for event in stream:
            recorder(event)
    return recorder


def task(stage: int, key: str, begin_s: float, end_s: float, **more: object) -> list[TaskEvent]:
    """A start and an end; `state`, `error` and `metrics` belong to the end."""
    of_end = {name: more.pop(name) for name in ("state", "error", "metrics") if name in more}
    of_end = {"state": State.FINISHED} | of_end
    start = TaskEvent(0, begin_s, stage, key, State.STARTED, **more)  # type: ignore[arg-type]
    end = TaskEvent(0, end_s, stage, key, **more, **of_end)  # type: ignore[arg-type]
    return [start, end]


SMALL = [
    RunStarted(0, 10.0, (Stage(3, "scan", 3), Stage(5, "sum", 1, (3, 4)))),
    TaskEvent(0, 10.0, 3, "reused", State.REUSED),
    *task(3, "a" * 32, 10.5, 12.0, worker="process-10", partition="0/3"),
    *task(3, "b", 10.25, 11.0, worker="process-9", state=State.FAILED, error="OSError: gone"),
    *task(3, "b", 11.0, 12.5, worker="process-9", attempt=1, metrics=Metrics(1, 2, 3, 4, 5, 0.75)),
    *task(3, "c", 11.5, 11.5, worker="process-9"),
    *task(4, "of no stage", 10.0, 11.0),
    TaskEvent(0, 13.0, 5, "d", State.STARTED, worker="process-9", speculative=True, passes=4),
    RunFinished(0, 14.0, "TaskError: no"),
]


def test_a_small_run() -> None:
    (run,) = recorded(SMALL).runs()
    document = run_document(run, run.statistics())
    stages = document.pop("stages")
    assert [(stage["name"], stage["wall"]) for stage in stages] == [
        ("scan", 2_250_000),
        ("sum", 1_000_000),
    ]
    assert document == {
        "run": 0,
        "begin": 10.0,
        "wall": 4_000_000,
        "over": True,
        "error": "TaskError: no",
        "most_at_once": 3,
        "num_left_out": 0,
        "graph": {
            "width": 2,
            "height": 1.0,
            "places": [[0, 0.0], [1, 0.0]],
            "edges": [[0, 1, [[0, 0.0], [1, 0.0]]]],
        },
        "states": ["started", "finished", "failed", "reused", "cancelled"],
        "workers": ["", "process-10", "process-9"],
        "lanes": [[2, 2], [1, 1]],
        "partitions": ["", "0/3"],
        "tasks": ["reused", "a" * 12, "b", "c", "of no stage", "d"],
        "attempts": {
            "stage": [0, 0, 0, 0, 1],
            "lane": [0, 2, 0, 1, 0],
            "begin": [250_000, 500_000, 1_000_000, 1_500_000, 3_000_000],
            "end": [1_000_000, 2_000_000, 2_500_000, 1_500_000, 4_000_000],
            "cpu": [0, 0, 750_000, 0, 0],
            "task": [2, 1, 2, 3, 5],
            "partition": [0, 1, 0, 0, 0],
            "worker": [2, 1, 2, 2, 2],
            "number": [0, 0, 1, 0, 0],
            "passes": [1, 1, 1, 1, 4],
            "speculative": [0, 0, 0, 0, 1],
            "state": [2, 1, 1, 1, 0],
            "rows_in": [0, 0, 1, 0, 0],
            "rows_out": [0, 0, 2, 0, 0],
            "bytes_in": [0, 0, 3, 0, 0],
            "bytes_out": [0, 0, 4, 0, 0],
            "spilled_bytes": [0, 0, 5, 0, 0],
        },
        "errors": [[0, "OSError: gone"]],
    }


def test_of_too_many_attempts_the_short_ones_that_went_well_are_left_out() -> None:
    steps = [Step("scan", 200, 0.1), Step("sum", 50, 0.2, (0,))]
    (run,) = recorded(Sketch(steps, failing=0.1, copied=0.1).events()).runs()
    whole = run_document(run, run.statistics())
    some = run_document(run, run.statistics(), max_drawn=120)
    assert whole["num_left_out"] == 0
    assert some["num_left_out"] == len(whole["attempts"]["begin"]) - 120

    def rows(document: dict[str, dict[str, list[int]]]) -> list[tuple[int, ...]]:
        columns = document["attempts"]
        names = [name for name in columns if name != "lane"]
        return list(zip(*(columns[name] for name in names), strict=True))

    def plain(document: dict[str, dict[str, list[int]]]) -> list[int]:
        columns = document["attempts"]
        told = zip(columns["state"], columns["number"], strict=True)
        return [row for row, (state, number) in enumerate(told) if (state, number) == (1, 0)]

    kept, all_rows = rows(some), rows(whole)
    left_out = set(all_rows) - set(kept)
    assert kept == [row for row in all_rows if row in set(kept)]
    shortest = min(e - b for r in plain(some) for _, b, e, *_ in [kept[r]])
    assert all(end - begin <= shortest for _, begin, end, *_ in left_out)
    assert left_out <= {all_rows[row] for row in plain(whole)}


HOSTILE = "</script><img src=x onerror=alert(1)><!--<script> $style ${alert(2)} \ud800 \u2028 ]]>"


def hostile_run() -> list[Event]:
    told = task(
        0, HOSTILE, 0.0, 1.0, partition=HOSTILE, worker=HOSTILE, error=HOSTILE, state=State.FAILED
    )
    return [
        RunStarted(9, 0.0, (Stage(0, HOSTILE, 1), Stage(1, "", 1, (0,)))),
        *(replace(event, run_idx=9) for event in told),
        RunFinished(9, 1.0, HOSTILE),
    ]


def test_nothing_from_outside_can_end_what_holds_it() -> None:
    text = page(recorded(hostile_run()))
    tags = re.findall(r"<(?:/?script|img|!--)", text)
    assert tags == ["<script", "</script"] * 2
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?!data:)\w+:", text)
    assert "default-src 'none'" in text


def test_a_page_is_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text("old")
    write_html(recorded(hostile_run()), str(path))
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["run.html"]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("where", ["while it is made", "before it is in its place"])
def test_an_unfinished_page_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.html"
    path.write_text("old")
    if where == "while it is made":
        monkeypatch.setattr(timeline, "run_document", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_html(recorded(SMALL), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.html"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"report: path must name a file, got the folder .*tmp"):
        write_html(Recorder(), tmp_path)
    with pytest.raises(PlanError, match=r"report: there is no folder .*gone \(make it first\)"):
        write_html(Recorder(), tmp_path / "gone" / "run.html")


def test_forgotten_and_failed_runs_are_noted() -> None:
    recorder = Recorder(max_runs=30)
    for number in range(35):
        recorder(RunStarted(number, 0.0, ()))
        recorder(RunFinished(number, 1.0, f"no <{number}>"))
    notes = re.findall("<li>(.*?)</li>", page(recorder).split("</ul>", maxsplit=1)[0])
    assert notes == [
        *(f"run {number} failed: no &lt;{number}&gt;" for number in range(5, 25)),
        "10 more runs failed",
        "5 earlier runs are not kept",
    ]
