"""The benchmark of data frames: what counts as the same result, and who is measured."""

import dataclasses
import io
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.case import Peer
from benchmarks.cases.smallpond import CASES
from benchmarks.dataframes import data, process, tree, watch
from benchmarks.dataframes.digest import (
    Digest,
    difference,
    digest_of_files,
    digest_of_table,
    rows_of_files,
)
from benchmarks.dataframes.job import MEASURES, NAMES, RECORDS, Job
from benchmarks.dataframes.process import EVERY
from benchmarks.dataframes.rounds import play
from benchmarks.dataframes.truth import truth_of
from benchmarks.dataframes.watch import EngineError, Run

CPU = torch.device("cpu")
SMALL = Job("every", 300, groups=40, files=3)
GOOD = Run(start_s=1.0, seconds=2.0, cpu_s=3.0, grown_bytes=4, exit_s=5.0, total_s=6.0)


# ---- what counts as the same result


def _table(seed: int, num_rows: int = 200) -> pa.Table:
    numbers = np.random.default_rng(seed)
    texts = [None if n % 17 == 0 else "é" * (n % 5) + str(n) for n in range(num_rows)]
    return pa.table(
        {
            "k": pa.array(np.arange(num_rows), mask=numbers.random(num_rows) < 0.1),
            "v": numbers.random(num_rows),
            "w": pa.array([None if n % 7 == 0 else n / 3 for n in range(num_rows)]),
            "text": pa.array(texts),
        }
    )


def _shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(len(table)))


SAME = {
    "rows in another order": lambda t: _shuffled(t, 3),
    "columns in another order": lambda t: t.select(["text", "w", "k", "v"]),
    "many small batches": lambda t: pa.concat_tables([t.slice(n, 7) for n in range(0, len(t), 7)]),
    "narrow integers": lambda t: t.set_column(0, "k", t["k"].cast(pa.uint16())),
    "decimals": lambda t: t.set_column(0, "k", t["k"].cast(pa.decimal128(38, 0))),
    "texts with long offsets": lambda t: t.set_column(3, "text", t["text"].cast(pa.large_string())),
    "texts as views": lambda t: t.set_column(3, "text", t["text"].cast(pa.string_view())),
    "texts by number": lambda t: t.set_column(3, "text", t["text"].dictionary_encode()),
    "sums in another order": lambda t: t.set_column(
        1, "v", pa.array(np.nextafter(t["v"].to_numpy(), 2.0))
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_results_that_mean_the_same_are_the_same(
    change: Callable[[pa.Table], pa.Table], seed: int
) -> None:
    table = _table(seed)
    assert difference(digest_of_table(change(table)), digest_of_table(table)) < 1e-12


def _replaced(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def _swapped(table: pa.Table, name: str, one: int, other: int) -> pa.Table:
    values = table[name].to_pylist()
    first = _replaced(table, name, one, values[other])
    return _replaced(first, name, other, values[one])


WRONG = {
    "a row short": lambda t: t.slice(1),
    "a row twice": lambda t: pa.concat_tables([t.slice(1), t.slice(1, 1)]),
    "no rows": lambda t: t.slice(0, 0),
    "another integer": lambda t: _replaced(t, "k", 5, 999),
    "integers swapped": lambda t: _swapped(t, "k", 198, 199),
    "texts swapped": lambda t: _swapped(t, "text", 8, 9),
    "letters swapped": lambda t: _replaced(t, "text", 12, "éé21"),
    "empty for null": lambda t: _replaced(t, "text", 17, ""),
    "zero for null": lambda t: _replaced(t, "w", 7, 0.0),
    "NaN for null": lambda t: _replaced(t, "w", 7, math.nan),
    "NaN for a number": lambda t: _replaced(t, "v", 5, math.nan),
    "one float off": lambda t: _replaced(t, "v", 5, t["v"][5].as_py() + 1e-4),
    "floats swapped": lambda t: _swapped(t, "w", 1, 198),
    "a column short": lambda t: t.drop_columns(["w"]),
    "a column more": lambda t: t.append_column("more", t["k"]),
    "renamed": lambda t: t.rename_columns({"text": "name"}),
    "columns swapped": lambda t: t.rename_columns({"v": "w", "w": "v"}),
    "floats as integers": lambda t: t.set_column(1, "v", pa.array([0] * len(t))),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_results_that_differ_are_told_apart(
    change: Callable[[pa.Table], pa.Table], seed: int
) -> None:
    # Every null and NaN of these stands in a row that is there.
    table = _replaced(_replaced(_table(seed), "k", 198, 198), "k", 199, 199)
    assert difference(digest_of_table(change(table)), digest_of_table(table)) > 1e-9


def test_a_digest_survives_json(seed: int) -> None:
    digest = digest_of_table(_table(seed))
    fields = dataclasses.asdict(digest) | {"columns": list(digest.columns)}
    assert Digest.of_json(fields) == digest


def _files(folder: Path, *parts: list[int]) -> Path:
    for name, keys in enumerate(parts):
        pq.write_table(pa.table({"k": pa.array(keys, pa.int64())}), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("parts", "ordered"),
    [
        pytest.param(([1, 2], [2, 3]), True, id="in order"),
        pytest.param(([3, 4], [-1, 2]), True, id="ranges in any order"),
        pytest.param(([1, 2], [], [3]), True, id="an empty file"),
        pytest.param(([2, 1],), False, id="a file out of order"),
        pytest.param(([1, 4], [2, 5]), False, id="ranges that overlap"),
        pytest.param(([*range(65_537)], [5]), False, id="a file behind that overlaps"),
        pytest.param(([*range(1, 65_537), 0],), False, id="out of order between batches"),
    ],
)
def test_order_is_that_of_files_and_within_them(
    tmp_path: Path, parts: tuple[list[int], ...], ordered: bool
) -> None:
    folder = _files(tmp_path, *parts)
    assert digest_of_files(folder, "k").ordered is ordered
    assert rows_of_files(folder) == digest_of_files(folder).rows == sum(map(len, parts))
    assert digest_of_files(folder).ordered  # when nobody asks


# ---- the right results, once more in plain Python


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    data.make(SMALL, folder)
    return folder


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return rows


def _by_hand(workload: str, folder: Path) -> list[dict[str, Any]]:
    rows = _rows(folder / MEASURES)
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["k"], []).append(row)
    if workload == "group_by":
        return [
            {
                "k": key,
                "total": sum(row["v"] for row in group),
                "num": len(group),
                "first": min(row["id"] for row in group),
                "largest": max(row["v"] for row in group),
            }
            for key, group in groups.items()
        ]
    if workload == "medians":
        return [
            {"k": key, "middle": statistics.median(row["v"] for row in group)}
            for key, group in groups.items()
        ]
    if workload == "join":
        names = {row["k"]: row for row in _rows(folder / NAMES)}
        return [row | names[row["k"]] for row in rows if row["k"] in names]
    if workload == "sort":
        return sorted(_rows(folder / RECORDS), key=lambda row: row["k"])
    if workload == "tasks":
        return [{"item": number + 1} for number in range(SMALL.rows)]
    return [{"id": row["id"], "x": 2 * row["v"] + row["k"]} for row in rows]


@pytest.mark.parametrize("workload", EVERY)
def test_truth_is_that_of_plain_python(workload: str, inputs: Path) -> None:
    by_hand = digest_of_table(pa.Table.from_pylist(_by_hand(workload, inputs)))
    assert difference(truth_of(workload, inputs, SMALL.rows), by_hand) < 1e-12


def test_inputs_are_what_the_workloads_are_about(inputs: Path) -> None:
    rows = _rows(inputs / MEASURES)
    assert [row["id"] for row in rows] == [*range(SMALL.rows)]
    assert len(list((inputs / MEASURES).iterdir())) == SMALL.files
    assert {row["k"] for row in rows} <= {*range(SMALL.groups)}
    joined = truth_of("join", inputs, SMALL.rows)
    assert 0 < joined.rows < SMALL.rows  # some keys have no name
    assert {len(row["text"]) for row in _rows(inputs / RECORDS)} == {data.TEXT_BYTES}


# ---- rounds

TRUTHS = {"sort": Digest(("k",), 10, 77, {"v": (1.0, 2.0, 4.0)})}
RIGHT = dataclasses.replace(GOOD, rows={"sort": 10}, digests=TRUTHS)


def _play(engines: dict[str, Callable[[bool], Run]], **changes: Any) -> Any:
    settings = {"tolerance": 1e-9, "rounds": 3, "patience_s": 100.0} | changes
    return play(engines, TRUTHS, **settings)


def test_every_engine_runs_once_a_round_in_changing_order() -> None:
    calls: list[tuple[str, bool]] = []

    def engine(name: str) -> Callable[[bool], Run]:
        return lambda check: (calls.append((name, check)), RIGHT)[1]

    names = {"a", "b", "c", "d"}
    played = _play({name: engine(name) for name in sorted(names)})
    rounds = [calls[begin : begin + 4] for begin in (0, 4, 8)]
    assert [{name for name, _ in part} for part in rounds] == [names] * 3
    assert [{check for _, check in part} for part in rounds] == [{True}, {False}, {False}]
    assert len({tuple(name for name, _ in part) for part in rounds}) > 1
    assert {name: len(runs) for name, runs in played.runs.items()} == dict.fromkeys(names, 3)
    assert played.errors == dict.fromkeys(names, 0.0)


def test_a_slow_engine_takes_part_in_few_rounds() -> None:
    slow = dataclasses.replace(RIGHT, total_s=60.0)
    played = _play({"slow": lambda _: slow, "fast": lambda _: RIGHT})
    assert (len(played.runs["slow"]), len(played.runs["fast"])) == (2, 3)


def _late(change: Run) -> Callable[[bool], Run]:
    return lambda check: RIGHT if check else change


WORSE = Digest(("k",), 10, 77, {"v": (1.0, 2.1, 4.0)})


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (
            lambda _: dataclasses.replace(RIGHT, digests={"sort": WORSE}),
            "its error is 2.5e-02",
        ),
        (lambda _: dataclasses.replace(RIGHT, rows={"sort": 9}), "its sort has 9 rows, not 10"),
        (_late(dataclasses.replace(RIGHT, rows={"sort": 11})), "its sort has 11 rows, not 10"),
    ],
)
def test_a_wrong_result_costs_all_times_of_that_engine(
    engine: Callable[[bool], Run], reason: str
) -> None:
    played = _play({"wrong": engine, "right": lambda _: RIGHT})
    assert played.left_out == {"wrong": reason}
    assert played.runs.keys() == {"right"}


# ---- processes


def _run(engine: str, job: Job, inputs: Path, tmp_path: Path, **settings: Any) -> Run:
    settings = {"check": True, "timeout_s": 200.0} | settings
    run = watch.run_once(engine, job, inputs, tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []
    return run


def _assert_right(run: Run, inputs: Path) -> None:
    assert run.rows.keys() == run.digests.keys() == set(EVERY)
    for workload, digest in run.digests.items():
        assert difference(digest, truth_of(workload, inputs, SMALL.rows)) < 1e-9, workload


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray-data", "daft"])
def test_an_engine_does_every_workload(engine: str, inputs: Path) -> None:
    if find_spec(engine.partition("-")[0]) is None:
        pytest.skip(f"{engine} is not installed")
    # Sockets need a path that is shorter than those of pytest.
    with tempfile.TemporaryDirectory() as folder:
        _assert_right(_run(engine, SMALL, inputs, Path(folder)), inputs)


def test_a_run_without_checks_counts_rows(inputs: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(SMALL, workload="sort")
    run = _run("duckdb", job, inputs, tmp_path, check=False)
    assert (run.rows, run.digests) == ({"sort": SMALL.rows}, {})


@pytest.mark.parametrize(("limit_mb", "written"), [(0, False), (100, True)])
@pytest.mark.parametrize("workload", ["group_by", "medians"])
def test_results_under_a_limit_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workload: str, limit_mb: int, written: bool
) -> None:
    class Fake:
        def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
            assert measures == tmp_path / MEASURES
            if out is None:
                return pa.table({"k": [1, 2]})
            pq.write_table(pa.table({"k": [1, 2, 3]}), out / "a.parquet")
            return None

        medians = group_by

    said: list[dict[str, Any]] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    process._run(
        lambda event, **fields: said.append({"event": event, **fields}),
        Fake(),
        workload,
        Job(workload, 10, limit_mb=limit_mb),
        tmp_path,
        tmp_path / "out",
        check=False,
    )
    assert [event["event"] for event in said] == ["next", "done", "checked"]
    assert said[-1]["rows"] == (3 if written else 2)
    assert not (tmp_path / "out").exists()


def test_a_failing_engine_gives_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"IOException.*No files found that match"):
        _run("duckdb", Job("sort", 10), tmp_path / "nothing", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cap", "timeout_s", "reason"),
    [(lambda _: -1, 200.0, "grew beyond -0 MB"), (lambda _: None, 0.0, "not done after 0 s")],
)
def test_who_takes_too_much_is_ended(
    monkeypatch: pytest.MonkeyPatch,
    inputs: Path,
    tmp_path: Path,
    cap: Callable[[int], int | None],
    timeout_s: float,
    reason: str,
) -> None:
    monkeypatch.setattr(watch, "cap_bytes", cap)
    job = dataclasses.replace(SMALL, workload="sort")
    with pytest.raises(EngineError, match=f"ended: {reason}"):
        _run("duckdb", job, inputs, tmp_path, timeout_s=timeout_s)
    assert list(tmp_path.iterdir()) == []
    commands = [Path(f"/proc/{pid}/cmdline") for pid in tree.tree_of(os.getpid())]
    assert not any(b"dataframes.process" in path.read_bytes() for path in commands)


def test_a_cap_goes_with_a_limit() -> None:
    assert watch.cap_bytes(0) is None
    assert watch.cap_bytes(250) == 564 * 10**6


def _parent_and_child() -> subprocess.Popen[str]:
    """A process that has started another one, which has worked for 0.05 s; both wait."""
    works = "import os, time\nwhile sum(os.times()[:2]) < 0.05: pass\n"
    waits = works + "print(1, flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "1\n"
    return parent


def _wait_until_gone(pids: list[int]) -> None:
    for _ in range(2000):
        if not tree.memory_bytes(pids):
            return
        time.sleep(0.01)
    pytest.fail("they still run")


LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


@LINUX
def test_a_tree_has_the_children_of_children() -> None:
    with _parent_and_child() as parent:
        pids = tree.tree_of(parent.pid)
        assert len(pids) == 2
        assert {parent.pid} < {*pids} < {*tree.tree_of(os.getpid())}
        each = [tree.memory_bytes([pid]) for pid in pids]
        assert tree.memory_bytes(pids) <= sum(each)
        assert min(each) > 10**6
        assert tree.cpu_seconds(pids) >= 0.05
        tree.end(pids)
    _wait_until_gone(pids)
    tree.end(pids)  # again: they are gone, and that is no error


@LINUX
def test_descendants_end_with_their_process() -> None:
    watched = watch._Watched.__new__(watch._Watched)
    watched.process, watched.reader = _parent_and_child(), threading.Thread()
    watched.reader.start()
    pids = tree.tree_of(watched.process.pid)
    watched.end()
    _wait_until_gone(pids)
    assert watched.process.returncode < 0


# ---- the case

(CASE,) = CASES


def _peers(**runs: Any) -> dict[str, Peer]:
    return {name: Peer(run, devices=("cpu",)) for name, run in runs.items()}


def _measured(monkeypatch: pytest.MonkeyPatch, ours: Any, job: Job, **peers: Any) -> Any:
    monkeypatch.setattr(watch, "run_once", lambda _, *args, **settings: ours(*args, **settings))
    return CASE.measure(job, CPU, _peers(**peers), 1.0)


def _answering(run: Run, change: float = 0.0) -> Callable[..., Run]:
    def answer(job: Job, inputs: Path, folder: Path, **_: Any) -> Run:
        assert folder in inputs.parents
        truth = truth_of(job.workload, inputs, job.rows)
        sums = {name: (a + change, b, c) for name, (a, b, c) in truth.sums.items()}
        digest = dataclasses.replace(truth, sums=sums)
        return dataclasses.replace(
            run, rows={job.workload: truth.rows}, digests={job.workload: digest}
        )

    return answer


def test_times_of_right_results_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Run:
        raise EngineError("Out of Memory Error: no more")

    slower = dataclasses.replace(GOOD, seconds=3.0)
    job = dataclasses.replace(SMALL, workload="medians")
    measured = _measured(
        monkeypatch, _answering(GOOD), job, duckdb=broken, polars=_answering(slower)
    )
    assert measured.error == 0
    assert {name: timing.samples_us for name, timing in measured.timings.items()} == {
        "ours": (2e6,) * 3,
        "polars": (3e6,) * 3,
    }
    assert "duckdb left out: Out of Memory Error: no more" in measured.notes
    (note,) = (note for note in measured.notes if note.startswith("polars: "))
    assert note == (
        "polars: min 3.000 s, median 3.000 s of 3; CPU 3.00 s, at most 0 MB more; "
        "whole process 6.00 s"
    )


def test_a_wrong_result_of_ours_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    job = dataclasses.replace(SMALL, workload="medians")
    measured = _measured(monkeypatch, _answering(GOOD, 1e6), job)
    assert measured.error > 1
    assert not measured.timings


def test_a_failure_of_ours_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Run:
        raise EngineError("TaskError: no such column")

    with pytest.raises(RuntimeError, match="smallpond: TaskError: no such column"):
        _measured(monkeypatch, broken, dataclasses.replace(SMALL, workload="medians"))


@pytest.mark.parametrize(("workload", "us"), [("start", 1e6), ("exit", 5e6)])
def test_start_and_exit_are_timed_by_themselves(
    monkeypatch: pytest.MonkeyPatch, workload: str, us: float
) -> None:
    measured = _measured(monkeypatch, lambda *_, **__: GOOD, Job(workload, 1))
    assert measured.timings["ours"].samples_us == (us,) * 3


def test_absent_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.cases.smallpond.find_spec", lambda _: None)
    measured = _measured(monkeypatch, lambda *_, **__: GOOD, Job("start", 1), daft=None)
    assert "daft left out: daft is not installed" in measured.notes


def test_random_state_of_others_is_left_alone() -> None:
    random.seed(1)
    before = random.getstate()
    _play({"a": lambda _: RIGHT})
    assert random.getstate() == before
