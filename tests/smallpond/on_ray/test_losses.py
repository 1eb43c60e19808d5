"""Workers, drivers and nodes that die, and clusters that are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smallpond
import smallpond.executors.ray_cluster
from smallpond.errors import StallError
from smallpond.events import Event, State, TaskEvent
from tests.oracles.smallpond import assert_same, query
from tests.smallpond.on_ray.told import Told, drawn_table, wait_until
from tests.smallpond.ray_cluster import NODE, QUIET_RAY, connected, ray_cluster

ray: Any = pytest.importorskip("ray", reason="needs ray")
pytestmark = QUIET_RAY
ROOT = Path(__file__).parents[3]


# ---- losses


def test_a_killed_worker_is_replaced(on_ray: smallpond.Session, tmp_path: Path, seed: int) -> None:
    marker = tmp_path / "once"

    def die_once(row: dict[str, Any]) -> dict[str, Any]:
        if row["n"] == 300 and not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    told = Told(on_ray)
    left = drawn_table(seed)
    df = on_ray.from_arrow(left).repartition(4, by_rows=True).map(die_once)
    assert_same(df.to_arrow(), query("FROM l", l=left))
    assert marker.exists()
    failures = [event.error for event in told.events if event.state is State.FAILED]
    assert len(failures) == 1
    assert "a Ray worker was lost" in failures[0]


def _slow(row: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.3)
    return row


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
    wait_until(lambda: len(finished()) >= 4, "four tasks have finished")
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
    wait_until(lambda: len(list(marks.iterdir())) >= 2, "two tasks run")
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=30)
    assert job.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: ray.available_resources().get("CPU") == 2, "the processors are free")
    assert len(list(marks.iterdir())) == 2


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
        wait_until((tmp_path / doomed).exists, "the node has a task")
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
from smallpond.executors import ray_cluster as executor_of_ray
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
            executor_of_ray._SILENT_S = 5
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
