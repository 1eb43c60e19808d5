"""The Ray executor, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import smallpond
import smallpond.executors.ray_cluster
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
from smallpond.plan import Memory
from tests.oracles.smallpond import assert_same, query
from tests.smallpond.ray_cluster import NODE, QUIET_RAY, connected, ray_cluster

ray: Any = pytest.importorskip("ray", reason="needs ray")
pytestmark = QUIET_RAY
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(two_nodes: Any) -> Iterator[Any]:
    """Two nodes, to which this process is connected."""
    with connected(two_nodes.address):
        yield two_nodes


@pytest.fixture
def on_ray(cluster: Any, tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session on the cluster."""
    root = str(tmp_path / "ray")
    with smallpond.init(data_root=root, ray_address=cluster.address, progress=False) as session:
        yield session


class Told:
    """What a session says of its tasks."""

    def __init__(self, session: smallpond.Session) -> None:
        self.events: list[TaskEvent] = []
        session.on_event(self)

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEvent):
            self.events.append(event)

    def count(self, state: State) -> int:
        return sum(event.state is state for event in self.events)

    def workers(self) -> set[str]:
        return {event.worker for event in self.events if event.state is State.FINISHED}


# ---- rows

_NUMBERS = [None, float("nan"), -0.0, 0.0, 1.0, 2.0, 2.5, float("inf"), 1e300]


def _left(seed: int) -> pa.Table:
    """Few values, each often: keys that meet, NULL and NaN among them."""
    numbers = random.Random(seed)
    count = 400
    return pa.table(
        {
            "n": list(range(count)),
            "k": pa.array([numbers.choice([None, *range(5)]) for _ in range(count)], pa.int64()),
            "v": pa.array([numbers.choice(_NUMBERS) for _ in range(count)], pa.float64()),
            "s": pa.array(
                [numbers.choice([None, "", "a", "é", "text"]) for _ in range(count)], pa.string()
            ),
        }
    )


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
    left = _left(seed)

    def rows(session: smallpond.Session) -> pa.Table:
        spread = session.from_arrow(left).repartition(3, by_rows=True)
        return make(spread, session.from_arrow(RIGHT)).to_arrow()

    told = Told(on_ray)
    actual = rows(on_ray)
    assert_same(actual, query(sql, l=left, r=RIGHT))
    assert_same(actual, rows(sp))
    assert told.count(State.FINISHED) > 0


def test_a_global_sort_is_in_order(on_ray: smallpond.Session, seed: int) -> None:
    left = _left(seed)
    spread = on_ray.from_arrow(left).repartition(4, by_rows=True)
    keys = ["k desc nulls first", "v", "s", "n"]
    expected = query(f"FROM l ORDER BY {', '.join(keys)}", l=left)
    assert_same(spread.sort(*keys).to_arrow(), expected, ordered=True)


def test_writes_a_folder(on_ray: smallpond.Session, tmp_path: Path, seed: int) -> None:
    left = _left(seed)
    on_ray.from_arrow(left).repartition(3, by_rows=True).write_parquet(str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert_same(on_ray.read_parquet(str(tmp_path / "out")).to_arrow(), query("FROM l", l=left))


def test_both_nodes_work(on_ray: smallpond.Session, seed: int) -> None:
    told = Told(on_ray)
    df = on_ray.from_arrow(_left(seed)).repartition(8, by_rows=True)
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
    assert "test_ray.py" in str(raised.value)
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


# ---- losses


def test_a_killed_worker_is_replaced(on_ray: smallpond.Session, tmp_path: Path, seed: int) -> None:
    marker = tmp_path / "once"

    def die_once(row: dict[str, Any]) -> dict[str, Any]:
        if row["n"] == 300 and not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    told = Told(on_ray)
    left = _left(seed)
    df = on_ray.from_arrow(left).repartition(4, by_rows=True).map(die_once)
    assert_same(df.to_arrow(), query("FROM l", l=left))
    assert marker.exists()
    failures = [event.error for event in told.events if event.state is State.FAILED]
    assert len(failures) == 1
    assert "a Ray worker was lost" in failures[0]


def _slow(row: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.3)
    return row


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs from their text, with arguments; they end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object) -> subprocess.Popen[str]:
        script = tmp_path / "program.py"
        script.write_text(text)
        started.append(
            subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):  # with what Ray has left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


_JOB = """
import sys, time, smallpond
from pathlib import Path
root, address, marks = sys.argv[1:]

def slow(row):
    Path(marks, f"{row['i']}-{time.time_ns()}").write_text("")
    time.sleep(0.5)
    return row

def listen(event):
    if type(event).__name__ == "TaskEvent" and event.state.name == "REUSED":
        print("reused", event.task_key)

if __name__ == "__main__":
    sp = smallpond.init(job_id="again", data_root=root, ray_address=address, progress=False)
    sp.on_event(listen)
    df = sp.from_items([{"i": i} for i in range(12)]).repartition(12, by_rows=True).map(slow)
    print(df.agg("sum(i) as s").take_all())
"""


def test_a_killed_driver_is_taken_up(
    cluster: Any, tmp_path: Path, program: Callable[..., subprocess.Popen[str]]
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    job = (_JOB, tmp_path / "root", cluster.address, marks)

    def finished() -> set[str]:
        return {path.stem for path in (tmp_path / "root").glob("*/output/*.json")}

    first = program(*job)
    _wait_until(lambda: len(finished()) >= 4, "four tasks have finished")
    first.kill()
    first.communicate()
    kept = finished()
    assert 4 <= len(kept) < 12
    second = program(*job)
    output, errors = second.communicate(timeout=90)
    assert second.returncode == 0, errors
    assert "'s': 66" in output
    assert errors == ""
    reused = {line.split()[1] for line in output.splitlines() if line.startswith("reused")}
    assert kept <= reused
    counts = Counter(mark.name.split("-")[0] for mark in marks.iterdir())
    assert set(counts) == {str(i) for i in range(12)}
    # What was finished is not done again; what was under way may be.
    assert sum(count == 1 for count in counts.values()) >= len(kept)


def test_ctrl_c_stops_the_tasks(
    cluster: Any, tmp_path: Path, program: Callable[..., subprocess.Popen[str]]
) -> None:

    marks = tmp_path / "marks"
    marks.mkdir()
    text = _JOB.replace("sleep(0.5)", "sleep(60)")
    job = program(text, tmp_path / "root", cluster.address, marks)
    _wait_until(lambda: len(list(marks.iterdir())) >= 2, "two tasks run")
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=30)
    assert job.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    _wait_until(lambda: ray.available_resources().get("CPU") == 2, "the processors are free")
    assert len(list(marks.iterdir())) == 2


# ---- clusters of a program's own

_OWN = """
import os, sys, time, smallpond
from tests.smallpond.ray_cluster import public_listeners

def node(row):
    import ray
    time.sleep(0.05)
    return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

if __name__ == "__main__":
    sp = smallpond.init(data_root=sys.argv[1], progress=False, **eval(sys.argv[2]))
    df = sp.from_items(list(range(8))).repartition(8, by_rows=True).map(node)
    rows = df.take_all()
    print(len(rows), len({row["node"] for row in rows}), public_listeners(os.getpid()))
    print(*{row["pid"] for row in rows})
    if "--die" in sys.argv:
        os.kill(os.getpid(), 9)
"""


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _forget_own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs start as they do for users: a cluster of this process sets what Ray reads."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


def test_ray_on_this_machine(
    tmp_path: Path, program: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_own_cluster(monkeypatch)
    job = program(_OWN, tmp_path / "root", {"executor": "ray", "cpus": 2})
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    assert errors == ""
    first, pids = output.splitlines()
    assert first == "8 1 []"
    _wait_until(lambda: all(map(_is_gone, map(int, pids.split()))), "nothing is left")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["well", "killed"])
def test_workers_of_the_platform(
    tmp_path: Path,
    end: str,
    program: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _forget_own_cluster(monkeypatch)
    told = [tmp_path / "root", {"num_executors": 2, "cpus": 2}]
    job = program(_OWN, *told, *(["--die"] if end == "killed" else []))
    output, errors = job.communicate(timeout=240)
    assert job.returncode == (0 if end == "well" else -9), errors
    assert errors == ""
    first, pids = output.splitlines()
    assert first == "8 2 []"
    _wait_until(lambda: all(map(_is_gone, map(int, pids.split()))), "nothing is left")


_ELSEWHERE = """
from smallpond.platform import Platform

class Elsewhere(Platform):
    one_machine = True

    def start_job(self, num_nodes, entrypoint, args, envs={}, extra_opts={}):
        assert extra_opts == {"queue": "long"}
        return super().start_job(num_nodes, entrypoint, args, {**envs, "HOME": "/nowhere"})
"""


@pytest.mark.slow
def test_workers_with_another_home_are_let_in(
    tmp_path: Path, program: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_own_cluster(monkeypatch)
    (tmp_path / "elsewhere.py").write_text(_ELSEWHERE)
    told = {"num_executors": 1, "cpus": 1, "platform": "elsewhere", "queue": "long"}
    job = program(_OWN, tmp_path / "root", told)
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    assert output.splitlines()[0] == "8 1 []"


@pytest.mark.slow
def test_workers_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text(
        "import sys\n"
        "folder = next(a[10:] for a in sys.argv if a.startswith('--log_dir='))\n"
        "import pathlib; pathlib.Path(folder).mkdir(parents=True, exist_ok=True)\n"
        "pathlib.Path(folder, 'worker-1.log').write_text('this machine is not ready')\n"
        "sys.exit(3)\n"
    )
    program = smallpond.executors.ray_cluster.worker_program
    monkeypatch.setattr(program, "__file__", str(broken))
    with (
        ray_cluster(others=0) as cluster,
        connected(cluster.address),
        pytest.raises(PlanError, match="1 workers ended at once\n  this machine is not ready"),
        smallpond.init(
            num_executors=1, ray_address=cluster.address, data_root=str(tmp_path)
        ) as session,
    ):
        session.from_items([1]).map("item").count()


# ---- clusters that end


def test_a_lost_node(cluster: Any, tmp_path: Path) -> None:
    extra = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    doomed = str(extra.node_id)

    def slow(row: dict[str, Any]) -> dict[str, Any]:
        node = ray.get_runtime_context().get_node_id()
        (tmp_path / node).write_text("")
        time.sleep(30 if node == doomed else 0.1)  # a worker may outlive its node for a moment
        return row

    def lose() -> None:
        _wait_until((tmp_path / doomed).exists, "the node has a task")
        cluster.remove_node(extra, allow_graceful=False)

    thread = threading.Thread(target=lose)
    with smallpond.init(
        data_root=str(tmp_path / "root"),
        ray_address=cluster.address,
        progress=False,
        speculative_exec=False,  # a second copy would be there first
    ) as sp:
        told = Told(sp)
        thread.start()
        df = sp.from_items([{"i": i} for i in range(24)]).repartition(24, by_rows=True).map(slow)
        assert df.agg("sum(i) as s").take_all() == [{"s": sum(range(24))}]
        thread.join()
    failures = [event.error for event in told.events if event.state is State.FAILED]
    assert failures
    assert all("a Ray worker was lost" in error for error in failures)


_LOSING = """
import os, sys, threading, time, smallpond
from smallpond.errors import StallError
from pathlib import Path
from tests.smallpond.ray_cluster import ray_cluster
from ray._private import ray_constants
running = Path(sys.argv[1] + ".running")

def slow(row):
    running.write_text("")
    time.sleep(120)
    return row

def lose(cluster, what):
    while not running.exists():
        time.sleep(0.1)
    if what == "nodes":
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
    else:
        [head] = cluster.head_node.all_processes[ray_constants.PROCESS_TYPE_GCS_SERVER]
        head.process.kill()

if __name__ == "__main__":
    with ray_cluster(head_cpus=0, others=2) as cluster:
        threading.Thread(target=lose, args=(cluster, sys.argv[2]), daemon=True).start()
        sp = smallpond.init(data_root=sys.argv[1], ray_address=cluster.address, progress=False)
        try:
            sp.job.scheduler.stall_s = 2
            df = sp.from_items(list(range(4))).repartition(4, by_rows=True).map(slow)
            df.count()
        except StallError as error:
            print("stalled:", error, flush=True)
        started = time.monotonic()
        sp.shutdown()
        print("closed:", time.monotonic() - started < 20, flush=True)
        os._exit(0)  # leaving the cluster takes long when there is none
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nodes", "head"])
def test_nothing_waits_for_a_cluster_that_is_gone(
    tmp_path: Path, what: str, program: Callable[..., subprocess.Popen[str]]
) -> None:
    job = program(_LOSING, tmp_path / "root", what)
    output, errors = job.communicate(timeout=200)
    lines = [line for line in output.splitlines() if line.startswith(("stalled", "closed"))]
    assert len(lines) == 2, output + errors
    assert "tasks are blocked, because there is no worker left: map" in lines[0]
    assert lines[1] == "closed: True"


@pytest.mark.slow
def test_calls_that_wait_for_a_lost_node(tmp_path: Path) -> None:
    """They never began, so that Ray does not say that they are lost."""
    with ray_cluster(head_cpus=0, others=1) as cluster, connected(cluster.address):
        [node] = cluster.worker_nodes

        @ray.remote(num_cpus=1, max_retries=0)
        def occupy() -> None:
            time.sleep(300)

        foreign = occupy.remote()
        root = str(tmp_path / "root")
        with smallpond.init(data_root=root, ray_address=cluster.address, progress=False) as sp:
            sp.job.scheduler.stall_s = 1

            def listen(event: Event) -> None:
                if isinstance(event, TaskEvent) and event.state is State.STARTED:
                    cluster.remove_node(node, allow_graceful=False)

            sp.on_event(listen)
            with pytest.raises(StallError, match=r"no worker left: map"):
                sp.from_items([{"i": 1}]).map(_slow).count()
        del foreign


@pytest.mark.slow
def test_hand_off_on_s3(cluster: Any, s3: dict[str, Any], seed: int) -> None:
    left = _left(seed)
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
