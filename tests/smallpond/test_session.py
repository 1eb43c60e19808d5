"""Sessions: what they touch, what they leave, and when they compute."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smallpond
from smallpond.config import Config
from smallpond.errors import MissingInputError, OutputExistsError, PlanError
from smallpond.events import Metrics, State, TaskEvent
from tests.oracles.smallpond import assert_same, query

ROOT = Path(smallpond.__file__).parents[1]


def python(code: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SP_")}
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


# ---- side effects


def test_importing_has_no_side_effects_and_needs_neither_duckdb_nor_ray() -> None:
    done = python(
        """
        import logging, os, sys, threading
        before = (set(os.environ.items()), sys.getrecursionlimit(), logging.root.level,
                  list(logging.root.handlers), threading.active_count(), os.getcwd())
        import smallpond
        after = (set(os.environ.items()), sys.getrecursionlimit(), logging.root.level,
                 list(logging.root.handlers), threading.active_count(), os.getcwd())
        assert before == after, (before, after)
        heavy = {"duckdb", "ray", "pandas", "polars", "torch", "rich", "pyarrow", "numpy",
                 "fsspec", "s3fs", "deltalake", "pyiceberg", "graphviz", "cloudpickle"}
        print(sorted(heavy & set(sys.modules)))
        """,
        "-W", "error",
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_init_touches_no_disk_and_starts_nothing(tmp_path: Path) -> None:
    done = python(
        f"""
        import os, sys, threading
        import smallpond
        sp = smallpond.init(data_root={str(tmp_path / "root")!r})
        df = sp.from_items([{{"a": 1}}]).map("a + 1 AS b").repartition(3, hash_by="b")
        print(os.path.exists({str(tmp_path / "root")!r}), threading.active_count())
        print(sorted({{"ray", "polars", "torch", "rich", "s3fs"}} & set(sys.modules)))
        print(sp.config.job_root.startswith({str(tmp_path / "root")!r}))
        """,
        "-W", "error",
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["False 1", "[]", "True"]
    assert list(tmp_path.iterdir()) == []


WORKING = """
    import os, pathlib, sys
    import smallpond

    def sockets():
        found = {{os.readlink(p) for p in pathlib.Path("/proc/self/fd").iterdir() if p.is_symlink()
                 and os.path.lexists(p)}}
        inodes = {{f[8:-1] for f in found if f.startswith("socket:[")}}
        listening = []
        for name in ("tcp", "tcp6", "udp", "udp6"):
            for line in pathlib.Path("/proc/net", name).read_text().splitlines()[1:]:
                if line.split()[9] in inodes:
                    listening.append(line)
        return listening

    if __name__ == "__main__":
        sp = smallpond.init(data_root={root!r}, cpus=2)
        df = sp.from_items([{{"a": i}} for i in range(10)])
        moved = df.repartition(3, hash_by="a").map(lambda row: {{"b": row["a"] * 2}})
        print(moved.agg("sum(b) AS s").take_all(), sockets())
        print(sorted(p.name for p in pathlib.Path({root!r}).glob("*/*")))
        {end}
"""


@pytest.mark.parametrize("end", ["sp.shutdown()", "pass", "sys.exit(0)", "del sp, df, moved"])
def test_a_program_leaves_nothing_and_listens_nowhere(tmp_path: Path, end: str) -> None:
    done = python(WORKING.format(root=str(tmp_path / "root"), end=end), "-W", "error")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[{'s': 90}] []", "['output', 'temp']"]
    assert list((tmp_path / "root").iterdir()) == []


def test_what_failed_keeps_what_it_finished_if_the_job_has_a_name(tmp_path: Path) -> None:
    def fails(sp: smallpond.Session) -> None:
        df = sp.from_items([1, 2, 3]).repartition(2, hash_by="item")
        df.compute()
        df.map("error('on purpose') AS x").to_arrow()

    for name, left in ((None, 0), ("kept", 1)):
        with (
            pytest.raises(Exception, match="on purpose"),
            smallpond.init(job_id=name, data_root=str(tmp_path), cpus=1, progress=False) as sp,
        ):
            fails(sp)
        assert len(list(tmp_path.iterdir())) == left
    [folder] = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["output"]


def test_the_output_is_kept_if_so_wished(tmp_path: Path) -> None:
    with smallpond.init(data_root=str(tmp_path), _remove_output_root=False, cpus=1) as sp:
        sp.from_items([1, 2, 3]).repartition(2, hash_by="item").compute()
    [folder] = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["output"]


def test_a_session_of_many_queries_leaves_no_threads_or_descriptors_behind(
    tmp_path: Path,
) -> None:
    done = python(
        f"""
        import gc, os, threading, time
        import smallpond
        def used():
            gc.collect()
            # The one that watches for spilling ends by itself, a moment after the last task.
            threads = [t for t in threading.enumerate() if t.name != "smallpond spill"]
            return len(threads), len(os.listdir("/proc/self/fd"))
        sp = smallpond.init(data_root={str(tmp_path)!r}, cpus=2)
        df = sp.from_items([{{"a": i}} for i in range(10)]).repartition(2, hash_by="a")
        def work():
            assert df.map(f"a + {{time.perf_counter_ns()}} AS b").filter("b > 0").count() == 10
        for _ in range(5):
            work()
        before = used()
        for _ in range(20):
            work()
        print(before == used(), before, used())
        """
    )
    assert done.stdout.startswith("True"), done.stdout + done.stderr


# ---- the environment


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SP_JOBID", "from-env")
    monkeypatch.setenv("SP_JOB_TIME", "2024-05-06T07:08:09")
    monkeypatch.setenv("SP_DATA_ROOT", str(tmp_path / "env"))
    monkeypatch.setenv("SP_BIND_NUMA_NODE", "1")
    monkeypatch.setenv("SP_MEMORY_ALLOCATOR", "jemalloc")
    monkeypatch.setenv("SP_PLATFORM", "mpi")
    config = Config.from_args_and_env(
        job_id="argument", job_time=0.0, data_root="/nowhere", bind_numa_node=False,
        memory_allocator="system", platform="other",
    )  # fmt: skip
    assert config.job_root == f"{tmp_path / 'env'}/2024-05-06-07-08-09.from-env"
    assert config.bind_numa_node
    assert (config.memory_allocator, config.platform) == ("jemalloc", "mpi")
    assert config.executor == "embedded"
    monkeypatch.setenv("SP_NUM_EXECUTORS", "3")
    assert Config.from_args_and_env(num_executors=0).num_executors == 3
    assert Config.from_args_and_env(num_executors=0).executor == "ray"
    monkeypatch.setenv("SP_NUM_EXECUTORS", "many")
    with pytest.raises(PlanError, match="SP_NUM_EXECUTORS: a whole number expected, got 'many'"):
        Config.from_args_and_env()
    monkeypatch.delenv("SP_NUM_EXECUTORS")
    monkeypatch.setenv("SP_RAY_ADDRESS", "ray://somewhere:1")
    assert Config.from_args_and_env(ray_address="local").ray_address == "ray://somewhere:1"


def test_times_and_roots_are_what_is_given(tmp_path: Path) -> None:
    for time in (1714979289.0, "2024-05-06T07:08:09"):
        config = Config.from_args_and_env(job_id="j", job_time=time, data_root=str(tmp_path))
        assert config.job_root == f"{tmp_path}/2024-05-06-07-08-09.j"
    assert Config.from_args_and_env(data_root="s3://b/x/").data_root == "s3://b/x"
    assert Config.from_args_and_env().data_root == str(Path.home() / ".smallpond" / "data")
    assert Config.from_args_and_env(data_root="here").data_root == str(Path("here").absolute())


# ---- computing, once and again


class Calls:
    """Counts calls in other processes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = str(folder)

    def __len__(self) -> int:
        return len(list(Path(self._folder).iterdir()))

    def function(self) -> Callable[[dict[str, int]], dict[str, int]]:
        folder = self._folder

        def counted(row: dict[str, int]) -> dict[str, int]:
            import uuid  # noqa: PLC0415

            Path(folder, uuid.uuid4().hex).touch()
            return {"b": row["a"] * 2}

        return counted


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path / "calls")


def test_what_was_computed_is_reused_by_all_that_follows(
    sp: smallpond.Session, calls: Calls
) -> None:
    base = sp.from_items([{"a": i} for i in range(20)])
    made = base.map(calls.function())
    assert not made.is_computed()
    made.compute()
    assert made.is_computed()
    assert len(calls) == 20
    assert made.map("b + 1 AS c").sort("c").take(1) == [{"c": 1}]
    assert made.take(3) == [{"b": 0}, {"b": 2}, {"b": 4}]
    assert made.count() == made.repartition(3, hash_by="b").count() == 20
    assert made.map(lambda row: row).count() == 20
    assert base.map(calls.function()).count() == 20, "an equal plan is the same plan"
    made.compute()
    assert len(calls) == 20
    assert not made.map("b").is_computed()
    sp.wait(made, made.map("b"))
    assert made.map("b").is_computed()
    assert len(calls) == 20


def test_rows_that_were_fetched_are_kept_too(sp: smallpond.Session, calls: Calls) -> None:
    made = sp.from_items([{"a": i} for i in range(20)]).map(calls.function())
    first = made.to_arrow()
    assert len(calls) == 20
    assert_same(made.to_arrow(), first)
    assert made.filter("b > 10").count() == 14
    assert len(calls) == 20


def test_recompute_calls_functions_again_once(sp: smallpond.Session, calls: Calls) -> None:
    made = sp.from_items([{"a": i} for i in range(20)]).map(calls.function())
    made.compute()
    assert made.recompute() is made
    assert len(calls) == 20, "it waits for the next use"
    assert made.count() == 20
    assert len(calls) == 40
    assert made.count() == 20
    assert len(calls) == 40
    made.recompute().compute()
    assert len(calls) == 60
    assert made.recompute().map("b + 1 AS c").count() == 20
    assert len(calls) == 80


def test_cache_keeps_what_the_first_use_computes(sp: smallpond.Session, calls: Calls) -> None:
    cached = sp.from_items([{"a": i} for i in range(20)]).map(calls.function()).cache()
    assert len(calls) == 0
    assert not cached.is_computed()
    assert cached.filter("b < 10").count() == 5
    assert cached.is_computed()
    assert cached.agg("sum(b) AS s").take_all() == [{"s": 380}]
    assert len(calls) == 20


def test_a_shared_part_of_a_plan_is_computed_once(sp: smallpond.Session, calls: Calls) -> None:
    made = sp.from_items([{"a": i} for i in range(20)]).map(calls.function())
    both = made.filter("b < 10").union(made.filter("b >= 10"), made)
    assert both.count() == 40
    assert len(calls) == 20


def test_input_files_that_change_are_read_again(sp: smallpond.Session, tmp_path: Path) -> None:
    source = str(tmp_path / "data")
    sp.from_items([{"a": 1}]).write_parquet(source)
    first = sp.read_parquet(source)
    first.compute()
    sp.from_items([{"a": 2}, {"a": 3}]).write_parquet(source, mode="overwrite")
    assert sp.read_parquet(source).sort("a").take_all() == [{"a": 2}, {"a": 3}]


def test_lazy_writing_writes_once(sp: smallpond.Session, tmp_path: Path) -> None:
    target = tmp_path / "out"
    lazy = sp.from_items([{"a": 3}, {"a": 4}]).write_parquet_lazy(str(target))
    assert lazy.columns == ["a"]
    assert f"write parquet to {target}" in lazy.explain("logical")
    assert not target.exists()
    assert lazy.count() == 2
    assert [path.suffix for path in target.iterdir()] == [".parquet"]
    assert lazy.is_computed()
    assert lazy.take_all() == [{"a": 3}, {"a": 4}]
    sp.wait(lazy)
    assert len(list(target.iterdir())) == 1


Uses: TypeAlias = dict[str, Callable[[smallpond.DataFrame, Path], object]]
USES: Uses = {
    "compute": lambda df, _: df.compute(),
    "a derived frame": lambda df, _: df.map("b + 1 as c").filter("c > 3").take_all(),
    "a join": lambda df, _: df.join(df, on="b").count(),
    "SQL": lambda df, _: df.session.sql("SELECT count(*) AS n FROM {x}", x=df).take_all(),
    "batches": lambda df, _: list(df.iter_batches()),
    "another writer": lambda df, path: df.write_csv(path / "csv"),
    "another lazy writer": lambda df, path: df.write_parquet_lazy(path / "more").compute(),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_needs_lazily_written_rows_writes_them(
    sp: smallpond.Session, tmp_path: Path, calls: Calls, use: str
) -> None:
    target = tmp_path / "out"
    schema = pa.schema({"b": pa.int64()})  # otherwise the function is asked for it
    df = sp.from_items([{"a": 3}, {"a": 4}]).map(calls.function(), schema=schema)
    df = df.map("b, b // 4 as k")
    lazy = df.write_parquet_lazy(target, partition_by="k")
    assert not target.exists()
    USES[use](lazy, tmp_path)
    assert sorted(path.name for path in target.iterdir()) == ["k=1", "k=2"]
    assert lazy.to_arrow().column_names == ["b", "k"]
    assert len(calls) == 2  # once for each row, for the files and for what is read later
    with pytest.raises(OutputExistsError):
        df.write_parquet_lazy(target, partition_by="k").count()
    appended = df.write_parquet_lazy(target, partition_by="k", mode="append")
    assert appended.count() == 2
    assert sp.read_parquet(target, recursive=True).count() == 4


def test_what_only_looks_at_a_plan_computes_nothing(sp: smallpond.Session, calls: Calls) -> None:
    schema = pa.schema({"b": pa.int64()})
    kept = sp.from_items([{"a": 1}]).map(calls.function(), schema=schema).cache()
    assert kept.columns == ["b"]
    assert "map" in kept.map("b + 1 as c").explain()
    assert len(calls) == 0
    assert not kept.is_computed()
    assert kept.map("b + 1 as c").take_all() == [{"c": 3}]
    assert kept.is_computed()


# ---- the disk


class Disk:
    """What `shutil.disk_usage` says is free."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(free=self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk with room enough, until a test changes that."""
    made = Disk(1 << 40)
    monkeypatch.setattr("smallpond.job.shutil.disk_usage", made)
    return made


def handed_on(root: Path) -> set[Path]:
    """All hand-off files and manifests below a data root."""
    return {path for path in root.glob("*/output/*") if path.is_file()}


def test_what_runs_have_left_goes_when_the_disk_has_no_more_room_than_that(
    sp: smallpond.Session, tmp_path: Path, calls: Calls, disk: Disk
) -> None:
    items = sp.from_items([{"a": i} for i in range(20)])
    parted = items.repartition(4, hash_by="a").map("a + 1 AS b")
    first = parted.to_arrow()
    left = handed_on(tmp_path / "root")
    assert len(left) >= 8, "files and manifests of four tasks or more"
    kept = sum(path.stat().st_size for path in left if path.suffix == ".arrow")
    disk.free = kept
    called = items.map(calls.function())
    fetched = called.to_arrow()
    assert left <= handed_on(tmp_path / "root"), "there is as much room again"
    disk.free = 0
    asked = called.map("b * 2 AS c")
    asked.compute()
    assert not left & handed_on(tmp_path / "root")
    assert len(calls) == 20, "what a run reads stays for it"
    assert asked.agg("sum(c) AS s").take_all() == [{"s": 760}]
    assert_same(parted.to_arrow(), first)
    assert asked.is_computed()
    assert asked.count() == 20, "what somebody asked for stays"
    assert len(calls) == 20
    assert not called.is_computed()
    assert_same(called.to_arrow(), fetched)
    assert len(calls) == 40, "nobody had asked to keep the rows"
    called.compute()
    assert_same(parted.to_arrow(), first)
    assert called.is_computed()
    assert len(calls) == 40
    items.repartition(2, hash_by="a").to_arrow()
    results = sp.job.scheduler.results
    there = [path for path in handed_on(tmp_path / "root") if path.suffix == ".arrow"]
    assert results.num_bytes == sum(path.stat().st_size for path in there)


def test_a_named_job_keeps_all_that_it_could_be_taken_up_with(tmp_path: Path, disk: Disk) -> None:
    disk.free = 0
    with smallpond.init(job_id="kept", data_root=str(tmp_path), progress=False) as sp:
        items = sp.from_items([{"a": i} for i in range(20)])
        items.repartition(4, hash_by="a").count()
        left = handed_on(tmp_path)
        assert left
        items.repartition(3, hash_by="a").count()
        assert left <= handed_on(tmp_path)


# ---- the same again


def contents(sp: smallpond.Session) -> dict[str, bytes]:
    folder = Path(sp.config.job_root, "output")
    return {path.name: path.read_bytes() for path in folder.glob("*.arrow")}


def test_two_runs_hand_on_the_same_bytes(tmp_path: Path) -> None:
    source = pa.table(
        {
            "k": [None if i % 11 == 0 else i % 7 for i in range(5000)],
            "v": [(i * 7919) % 5000 for i in range(5000)],
            "s": [f"text {i % 100}" for i in range(5000)],
        }
    )

    def once() -> tuple[dict[str, bytes], list[Any]]:
        # A job with a name, whose tasks have names that a later run can find.
        name = {"job_id": "j", "job_time": 0.0, "data_root": str(tmp_path)}
        with smallpond.init(**name, cpus=2, progress=False) as sp:
            df = sp.from_arrow(source).repartition(3, hash_by="k")
            frames = [
                df,
                df.map(lambda row: {"x": row["v"] * 2, "k": row["k"]}),
                df.group_by("k", npartitions=3).agg("sum(v) AS t", "count(*) AS n"),
                sp.from_arrow(source).sort("v", npartitions=3),
                sp.from_arrow(source).random_shuffle(seed=4),
                sp.from_arrow(source).repartition(3).random_shuffle(),
            ]
            sp.wait(*frames)
            return contents(sp), [frame.to_arrow().to_pylist() for frame in frames]

    files, rows = once()
    again, rows_again = once()
    assert rows == rows_again
    assert files.keys() == again.keys()
    different = [name for name, data in files.items() if again[name] != data]
    assert different == []
    assert len(files) > 10


def test_random_shuffle_shuffles_by_its_seed(sp: smallpond.Session) -> None:
    source = pa.table({"n": list(range(200))})
    for df in (sp.from_arrow(source), sp.from_arrow(source).repartition(4, by_rows=True)):
        orders = [df.random_shuffle(seed=seed).to_arrow() for seed in (0, 0, 1)]
        assert orders[0].equals(orders[1])
        assert not orders[0].equals(orders[2])
        assert not orders[0].equals(df.to_arrow())
        for order in orders:
            assert_same(order, query("FROM t", t=source))
    partitions = sp.partial_sql(
        "SELECT {__data_partition__} AS p, n FROM {0}",
        sp.from_arrow(source).repartition(4, by_rows=True).random_shuffle(),
    ).to_arrow()
    moved = [row for row in partitions.to_pylist() if row["n"] // 50 != row["p"]]
    assert len(moved) > 100


# ---- rows out


def test_rows_come_out_in_every_form(sp: smallpond.Session, capsys: Any) -> None:
    source = pa.table({"n": list(range(10)), "s": ["é"] * 10})
    for df in (sp.from_arrow(source), sp.from_arrow(source).repartition(3).map("n, s")):
        assert df.count() == 10
        assert df.take(2) == [{"n": 0, "s": "é"}, {"n": 1, "s": "é"}]
        assert df.head(1).take_all() == [{"n": 0, "s": "é"}]
        assert list(df.iter_rows()) == df.take_all() == source.to_pylist()
        assert sum(batch.num_rows for batch in df.iter_batches(3)) == 10
        assert max(batch.num_rows for batch in df.iter_batches(3)) == 3
        assert df.to_pandas()["n"].tolist() == list(range(10))
        assert df.to_polars()["s"].to_list() == ["é"] * 10
        assert df.to_duckdb().aggregate("sum(n)").fetchall() == [(45,)]
        assert [row["n"] for row in df.to_torch()] == list(range(10))
        batches = [batch["n"].tolist() for batch in df.to_torch(batch_size=4)]
        assert [n for batch in batches for n in batch] == list(range(10))
        df.show(2)
        assert "│ 0     │ é" in capsys.readouterr().out
        described = {row["column_name"]: row for row in df.describe().take_all()}
        assert described["n"]["max"] == "9"
    assert sp.from_arrow(source).map("sum(n) AS s").take_all() == [{"s": 45}]
    assert type(sp.from_arrow(source).map("sum(n) AS s").take_all()[0]["s"]) is int
    assert sp.from_arrow(source).map("s").schema.field("s").type == pa.large_string()


def test_events_say_how_much_each_stage_read(sp: smallpond.Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "n.parquet")
    num_bytes = (tmp_path / "n.parquet").stat().st_size
    events: list[TaskEvent] = []
    sp.job.listeners.append(lambda event: isinstance(event, TaskEvent) and events.append(event))
    twice = sp.read_parquet(f"{tmp_path}/n.parquet").repartition(4, by_rows=True)
    thirds = twice.map("n * 2 AS n").repartition(3, by_rows=True)
    assert thirds.filter("n % 4 = 0").to_arrow().num_rows == 500
    finished = [event for event in events if event.state is State.FINISHED]
    stages: dict[int, list[Metrics]] = {}
    for event in finished:
        stages.setdefault(event.stage_idx, []).append(event.metrics)
    assert [sum(m.rows_in for m in stages[i]) for i in sorted(stages)] == [1000, 1000, 1000]
    assert [sum(m.rows_out for m in stages[i]) for i in sorted(stages)] == [1000, 1000, 500]
    read = sum(m.bytes_in for m in stages[min(stages)])
    assert 0.99 * num_bytes <= read <= num_bytes
    started = [event for event in events if event.state is State.STARTED]
    assert len(started) == len(finished)


def test_explain_shows_all_three_plans(sp: smallpond.Session) -> None:
    df = sp.from_items([{"a": 1}]).repartition(3, hash_by="a").filter("a > 1")
    text = df.explain()
    assert text.index("== logical") < text.index("== optimised") < text.index("== physical")
    logical, optimised = df.explain("logical"), df.explain("optimised")
    assert logical.index("filter") < logical.index("repartition")
    assert optimised.index("repartition") < optimised.index("filter")
    assert "stage 0" in df.explain("physical")
    assert repr(df).startswith("DataFrame\n")


def test_graph_shows_shared_parts_once(sp: smallpond.Session, tmp_path: Path) -> None:
    df = sp.from_items([{"a": 1}]).map(r"regexp_replace('\n', '<', '>') as b")
    df.union(df).count()
    df.count()
    nodes = re.findall(r"^\t(\S+) \[label=(.*)\]$", sp.graph().source, re.MULTILINE)
    edges = re.findall(r"^\t(\S+) -> (\S+)$", sp.graph().source, re.MULTILINE)
    labels = dict(nodes)
    assert len(labels) == len(nodes) == 5  # table, map, union, and two that count
    [label] = [label for label in labels.values() if label.startswith('"map')]
    backslash = "\\"  # two in DOT, for one that is shown
    assert label == f"\"map: regexp_replace('{2 * backslash}n', '<', '>') as b\""
    [mapped] = [key for key, label in nodes if label.startswith('"map')]
    [united] = [key for key, label in nodes if label == "union"]
    assert edges.count((mapped, united)) == 2
    file = sp.dump_graph(tmp_path / "graph.dot")
    assert Path(file).read_text() == sp.graph().source


def test_paths_may_be_objects(tmp_path: Path) -> None:
    with smallpond.init(data_root=tmp_path / "root", progress=False) as sp:
        df = sp.from_items([{"a": 1}, {"a": 2}])
        for written, read in (
            (df.write_parquet, sp.read_parquet),
            (df.write_csv, sp.read_csv),
            (df.write_json, sp.read_json),
            (df.write_ipc, sp.read_ipc),
        ):
            folder = tmp_path / written.__name__
            written(folder)
            assert read([folder, str(folder)]).count() == 4
        lazily = df.write_parquet_lazy(tmp_path / "lazily")
        assert lazily.count() == 2
        with pytest.raises(PlanError, match="a path must be a text, got 5"):
            df.write_parquet(5)  # type: ignore[arg-type]


def test_files_of_a_web_server(sp: smallpond.Session, tmp_path: Path) -> None:
    """Whose driver cannot say when they were changed, which DuckDB asks for."""
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    folder = tmp_path / "served"
    sp.from_items([{"a": i} for i in range(10)]).write_parquet(folder)

    content = (folder / "part-00000.parquet").read_bytes()

    class Ranges(http.server.BaseHTTPRequestHandler):
        """Knows one file."""

        def do_GET(self) -> None:
            found = self.path == "/there.parquet"
            first, _, last = (
                self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            )
            piece = content[int(first) : int(last) + 1 if last else None] if found else b""
            self.send_response(206 if found else 404)
            self.send_header("Content-Length", str(len(piece)))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(piece)

        do_HEAD = do_GET  # noqa: N815 (as http.server calls it)

        def log_message(self, *_args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert sp.read_parquet(f"{url}/there.parquet").filter("a > 3").count() == 6
        with pytest.raises(MissingInputError, match="no file or folder http"):
            sp.read_parquet(f"{url}/elsewhere.parquet")
        server.shutdown()
