"""Clusters that a session starts by itself, on this machine and through platforms."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import smallpond
import smallpond.executors.ray_cluster
from smallpond.errors import PlanError
from tests.smallpond.on_ray.told import wait_until
from tests.smallpond.ray_cluster import QUIET_RAY, SOON, connected, ray_cluster

ray: Any = pytest.importorskip("ray", reason="needs ray")
pytestmark = QUIET_RAY
ROOT = Path(__file__).parents[3]


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
    wait_until(lambda: all(map(_is_gone, map(int, pids.split()))), "nothing is left")


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
    wait_until(lambda: all(map(_is_gone, map(int, pids.split()))), "nothing is left")


_LOSES_A_NODE = """
import os, signal, sys, time, smallpond
from smallpond.platform.base import _started

if __name__ == "__main__":
    sp = smallpond.init(data_root=sys.argv[1], progress=False, num_executors=2, cpus=2)
    items = sp.from_items(list(range(8)))
    print(items.repartition(4, by_rows=True).map("item + 1").count(), flush=True)
    os.killpg(int(next(iter(_started))), signal.SIGKILL)
    while len(sp.job.executor.workers()) > 1:
        time.sleep(0.1)
    time.sleep(2)  # what Ray has to say comes by then
    print(items.repartition(4, by_rows=True).map("item + 2").count())
"""


@pytest.mark.slow
def test_what_is_said_of_a_lost_node(
    tmp_path: Path, program: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and not among what the program prints."""
    _forget_own_cluster(monkeypatch)
    for name, value in SOON.items():
        monkeypatch.setenv(name, value)
    job = program(_LOSES_A_NODE, tmp_path / "root")
    output, errors = job.communicate(timeout=240)
    assert job.returncode == 0, errors
    assert output == "8\n8\n"
    assert re.fullmatch(r"Ray's node 127\.0\.0\.1 \w+ is gone\n", errors), errors


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


# ---- clusters that a user has started

_JOINS = """
import sys, smallpond

if __name__ == "__main__":
    with smallpond.init(data_root=sys.argv[1], ray_address=sys.argv[2], progress=False) as sp:
        halves = sp.from_items(list(range(8))).repartition(2, by_rows=True)
        print(halves.map(lambda row: row).count())
"""


@pytest.mark.parametrize("token", [True, False])
def test_a_head_for_this_machine_alone(
    tmp_path: Path,
    program: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    token: bool,
) -> None:
    """Started by hand, with a user's token or without."""
    _forget_own_cluster(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray looks for the token
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    if token:
        subprocess.run([*command, "get-auth-token", "--generate"], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sockets = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # whose paths may not be long
    head = subprocess.Popen(
        [*command, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
         "--num-cpus=2", "--object-store-memory=80000000", "--include-dashboard=false",
         "--disable-usage-stats", f"--temp-dir={sockets}"],
        env={**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port), "the head has not started")
        joined = program(_JOINS, tmp_path / "data", f"127.0.0.1:{port}")
        out, errors = joined.communicate(timeout=60)
        assert out == "8\n", errors
    finally:
        head.terminate()
        head.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(sockets, ignore_errors=True)


def _answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
