"""Sessions: what they touch, what they are told, what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

import smallpond
from smallpond.config import Config, parse_bytes
from smallpond.errors import PlanError

_REPOSITORY = Path(__file__).parents[2]


def _run(code: str, *arguments: str) -> str:
    """What a program of its own prints."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SP_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**env, "PYTHONPATH": str(_REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, smallpond; heavy = {'duckdb', 'ray', 'pyarrow', 'pandas', 'polars', 'rich', "
        "'numpy', 'fsspec', 'torch'}; print(sorted(heavy & set(sys.modules)))"
    )
    assert _run(code) == "[]\n"


def test_a_session_touches_no_disk_before_it_computes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = (
        "import sys, smallpond; sp = smallpond.init(data_root=sys.argv[1])\n"
        "df = sp.from_items([1, 2]).map('item + 1 as x').repartition(2, hash_by='x')\n"
        "import os; print(os.path.exists(sys.argv[1]))"
    )
    assert _run(code, str(root)) == "False\n"
    assert not root.exists()


def test_a_program_that_ends_leaves_no_files(tmp_path: Path) -> None:
    code = (
        "import sys, smallpond; sp = smallpond.init(data_root=sys.argv[1])\n"
        "print(sp.from_items([1, 2]).map(lambda row: {'x': row['item']}).count())"
    )
    assert _run(code, str(tmp_path)) == "2\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_listens(tmp_path: Path) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs Linux's /proc")
    code = (
        "import sys, os, json, glob, smallpond; sp = smallpond.init(data_root=sys.argv[1])\n"
        "sp.from_items([1, 2]).map(lambda row: row).repartition(2, hash_by='item').compute()\n"
        "children = [p for p in os.listdir('/proc') if p.isdigit() and "
        "open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split()[1] == str(os.getpid())]\n"
        "links = [os.readlink(f) for p in ['self', *children] for f in glob.glob(f'/proc/{p}/fd/*')"
        " if os.path.islink(f)]\n"
        "inodes = {l[8:-1] for l in links if l.startswith('socket:[')}\n"
        "lines = [l.split() for n in ('tcp', 'tcp6') "
        "for l in open(f'/proc/net/{n}').readlines()[1:]]\n"
        "print(json.dumps([l[1] for l in lines if l[3] == '0A' and l[9] in inodes]))"
    )
    assert json.loads(_run(code, str(tmp_path))) == []


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SP_JOBID", "from-env")
    monkeypatch.setenv("SP_JOB_TIME", "2025-02-28T01:02:03")
    monkeypatch.setenv("SP_DATA_ROOT", str(tmp_path / "env"))
    monkeypatch.setenv("SP_NUM_EXECUTORS", "0")
    monkeypatch.setenv("SP_BIND_NUMA_NODE", "1")
    monkeypatch.setenv("SP_MEMORY_ALLOCATOR", "jemalloc")
    monkeypatch.setenv("SP_PLATFORM", "mpi")
    config = Config.from_args_and_env(job_id="argument", data_root="/elsewhere", num_executors=7)
    assert config.job_id == "from-env"
    assert config.job_time == datetime(2025, 2, 28, 1, 2, 3)  # noqa: DTZ001 (as it was given)
    assert config.job_root == f"{tmp_path}/env/2025-02-28-01-02-03.from-env"
    assert (config.num_executors, config.executor) == (0, "embedded")
    assert config.bind_numa_node
    assert (config.memory_allocator, config.platform) == ("jemalloc", "mpi")
    monkeypatch.setenv("SP_RAY_ADDRESS", "head:1")
    config = Config.from_args_and_env(ray_address="other:2")
    assert (config.ray_address, config.executor) == ("head:1", "ray")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512MiB", 512 << 20), ("1.5 k", 1500), ("7", 7), (12, 12)],
)
def test_sizes(text: int | str, size: int) -> None:
    assert parse_bytes(text, "memory_limit") == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_limit": "much"}, "memory_limit: a size such as '4GB' or '512MiB' expected"),
        ({"memory_limit": 0}, "memory_limit must be positive, got 0"),
        ({"cpus": 0}, "cpus must be at least 1, got 0"),
        ({"executor": "spark"}, "executor must be 'embedded' or 'ray', got 'spark'"),
        ({"job_id": "a/b"}, "job_id: letters, digits"),
        ({"job_time": "yesterday"}, "job_time: an ISO time expected, got 'yesterday'"),
    ],
)
def test_says_what_makes_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        smallpond.init(**arguments)  # type: ignore[arg-type]


def test_a_session_that_was_shut_down_says_so(tmp_path: Path) -> None:
    sp = smallpond.init(data_root=str(tmp_path), progress=False)
    df = sp.from_items([1])
    sp.shutdown()
    sp.shutdown()
    with pytest.raises(PlanError, match="was shut down"):
        df.map("item + 1 as x").count()


def test_what_was_run_can_be_dumped(
    sp: smallpond.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sp.from_items([1, 2]).filter("item > 1").count()
    page = sp.dump_timeline(str(tmp_path / "run.html"))
    assert "</html>" in Path(page).read_text()
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(PlanError, match=r"needs graphviz \(pip install graphviz\)"):
        sp.graph()

    class Digraph:
        """As much of graphviz as is used."""

        def __init__(self, comment: str) -> None:
            self.source = f"// {comment}\n"

        def node(self, name: str, label: str) -> None:
            self.source += f"{name}: {label}\n"

        def edge(self, tail: str, head: str) -> None:
            self.source += f"{tail} -> {head}\n"

    module = ModuleType("graphviz")
    module.Digraph = Digraph  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "graphviz", module)
    text = Path(sp.dump_graph(str(tmp_path / "graph.dot"))).read_text()
    assert "filter: item > 1" in text
    assert text.count("table of 2 rows") == 1
    assert text.count("->") == 2
