"""Programs that use sessions in threads, in forks, and in children of `multiprocessing`."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import smallpond
from tests.oracles.smallpond import assert_same, query

ROOT = Path(smallpond.__file__).parents[1]


def output_of(tmp_path: Path, text: str) -> list[str]:
    """The lines that a program prints, which must end well and without a word on stderr."""
    program = tmp_path / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            program,
            tmp_path / "root",
        ],  # of forks
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


_FORK = """
import os, sys, smallpond

sp = smallpond.init(data_root=sys.argv[1], progress=False)
df = sp.from_items([{"a": i} for i in range(8)])
print(df.map(lambda row: {"b": row["a"] + 1}).agg("sum(b) as s").take_all(), flush=True)
if os.fork() == 0:
    for use in (df.count, lambda: df.map("a + 1 as c").columns):
        try:
            use()
        except smallpond.errors.PlanError as error:
            print(error, flush=True)
    own = smallpond.init(data_root=sys.argv[1] + "-child", progress=False)
    print(own.from_items([{"a": 1}]).map(lambda row: {"b": row["a"] + 1}).take_all(), flush=True)
    own.shutdown()
    sp.shutdown()
    os._exit(0)
print(os.wait()[1], os.path.exists(sp.config.job_root), flush=True)
print(df.map(lambda row: {"b": row["a"] + 2}).agg("sum(b) as s").take_all(), flush=True)
"""


def test_a_fork_has_no_part_in_the_session(tmp_path: Path) -> None:
    """It neither waits for threads that it has not, nor ends what is still used."""
    refused = (
        "this session is that of the process of which this one is a fork; call smallpond.init() "
        "for one of its own"
    )
    expected = ["[{'s': 36}]", refused, refused, "[{'b': 2}]", "0 True", "[{'s': 44}]"]
    assert output_of(tmp_path, _FORK) == expected


_CHILD = """
import dataclasses, multiprocessing, sys, smallpond

@dataclasses.dataclass
class Added:
    value: int

def add(row):
    return {"b": Added(row["a"] + 1).value}

def child(root):
    with smallpond.init(data_root=root, progress=False) as sp:
        print(sp.from_items([{"a": 1}]).map(add).take_all(), flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context("METHOD").Process(target=child, args=(sys.argv[1],))
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_child_maps_functions_of_the_program(tmp_path: Path, method: str) -> None:
    """The program is the module __mp_main__ there, which workers know nothing of."""
    assert output_of(tmp_path, _CHILD.replace("METHOD", method)) == ["[{'b': 2}]", "0"]


def test_threads_share_a_session(sp: smallpond.Session, seed: int) -> None:
    df = sp.from_items([{"a": i * seed % 101} for i in range(1000)])
    whole = df.to_arrow()
    found = {}

    def work(number: int) -> None:
        summed = df.map(f"a % 10 as k, a + {number} as v").group_by("k").agg("sum(v) as s")
        called = df.map(lambda row: {"v": row["a"] * number}).agg("sum(v) as s")
        found[number] = (summed.to_arrow(), called.to_arrow())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (summed, called) in found.items():
        groups = f"SELECT a % 10 AS k, sum(a + {number}) AS s FROM t GROUP BY k"
        assert_same(summed, query(groups, t=whole))
        assert_same(called, query(f"SELECT sum(a * {number}) AS s FROM t", t=whole))
    assert len(found) == 6
