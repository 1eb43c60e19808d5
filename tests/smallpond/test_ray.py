"""The Ray executor, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import smallpond
from smallpond.errors import PlanError, StallError, TaskError
from smallpond.events import Event, State, TaskEvent
from smallpond.execution.manager import JobManager
from smallpond.logical.dataset import ArrowTableDataSet
from smallpond.logical.node import (
    Context,
    DataSourceNode,
    HashPartitionNode,
    LogicalPlan,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
)

ray = pytest.importorskip("ray", reason="needs ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a processor each, all on loopback."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray._private import ray_constants  # noqa: PLC0415 (ray may be absent)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    ray_constants.ENABLE_RAY_CLUSTER = False
    made = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    made.add_node(**_NODE)
    made.wait_for_nodes()
    # Sessions use the connection that there is; one of their own costs seconds.
    ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def on_ray(cluster: Any, tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session on the cluster."""
    root = str(tmp_path / "root")
    with smallpond.init(data_root=root, ray_address=cluster.address, progress=False) as session:
        yield session


def _left() -> pa.Table:
    nan = float("nan")
    return pa.table(
        {
            "k": pa.array([i % 7 if i % 5 else None for i in range(400)], pa.int64()),
            "v": pa.array([nan if i % 50 == 0 else i * 0.5 for i in range(400)], pa.float64()),
            "s": [f"text {i % 11}" for i in range(400)],
        }
    )


def _right() -> pa.Table:
    return pa.table({"k": [0.0, 1.0, 2.0, 2.0, 9.0], "w": [1, 2, 3, 4, 5]})


def _sorted(table: pa.Table) -> list[str]:
    """Rows as text in order: NaN equals itself there."""
    return sorted(map(repr, table.to_pylist()))


def _double(row: dict[str, Any]) -> dict[str, Any]:
    return {"k": row["k"], "d": row["v"] * 2}


OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "group_by": (
        lambda df, _: df.group_by("k").agg("count(*) as n", "max(v) as m", "avg(v) as a"),
        "SELECT k, count(*) AS n, max(v) AS m, avg(v) AS a FROM l GROUP BY k",
    ),
    "aggregate": (lambda df, _: df.agg("count(*) as n"), "SELECT count(*) AS n FROM l"),
    "list": (
        lambda df, _: df.group_by("s").agg("list(k order by k) as ks"),
        "SELECT s, list(k ORDER BY k) AS ks FROM l GROUP BY s",
    ),
    "join of int64 and double": (
        lambda df, other: df.join(other, on="k", broadcast=False).select("k", "v", "w"),
        "SELECT l.k, v, w FROM l JOIN r ON l.k = r.k",
    ),
    "full join": (
        lambda df, other: df.join(other, on="k", how="full", broadcast=False).select("v", "w"),
        "SELECT v, w FROM l FULL JOIN r ON l.k = r.k",
    ),
    "broadcast join": (
        lambda df, other: df.join(other, on="k", how="left").select("k", "v", "w"),
        "SELECT l.k, v, w FROM l LEFT JOIN r ON l.k = r.k",
    ),
    "distinct": (lambda df, _: df.select("k", "s").distinct(), "SELECT DISTINCT k, s FROM l"),
    "union": (lambda df, _: df.union(df), "SELECT * FROM l UNION ALL SELECT * FROM l"),
    "window": (
        lambda df, _: df.window(partition_by="s", order_by="v desc, k", n="row_number()"),
        "SELECT *, row_number() OVER (PARTITION BY s ORDER BY v DESC, k) AS n FROM l",
    ),
    "map": (lambda df, _: df.map(_double), "SELECT k, v * 2 AS d FROM l"),
    "map_batches": (lambda df, _: df.map_batches(lambda t: t.select(["s"])), "SELECT s FROM l"),
    "filter": (lambda df, _: df.filter(lambda row: row["k"] == 3), "SELECT * FROM l WHERE k = 3"),
    "by hash": (lambda df, _: df.repartition(3, hash_by="k").map("k"), "SELECT k FROM l"),
    "by rows": (lambda df, _: df.repartition(3, by_rows=True).map("v"), "SELECT v FROM l"),
    "by column": (
        lambda df, _: df.filter("k is not null").repartition(7, by="k").map("k, s"),
        "SELECT k, s FROM l WHERE k IS NOT NULL",
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_rows_are_those_of_duckdb(on_ray: smallpond.Session, name: str) -> None:
    make, query = OPERATIONS[name]
    left = on_ray.from_arrow(_left()).repartition(3, by_rows=True)
    actual = make(left, on_ray.from_arrow(_right())).to_arrow()
    con = duckdb.connect()
    con.register("l", _left())
    con.register("r", _right())
    con.execute("SET arrow_large_buffer_size = true")
    assert _sorted(actual) == _sorted(con.sql(query).to_arrow_table())


def test_a_global_sort_is_in_order(on_ray: smallpond.Session) -> None:
    left = on_ray.from_arrow(_left()).repartition(4, by_rows=True)
    actual = left.sort("k desc nulls first", "v", "s").to_arrow()
    con = duckdb.connect()
    con.register("l", _left())
    expected = con.sql("FROM l ORDER BY k DESC NULLS FIRST, v NULLS LAST, s").to_arrow_table()
    assert repr(actual.to_pylist()) == repr(expected.to_pylist())
    assert repr(left.sort("v").take(5)) == repr(
        con.sql("FROM l ORDER BY v LIMIT 5").to_arrow_table().to_pylist()
    )


def test_both_nodes_work(on_ray: smallpond.Session) -> None:
    workers: set[str] = set()

    def listen(event: Event) -> None:
        if isinstance(event, TaskEvent) and event.state is State.FINISHED:
            workers.add(event.worker)

    on_ray.on_event(listen)
    df = on_ray.from_arrow(_left()).repartition(8, by_rows=True)
    df.map(lambda row: __import__("time").sleep(0.001) or row).compute()
    assert len(workers) == 2


def test_writes_a_folder(on_ray: smallpond.Session, tmp_path: Path) -> None:
    on_ray.from_arrow(_left()).repartition(3, by_rows=True).write_parquet(str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert _sorted(on_ray.read_parquet(str(tmp_path / "out")).to_arrow()) == _sorted(
        _left().cast(_large(_left().schema))
    )


def _large(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in schema]
    )


def test_a_killed_worker_is_replaced(on_ray: smallpond.Session, tmp_path: Path) -> None:
    marker = tmp_path / "once"

    def die_once(row: dict[str, Any]) -> dict[str, Any]:
        if row["k"] == 3 and not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    df = on_ray.from_arrow(_left()).repartition(4, by_rows=True).map(die_once)
    assert df.count() == 400
    assert marker.exists()


def test_mistakes_are_told_as_on_one_machine(
    on_ray: smallpond.Session, caplog: pytest.LogCaptureFixture
) -> None:
    df = on_ray.from_arrow(_left())
    with pytest.raises(TaskError, match="ZeroDivisionError") as raised:
        df.map(lambda _: {"x": 1 / 0}).count()
    assert "test_ray.py" in str(raised.value)
    with pytest.raises(PlanError, match=r"gpu_limit=1 is more than any worker has \(0\)"):
        df.map(lambda row: row, gpu_limit=1).count()
    with caplog.at_level(logging.WARNING, "smallpond"):
        assert df.map("k", cpu_limit=64).count() == 400
    assert "more than any worker has" in caplog.text


def test_data_that_nodes_do_not_see(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from smallpond.executors import ray as executor  # noqa: PLC0415

    monkeypatch.setattr(executor, "_sees", lambda _path: False)
    with (
        pytest.raises(PlanError, match=r"data_root .* is not seen by node"),
        smallpond.init(ray_address=cluster.address, data_root="/tmp/unseen") as session,  # noqa: S108
    ):
        session.from_items([1]).map("item").count()


_JOB = """
import sys, time, smallpond
from pathlib import Path
root, address, marks = sys.argv[1:]

def slow(row):
    Path(marks, f"{row['i']}-{time.time_ns()}").write_text("")
    time.sleep(0.3)
    return row

if __name__ == "__main__":
    sp = smallpond.init(job_id="again", data_root=root, ray_address=address, progress=False)
    df = sp.from_items([{"i": i} for i in range(12)]).repartition(12, by_rows=True).map(slow)
    print(df.agg("sum(i) as s").take_all())
"""


def test_a_killed_driver_is_taken_up(cluster: Any, tmp_path: Path) -> None:
    script, marks = tmp_path / "job.py", tmp_path / "marks"
    script.write_text(textwrap.dedent(_JOB))
    marks.mkdir()
    command = [sys.executable, str(script), str(tmp_path / "root"), cluster.address, str(marks)]
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    first = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    manifests = tmp_path / "root"
    deadline = time.monotonic() + 60
    while len(list(manifests.glob("*/output/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    finished = len(list(manifests.glob("*/output/*.json")))
    assert 4 <= finished < 12
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "'s': 66" in result.stdout
    counts: dict[str, int] = {}
    for mark in marks.iterdir():
        counts[mark.name.split("-")[0]] = counts.get(mark.name.split("-")[0], 0) + 1
    assert set(counts) == {str(i) for i in range(12)}
    # What was finished is not done again; what was under way may be.
    assert sum(count == 1 for count in counts.values()) >= finished


def test_nodes(tmp_path: Path, cluster: Any) -> None:
    ctx = Context()
    table = pa.table({"k": [i % 7 for i in range(100)], "v": list(range(100))})
    source = DataSourceNode(ctx, ArrowTableDataSet(table))
    hashed = HashPartitionNode(ctx, (source,), 3, ["k"])
    summed = SqlEngineNode(
        ctx, (hashed,), "SELECT k, sum(v)::BIGINT AS s FROM {0} GROUP BY k", output_name="sums"
    )
    counted = PythonScriptNode(ctx, (hashed,), process_func=_count_into_a_file, output_name="files")
    plan = JobManager(str(tmp_path)).run(
        LogicalPlan(ctx, RootNode(ctx, (summed, counted))),
        executor="ray",
        ray_address=cluster.address,
    )
    sums = plan.named_outputs["sums"].to_arrow_table().sort_by("k").to_pylist()
    assert sums == [{"k": k, "s": sum(range(k, 100, 7))} for k in range(7)]
    files = plan.named_outputs["files"].resolved_paths
    assert sum(int(Path(file).read_text()) for file in files) == 100


def _count_into_a_file(runtime_ctx: Any, inputs: list[Any], output: str) -> bool:
    Path(output, "count.txt").write_text(str(inputs[0].num_rows))
    return True


def test_a_lost_node_and_then_none_left(tmp_path: Path, cluster: Any) -> None:
    extra = cluster.add_node(**_NODE)
    cluster.wait_for_nodes()
    with smallpond.init(data_root=str(tmp_path), ray_address=cluster.address, progress=False) as sp:
        sp.job.scheduler.stall_s = 1
        started: list[str] = []

        def listen(event: Event) -> None:
            if isinstance(event, TaskEvent) and event.state is State.FINISHED and not started:
                started.append(event.worker)
                cluster.remove_node(extra, allow_graceful=False)

        sp.on_event(listen)

        def slow(row: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.2)
            return row

        df = sp.from_items([{"i": i} for i in range(12)]).repartition(12, by_rows=True).map(slow)
        assert df.agg("sum(i) as s").take_all() == [{"s": 66}]
        assert started
        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr(sp.job.executor, "workers", list)
            with pytest.raises(StallError, match=r"no worker left.*map"):
                sp.from_items([{"i": 1}]).map(slow).count()
