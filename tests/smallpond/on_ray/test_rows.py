"""Rows and mistakes on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import smallpond
import smallpond.executors.ray_cluster
from smallpond.errors import PlanError, TaskError
from smallpond.events import State
from smallpond.execution.manager import JobManager
from smallpond.execution.task import ArrowComputeTask, RuntimeContext
from smallpond.logical.dataset import ArrowTableDataSet
from smallpond.logical.node import (
    ArrowComputeNode,
    Context,
    DataSourceNode,
    HashPartitionNode,
    LogicalPlan,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
)
from smallpond.plan import Memory
from tests.oracles.smallpond import assert_same, query
from tests.smallpond.on_ray.told import Told, drawn_table
from tests.smallpond.ray_cluster import QUIET_RAY

ray: Any = pytest.importorskip("ray", reason="needs ray")
pytestmark = QUIET_RAY
ROOT = Path(__file__).parents[3]


# ---- rows

RIGHT = pa.table(
    {
        "k": pa.array([0.0, 1.0, 2.0, 2.0, 9.0, None, float("nan")], pa.float64()),
        "w": list(range(1, 8)),
    }
)


def _double(row: dict[str, Any]) -> dict[str, Any]:
    return {"n": row["n"] * 2}


OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "group_by": (
        lambda t, _: t.group_by("k").agg("count(*) as n", "max(v) as m", "min(s) as t"),
        "SELECT k, count(*) AS n, max(v) AS m, min(s) AS t FROM l GROUP BY k",
    ),
    "group by doubles": (
        lambda t, _: t.group_by("v").agg("sum(n)::BIGINT as n").map("v + 0.0 as v, n"),
        "SELECT v + 0.0 AS v, sum(n)::BIGINT AS n FROM l GROUP BY v",
    ),
    "aggregate": (lambda t, _: t.agg("count(*) as n"), "SELECT count(*) AS n FROM l"),
    "list": (
        lambda t, _: t.group_by("s").agg("list(n order by n) as ns"),
        "SELECT s, list(n ORDER BY n) AS ns FROM l GROUP BY s",
    ),
    "join of int64 and double": (
        lambda t, r: t.join(r, on="k", broadcast=False).select("k", "n", "w"),
        "SELECT l.k, n, w FROM l JOIN r ON l.k = r.k",
    ),
    "full join": (
        lambda t, r: t.join(r, on="k", how="full", broadcast=False).select("n", "w"),
        "SELECT n, w FROM l FULL JOIN r ON l.k = r.k",
    ),
    "broadcast join": (
        lambda t, r: t.join(r, on="k", how="left").select("k", "n", "w"),
        "SELECT l.k, n, w FROM l LEFT JOIN r ON l.k = r.k",
    ),
    "distinct": (lambda t, _: t.select("k", "s").distinct(), "SELECT DISTINCT k, s FROM l"),
    "union": (lambda t, _: t.union(t), "SELECT * FROM l UNION ALL SELECT * FROM l"),
    "window": (
        lambda t, _: t.window(partition_by="s", order_by="v desc, n", i="row_number()"),
        "SELECT *, row_number() OVER (PARTITION BY s ORDER BY v DESC, n) AS i FROM l",
    ),
    "map": (lambda t, _: t.map(_double), "SELECT n * 2 AS n FROM l"),
    "map of a lambda": (
        lambda t, _: t.map(lambda row: {"n": row["n"] + 1}),
        "SELECT n + 1 AS n FROM l",
    ),
    "map_batches": (
        lambda t, _: t.map_batches(lambda batch: batch.select(["s"])),
        "SELECT s FROM l",
    ),
    "filter": (lambda t, _: t.filter(lambda row: row["k"] == 3), "SELECT * FROM l WHERE k = 3"),
    "by hash": (lambda t, _: t.repartition(3, hash_by="v").map("v"), "SELECT v FROM l"),
    "by rows": (lambda t, _: t.repartition(3, by_rows=True).map("v"), "SELECT v FROM l"),
    "by column": (lambda t, _: t.repartition(3, by="n % 3").map("n, s"), "SELECT n, s FROM l"),
    "limit": (
        lambda t, _: t.sort("n").limit(5).map("n, k"),
        "SELECT n, k FROM l ORDER BY n LIMIT 5",
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_are_those_of_duckdb_and_of_one_machine(
    on_ray: smallpond.Session, sp: smallpond.Session, seed: int, name: str
) -> None:
    make, sql = OPERATIONS[name]
    left = drawn_table(seed)

    def rows(session: smallpond.Session) -> pa.Table:
        spread = session.from_arrow(left).repartition(3, by_rows=True)
        return make(spread, session.from_arrow(RIGHT)).to_arrow()

    told = Told(on_ray)
    actual = rows(on_ray)
    assert_same(actual, query(sql, l=left, r=RIGHT))
    assert_same(actual, rows(sp))
    assert told.count(State.FINISHED) > 0


def test_a_global_sort_is_in_order(on_ray: smallpond.Session, seed: int) -> None:
    left = drawn_table(seed)
    spread = on_ray.from_arrow(left).repartition(4, by_rows=True)
    keys = ["k desc nulls first", "v", "s", "n"]
    expected = query(f"FROM l ORDER BY {', '.join(keys)}", l=left)
    assert_same(spread.sort(*keys).to_arrow(), expected, ordered=True)


def test_writes_a_folder(on_ray: smallpond.Session, tmp_path: Path, seed: int) -> None:
    left = drawn_table(seed)
    on_ray.from_arrow(left).repartition(3, by_rows=True).write_parquet(str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert_same(on_ray.read_parquet(str(tmp_path / "out")).to_arrow(), query("FROM l", l=left))


def test_both_nodes_work(on_ray: smallpond.Session, seed: int) -> None:
    told = Told(on_ray)
    df = on_ray.from_arrow(drawn_table(seed)).repartition(8, by_rows=True)
    df.map(lambda row: time.sleep(0.002) or row).compute()
    assert told.workers() == {worker.name for worker in on_ray.job.executor.workers()}
    assert len(told.workers()) == 2


def test_nodes(tmp_path: Path, cluster: Any) -> None:
    ctx = Context()
    table = pa.table({"k": [i % 7 for i in range(100)], "v": list(range(100))})
    source = DataSourceNode(ctx, ArrowTableDataSet(table))
    hashed = HashPartitionNode(ctx, (source,), 3, ["k"])
    summed = SqlEngineNode(
        ctx, (hashed,), "SELECT k, sum(v)::BIGINT AS s FROM {0} GROUP BY k", output_name="sums"
    )
    counted = PythonScriptNode(ctx, (hashed,), process_func=_count_into_a_file, output_name="files")
    scaled = _Scaled(ctx, (hashed,), output_name="scaled")
    scaled.factor = 10
    plan = JobManager(str(tmp_path)).run(
        LogicalPlan(ctx, RootNode(ctx, (summed, counted, scaled))),
        executor="ray",
        ray_address=cluster.address,
    )
    sums = plan.named_outputs["sums"].to_arrow_table().sort_by("k").to_pylist()
    assert sums == [{"k": k, "s": sum(range(k, 100, 7))} for k in range(7)]
    files = plan.named_outputs["files"].resolved_paths
    assert sum(int(Path(file).read_text()) for file in files) == 100
    assert sum(plan.named_outputs["scaled"].to_arrow_table()["n"].to_pylist()) == 1000


class _ScaledTask(ArrowComputeTask):
    """Made on the node that runs it, from what its node in the plan knows."""

    factor = 1

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        assert runtime_ctx.task is self
        return pa.table({"n": [self.factor * input_tables[0].num_rows]})


class _Scaled(ArrowComputeNode):
    """Makes its tasks itself, as programs written for the original do."""

    factor = 1

    def spawn(self, *args: Any, **kwargs: Any) -> _ScaledTask:
        task = _ScaledTask(*args, **kwargs)
        task.factor = self.factor
        return task


def _count_into_a_file(runtime_ctx: Any, inputs: list[Any], output: str) -> bool:
    Path(output, "count.txt").write_text(str(inputs[0].num_rows))
    return True


# ---- tables of the driver's


def test_a_piece_of_a_table_travels_without_the_rest() -> None:
    table = pa.table({"n": list(range(100_000)), "s": ["text"] * 100_000})
    piece = Memory("piece", table.slice(500, 3))
    data = pickle.dumps(piece)
    assert len(data) < 2000
    back = pickle.loads(data)  # noqa: S301 (its own)
    assert back == piece
    assert back.table.equals(piece.table)


def test_a_table_for_all_tasks_travels_once(
    on_ray: smallpond.Session, monkeypatch: pytest.MonkeyPatch
) -> None:

    sizes = []
    put = ray.put

    def counted(value: Any, **options: Any) -> Any:
        sizes.append(value.size)
        return put(value, **options)

    monkeypatch.setattr(ray, "put", counted)
    right = pa.table({"k": list(range(20_000)), "w": [k * 2 for k in range(20_000)]})
    left = on_ray.from_items([{"k": k} for k in range(0, 20_000, 1000)])
    joined = left.repartition(5, by_rows=True).join(on_ray.from_arrow(right), on="k")
    assert joined.agg("sum(w) as s").take_all() == [{"s": 2 * sum(range(0, 20_000, 1000))}]
    assert [size for size in sizes if size >= right.nbytes] == sizes
    assert len(sizes) == 1


# ---- mistakes


def test_mistakes_are_told_as_on_one_machine(
    on_ray: smallpond.Session, caplog: pytest.LogCaptureFixture
) -> None:
    df = on_ray.from_items([{"n": n, "zero": 0} for n in range(10)])
    with pytest.raises(TaskError, match="ZeroDivisionError") as raised:
        df.map(lambda row: {"x": 1 / row["zero"]}).count()
    assert "test_rows.py" in str(raised.value)
    assert 'lambda row: {"x": 1 / row["zero"]}' in str(raised.value)
    with pytest.raises(PlanError, match=r"gpu_limit=1 is more than any worker has \(0\)"):
        df.map(lambda row: row, gpu_limit=1).count()
    lock = threading.Lock()
    with pytest.raises(PlanError, match="Can't pickle task"):
        df.map(lambda row: {"x": lock, **row}).count()
    with caplog.at_level(logging.WARNING, "smallpond"):
        assert df.map("n", cpu_limit=64, memory_limit="999TB").count() == 10
    assert "more than any worker has" in caplog.text


def test_a_place_that_nodes_do_not_see(cluster: Any) -> None:
    with (
        pytest.raises(
            PlanError,
            match=r"data_root memory://jobs is not the same place on Ray's node 127\.0\.0\.1 \w+ "
            r"\(FileNotFoundError",
        ),
        smallpond.init(ray_address=cluster.address, data_root="memory://jobs") as session,
    ):
        session.from_items([1]).map("item").count()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_an_address_where_nobody_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int, form: str
) -> None:
    """Without a connection to another cluster, which would be taken first."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    place = form.format(f"127.0.0.1:{closed_port}")
    named = place
    if form == "auto":
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
        named = rf"auto \(127.0.0.1:{closed_port}\)"
    said = rf"^ray_address: nothing answers at {named}: .*refused \(start a cluster .*num_executors"
    root = tmp_path / "root"
    with (
        smallpond.init(ray_address=place, data_root=str(root), progress=False) as session,
        pytest.raises(PlanError, match=said),
    ):
        session.from_items([1]).map("item").count()
    assert not root.exists()


@pytest.mark.parametrize("address", ["local", "head", "head:port", ":6379", "1.2.3.4:99999999"])
def test_an_address_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        smallpond.init(ray_address=address, data_root=str(tmp_path), progress=False) as session,
        pytest.raises(PlanError, match=rf"^ray_address: .*{address}"),
    ):
        session.from_items([1]).map("item").count()


def test_another_cluster_than_the_one_in_use(cluster: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(PlanError, match=rf"connected to Ray at {cluster.address} already"),
        smallpond.init(ray_address="127.0.0.1:1", data_root=str(tmp_path)) as session,
    ):
        session.from_items([1]).count()


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PlanError, match=r"pip install 'openweek\[ray\]'"),
        smallpond.init(executor="ray", data_root=str(tmp_path)) as session,
    ):
        session.from_items([1]).map("item").count()


# ---- storage


@pytest.mark.slow
def test_hand_off_on_s3(cluster: Any, s3: dict[str, Any], seed: int) -> None:
    left = drawn_table(seed)
    before = set(Path(tempfile.gettempdir()).glob("smallpond-*"))
    with smallpond.init(
        data_root="s3://data/jobs",
        ray_address=cluster.address,
        storage_options=s3,
        progress=False,
    ) as sp:
        spread = sp.from_arrow(left).repartition(3, by_rows=True)
        grouped = spread.map(_double).group_by("n").agg("count(*) as c")
        assert_same(grouped.to_arrow(), query("SELECT n * 2 AS n, 1::BIGINT AS c FROM l", l=left))
        expected = query("FROM l ORDER BY v, n", l=left)
        assert_same(spread.sort("v", "n").to_arrow(), expected, ordered=True)
    assert set(Path(tempfile.gettempdir()).glob("smallpond-*")) == before
