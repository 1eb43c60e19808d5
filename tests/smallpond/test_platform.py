"""Platforms: which one a name means, and what they start and stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from smallpond.config import Config
from smallpond.errors import PlanError
from smallpond.platform import MPI, Platform, base, get_platform, mpi

ROOT = Path(__file__).parents[2]

_OWN = """
from datetime import datetime
from smallpond.platform import Platform as Base

class Batch(Base):
    started = []

    def start_job(self, num_nodes, entrypoint, args, envs={}, extra_opts={}):
        self.started.append((num_nodes, entrypoint, list(args), dict(envs), dict(extra_opts)))
        return ["17"]

    @staticmethod
    def default_job_id():
        return "batch-17"

    @staticmethod
    def default_job_time():
        return datetime(2026, 1, 31, 2, 0)

    @staticmethod
    def default_data_root():
        return "/shared/jobs"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a platform."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(_OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_names(own: str, tmp_path: Path) -> None:
    assert (Platform, MPI) == (base.Platform, mpi.MPI)
    assert type(get_platform()) is type(get_platform("local")) is Platform
    assert type(get_platform("mpi")) is MPI
    made = get_platform(own)
    assert type(made).__name__ == "Batch"
    assert [p.one_machine for p in (Platform(), MPI(), made)] == [True, False, False]
    with pytest.raises(PlanError, match=r"'local', 'mpi' or a module's name.*'nosuch\.platform'"):
        get_platform("nosuch.platform")
    (tmp_path / "empty_platform.py").write_text("from smallpond.platform import Platform")
    with pytest.raises(PlanError, match="empty_platform has no class derived from"):
        get_platform("empty_platform")


def test_what_was_not_given_is_the_platforms(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.from_args_and_env(platform=own)
    assert config.job_root == "/shared/jobs/2026-01-31-02-00-00.batch-17"
    assert not config.named
    given = Config.from_args_and_env(platform=own, data_root="/mine", job_id="a", job_time=0)
    assert given.job_root == "/mine/1970-01-01-00-00-00.a"
    monkeypatch.setenv("SP_PLATFORM", own)
    assert Config.from_args_and_env(platform="mpi").platform == own
    assert isinstance(Config.from_args_and_env().job_time, datetime)


def test_keywords_of_a_platform_need_workers() -> None:
    with pytest.raises(PlanError, match="init: unknown keyword 'queue'"):
        Config.from_args_and_env(queue="large")
    config = Config.from_args_and_env(queue="large", num_executors=2)
    assert config.platform_options == (("queue", "large"),)


def test_jobs_on_this_machine(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "open(f'{sys.argv[1]}/{os.getpid()}', 'w').write(os.environ['GIVEN'])\n"
        "time.sleep(60)\n"
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    platform = Platform()
    jobs = platform.start_job(2, str(script), [str(marks)], {"GIVEN": "yes"})
    deadline = time.monotonic() + 30
    while sum(mark.stat().st_size for mark in marks.iterdir()) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sorted(jobs) == sorted(mark.name for mark in marks.iterdir())
    assert all(platform.is_running(job) for job in jobs)
    for job in jobs:
        Platform().stop_job(job)
        with pytest.raises(ProcessLookupError):
            os.kill(int(job), 0)
    platform.stop_job("not one of ours")


@pytest.mark.parametrize("on_term", ["signal.SIG_IGN", "lambda *_: sys.exit(0)"])
def test_what_a_job_leaves_running_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_term: str
) -> None:
    """The child goes on in any case; the job itself does, or leaves it behind."""
    monkeypatch.setattr("smallpond.platform.base._PATIENCE_S", 0.5)
    script = tmp_path / "job.py"
    script.write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"signal.signal(signal.SIGTERM, {on_term})\n"
        "open(sys.argv[1], 'w').write(str(child.pid) + '.')\n"
        "time.sleep(60)\n"
    )
    mark = tmp_path / "child"
    [job] = Platform().start_job(1, str(script), [str(mark)])
    deadline = time.monotonic() + 30
    while not mark.exists() or not mark.read_text().endswith("."):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    Platform().stop_job(job)
    with pytest.raises(ProcessLookupError):
        os.kill(int(job), 0)
    status = Path(f"/proc/{mark.read_text()[:-1]}/stat")
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not MPI.is_available()
    with pytest.raises(PlanError, match="needs mpirun"):
        MPI().start_job(2, "worker.py", [])
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f"#!{sys.executable}\nimport os, sys\n"
                      f"open({str(tmp_path / 'said')!r}, 'w').write(' '.join(sys.argv[1:])"
                      " + ' ' + os.environ['SECRET'])\n")  # fmt: skip
    mpirun.chmod(0o755)
    assert MPI.is_available()
    [job] = MPI().start_job(2, "worker.py", ["--a=1"], {"SECRET": "value"})
    deadline = time.monotonic() + 30
    while MPI().is_running(job):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    MPI().stop_job(job)
    assert (tmp_path / "said").read_text() == (
        f"-n 2 --map-by node -x SECRET {sys.executable} worker.py --a=1 value"
    )


def test_a_program_is_handed_to_the_platform(tmp_path: Path, own: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import atexit, json, sys, smallpond\n"
        f"import {own} as own\n"
        "atexit.register(lambda: print(json.dumps(own.Batch.started)))\n"
        "smallpond.init(data_root='unused', queue='large')\n"
        "print('not reached')\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    env |= {"SP_SPAWN": "1", "SP_PLATFORM": own, "SP_JOBID": "j"}
    done = subprocess.run(
        [sys.executable, str(script), "--x", "1"],
        env=env, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = f'{{"SP_SPAWN": "0", "SP_PLATFORM": "{own}", "SP_JOBID": "j"}}'
    [[nodes, program, args, envs, options]] = json.loads(done.stdout)
    assert (nodes, program, args, options) == (1, str(script), ["--x", "1"], {"queue": "large"})
    assert envs == json.loads(told)
    shell = subprocess.run(
        [sys.executable, "-c", "import smallpond; smallpond.init()"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "SP_SPAWN=1 needs a program that is a file" in shell.stderr
