"""Processes that die, files that rot, disks that fill up, drivers that start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import smallpond
from smallpond import scheduler
from smallpond.dataframe import DataFrame
from smallpond.engine import run
from smallpond.errors import CorruptedDataError, OutOfMemory, SmallpondError, TaskError
from smallpond.events import Event, State, TaskEvent
from smallpond.task import Attempt
from tests.oracles.smallpond import assert_same, query

ROWS = 12
TABLE = pa.table({"n": list(range(ROWS))})


class Marks:
    """Counts calls over all processes: a file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        folder.mkdir(exist_ok=True)

    def names(self) -> list[str]:
        return sorted(path.name.partition(".")[0] for path in Path(self.folder).iterdir())

    def clear(self) -> None:
        for path in Path(self.folder).iterdir():
            path.unlink()


def marking(folder: str) -> Callable[[dict[str, int]], dict[str, int]]:
    """A function that leaves a file for each of its calls."""

    def mark(row: dict[str, int]) -> dict[str, int]:
        Path(folder, f"{row['n']}.{uuid.uuid4().hex}").touch()
        return {"n": row["n"], "twice": 2 * row["n"]}

    return mark


def once(folder: str, then: Callable[[], Any]) -> Callable[[dict[str, int]], dict[str, int]]:
    """A function that does something at its first call for row 7, in whatever process."""

    def call(row: dict[str, int]) -> dict[str, int]:
        if row["n"] == 7 and not Path(folder, "done").exists():
            Path(folder, "done").touch()
            then()
        return {"n": row["n"], "twice": 2 * row["n"]}

    return call


def doubled(table: pa.Table = TABLE) -> pa.Table:
    return query("SELECT n, 2 * n AS twice FROM t", t=table)


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


@pytest.fixture
def events(sp: smallpond.Session) -> list[Event]:
    seen: list[Event] = []
    sp.on_event(seen.append)
    return seen


def states(events: list[Event], *wanted: State) -> list[TaskEvent]:
    return [e for e in events if isinstance(e, TaskEvent) and e.state in wanted]


# ---- processes that die


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves() -> None:
    os._exit(3)


@pytest.mark.parametrize("death", [dies, leaves])
def test_a_worker_process_that_dies_is_replaced(
    sp: smallpond.Session, marks: Marks, events: list[Event], death: Callable[[], None]
) -> None:
    df = sp.from_arrow(TABLE).repartition(3, by_rows=True).map(once(marks.folder, death))
    assert_same(df.to_arrow(), doubled())
    [failed] = states(events, State.FAILED)
    assert "worker process" in failed.error


def test_a_worker_process_that_always_dies_is_an_error(sp: smallpond.Session) -> None:
    def fatal(row: dict[str, int]) -> dict[str, int]:
        os._exit(3)

    df = sp.from_arrow(TABLE).map(fatal)
    with pytest.raises(TaskError, match=r"map.*the worker process ended with exit code 3"):
        df.to_arrow()
    assert sp.from_arrow(TABLE).map(lambda row: row).count() == ROWS


def test_faults_by_chance_do_not_change_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MAX_FAILURES", 30)  # chance may have it four times, too
    source = pa.table({"n": list(range(1000)), "k": [i % 17 for i in range(1000)]})
    kwargs: dict[str, Any] = {"cpus": 2, "progress": False, "fault_inject_prob": 0.3}
    with smallpond.init(data_root=str(tmp_path), **kwargs) as sp:
        seen: list[Event] = []
        sp.on_event(seen.append)
        df = sp.from_arrow(source).repartition(6, hash_by="k")
        made = df.map("n + 1 AS n, k").group_by("k", npartitions=5).agg("sum(n) AS s")
        expected = query("SELECT k, sum(n + 1) AS s FROM t GROUP BY k", t=source)
        assert_same(made.to_arrow(), expected)
        assert "injected fault" in {e.error.rpartition(": ")[2] for e in states(seen, State.FAILED)}
        assert df.map(lambda row: {"m": row["n"]}).count() == 1000
        df.write_parquet(str(tmp_path / "out"))
        assert sp.read_parquet(str(tmp_path / "out")).count() == 1000


def test_a_fault_at_every_attempt_is_an_error(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"cpus": 2, "progress": False, "fault_inject_prob": 1.0}
    with smallpond.init(data_root=str(tmp_path), **kwargs) as sp:
        df = sp.from_arrow(TABLE).filter("n > 3")
        with pytest.raises(TaskError, match=r"failed 4 times: InjectedFault"):
            df.to_arrow()


# ---- hand-off files that rot


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def deleted(path: Path) -> None:
    path.unlink()


DAMAGES = [truncated, flipped, emptied, deleted]


def handed_on(sp: smallpond.Session) -> list[Path]:
    return sorted(Path(sp.config.job_root, "output").glob("*.arrow"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_between_stages_is_made_again(
    sp: smallpond.Session, marks: Marks, damage: Callable[[Path], None]
) -> None:
    """Every file of the first stage, damaged before the second stage reads them."""
    source = pa.table({"n": list(range(200))})
    df = sp.from_arrow(source).map(marking(marks.folder)).repartition(3, hash_by="n")
    damaged: list[Path] = []

    def spoil(event: Event) -> None:
        if isinstance(event, TaskEvent) and event.state is State.FINISHED and not damaged:
            for path in handed_on(sp):
                damage(path)
                damaged.append(path)

    sp.on_event(spoil)
    made = sp.partial_sql("SELECT n, twice FROM {0} WHERE twice >= 0", df)
    assert_same(made.to_arrow(), doubled(source))
    assert damaged


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_computed_frame_is_an_error_or_made_again(
    sp: smallpond.Session, marks: Marks, damage: Callable[[Path], None]
) -> None:
    df = sp.from_arrow(TABLE).map(marking(marks.folder))
    df.compute()
    for path in handed_on(sp):
        damage(path)
    for use in (df.to_arrow, df.filter("n >= 0").to_arrow):
        with pytest.raises(SmallpondError, match=r"\.arrow: ") as raised:
            use()
        assert isinstance(raised.value, CorruptedDataError) or "Corrupted" in str(raised.value)
    assert_same(df.recompute().to_arrow(), doubled())


def test_rows_that_were_handed_out_stay_when_they_are_computed_again(
    sp: smallpond.Session, tmp_path: Path
) -> None:
    """They are files mapped into memory."""
    version = tmp_path / "version"

    def read(row: dict[str, int]) -> dict[str, Any]:
        return {"n": row["n"], "text": version.read_text()}

    df = sp.from_arrow(TABLE).map(read)
    version.write_text("first" * 1000)
    first = df.to_arrow()
    version.write_text("second")
    assert df.recompute().to_arrow().column("text").to_pylist() == ["second"] * ROWS
    assert first.column("text").to_pylist() == ["first" * 1000] * ROWS


# ---- drivers that start again


DRIVER = """
import os, sys, time, uuid
import smallpond

folder, root = sys.argv[1:3]

def mark(row):
    with open(f"{folder}/{row['n']}.{os.getpid()}.{uuid.uuid4().hex}", "w"):
        pass
    if row["n"] >= 6 and os.path.exists(f"{root}.slow"):
        time.sleep(60)
    return {"n": row["n"], "twice": 2 * row["n"]}

if __name__ == "__main__":
    sp = smallpond.init(job_id="again", data_root=root, cpus=1, progress=False)
    df = sp.from_items([{"n": i} for i in range(12)]).repartition(4, by_rows=True).map(mark)
    print("rows", sorted(r["twice"] for r in df.repartition(2, hash_by="n").take_all()))
"""


def driver(tmp_path: Path, marks: Marks, *, slow: bool = False) -> subprocess.Popen[str]:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), marks.folder, str(tmp_path / "root")]
    (tmp_path / "root.slow").unlink(missing_ok=True)
    if slow:
        (tmp_path / "root.slow").touch()
    env = {**os.environ, "PYTHONPATH": str(Path(smallpond.__file__).parents[1])}
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited in vain until {what}")


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_driver_that_was_killed_goes_on_where_it_was(tmp_path: Path, marks: Marks) -> None:
    first = driver(tmp_path, marks, slow=True)
    wait_until(lambda: "6" in marks.names(), "the third partition is under way")
    workers = children_of(first.pid)
    assert workers
    first.kill()
    first.communicate()
    wait_until(lambda: not any(map(is_alive, workers)), "the worker processes have ended, too")
    assert marks.names() == ["0", "1", "2", "3", "4", "5", "6"]
    marks.clear()
    second = driver(tmp_path, marks)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out == f"rows {[2 * n for n in range(12)]}\n"
    assert marks.names() == sorted(str(n) for n in range(6, 12))
    # It ended well, so that its folder is gone, and the next job of that name begins anew.
    assert list((tmp_path / "root").iterdir()) == []
    marks.clear()
    out, err = driver(tmp_path, marks).communicate(timeout=60)
    assert out.startswith("rows "), err
    assert len(marks.names()) == 12


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_dead_driver_left_is_checked_before_it_is_used(
    tmp_path: Path, marks: Marks, damage: Callable[[Path], None]
) -> None:
    first = driver(tmp_path, marks, slow=True)
    wait_until(lambda: "6" in marks.names(), "the third partition is under way")
    first.kill()
    first.communicate()
    [output] = (tmp_path / "root").glob("*/output")
    manifests = sorted(output.glob("*.json"))
    assert len(manifests) == 2
    damage(min(output.glob("*.arrow")))
    damage(manifests[1])
    marks.clear()
    out, err = driver(tmp_path, marks).communicate(timeout=60)
    assert out == f"rows {[2 * n for n in range(12)]}\n", err


@pytest.mark.parametrize("moment", ["sql", "python"])
def test_ctrl_c_ends_a_run_and_all_that_belongs_to_it(tmp_path: Path, moment: str) -> None:
    work = {
        "sql": "sp.partial_sql('SELECT sum(a.range * b.range % 7) FROM range(1000000) a, "
        "range(1000000) b').take_all()",
        "python": "sp.from_items([1, 2]).map(lambda r: (time.sleep(100), r)[1]).take_all()",
    }[moment]
    script = f"""
        import signal, sys, threading, time
        import smallpond
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests
        sp = smallpond.init(data_root={str(tmp_path / "root")!r}, cpus=2, progress=False)
        sp.on_event(lambda e: print(type(e).__name__, getattr(e, "state", ""), flush=True))
        try:
            {work}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(7)
    """
    env = {**os.environ, "PYTHONPATH": str(Path(smallpond.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "STARTED" in line:
            break
    time.sleep(0.5)
    workers = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 7, err
    assert "interrupted" in out
    assert err == ""
    assert not any(map(is_alive, workers))
    assert not list((tmp_path / "root").glob("*"))


# ---- too little room


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    """The limit on the size of a file stands for it: writes fail with an OSError."""
    script = f"""
        import resource, signal, sys
        import smallpond
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sp = smallpond.init(data_root={str(tmp_path / "root")!r}, cpus=2, progress=False)
        df = sp.partial_sql("SELECT range AS n, hash(range) AS h FROM range(200000)")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        for act in (lambda: df.repartition(2, hash_by="n").count(),
                    lambda: df.write_parquet({str(tmp_path / "out")!r}),
                    lambda: df.write_ipc({str(tmp_path / "out")!r})):
            try:
                act()
            except smallpond.errors.SmallpondError as error:
                print("told", str(error).splitlines()[0])
        print(df.limit(3).count())
    """
    env = {**os.environ, "PYTHONPATH": str(Path(smallpond.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("told")]
    assert len(told) == 3, done.stdout
    assert all("File too large" in line for line in told), told
    assert done.stdout.splitlines()[-1] == "3"
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


NEEDY: dict[str, tuple[Callable[[smallpond.Session], DataFrame], str]] = {
    "group": (
        lambda sp: keyed(sp).group_by("k").agg("sum(n) AS s", "list(n ORDER BY n) AS l"),
        "SELECT k, sum(n) AS s, list(n ORDER BY n) AS l FROM t GROUP BY k",
    ),
    "distinct": (lambda sp: keyed(sp).select("k").distinct(), "SELECT DISTINCT k FROM t"),
    "join": (
        lambda sp: keyed(sp).join(keyed(sp).map("k::DOUBLE AS k, n AS m"), on="k"),
        "SELECT t.n, t.k, u.n AS m FROM t JOIN t u ON t.k = u.k",
    ),
    "full join": (
        lambda sp: keyed(sp).join(keyed(sp).map("k + 5 AS k, n AS m"), on="k", how="full"),
        "SELECT n, k, m FROM t FULL JOIN (SELECT k + 5 AS k, n AS m FROM t) USING (k)",
    ),
    "sort": (
        lambda sp: keyed(sp).group_by("k").count().sort("k"),
        "SELECT k, count(*) AS count FROM t GROUP BY k",
    ),
    "all": (
        lambda sp: keyed(sp).group_by("k").count().agg("max(count) AS c", "sum(k) AS k"),
        "SELECT max(c) AS c, sum(k) AS k FROM (SELECT k, count(*) AS c FROM t GROUP BY k)",
    ),
    "chance": (
        lambda sp: keyed(sp).map("n, uuid() AS u").distinct().map("n"), "SELECT n FROM t",
    ),
    "groups of chance": (
        lambda sp: keyed(sp).group_by("uuid() AS u").agg("max(n) AS n").map("n"),
        "SELECT n FROM t",
    ),
    "exchange": (
        lambda sp: keyed(sp).distinct("n").repartition(3, hash_by="k").map("k, n"),
        "SELECT k, n FROM t",
    ),
}  # fmt: skip
KEYED = pa.table(
    {"n": list(range(300)), "k": [None if i % 40 == 1 else i % 37 for i in range(300)]}
)


def keyed(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(KEYED)


@pytest.mark.parametrize("passes", [4, 16, 64])
@pytest.mark.parametrize("case", NEEDY)
def test_little_memory_is_made_up_for_by_passes(
    sp: smallpond.Session, monkeypatch: pytest.MonkeyPatch, case: str, passes: int
) -> None:
    """Every task lacks memory until it works in so many passes."""
    real = run.run

    def needy(attempt: Attempt, instance: Any) -> Any:
        if attempt.passes < passes:
            raise OutOfMemory("not enough")
        return real(attempt, instance)

    monkeypatch.setattr(run, "run", needy)
    monkeypatch.setattr(scheduler, "can_be_cut", lambda _: True)
    make, sql = NEEDY[case]
    assert_same(make(sp).to_arrow(), query(sql, t=KEYED))


def test_far_too_little_memory_is_an_error_with_advice(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"cpus": 1, "progress": False, "memory_limit": "16MB"}
    with smallpond.init(data_root=str(tmp_path), **kwargs) as sp:
        one_group = sp.partial_sql("SELECT range AS n FROM range(3000000)").agg("list(n) AS ns")
        with pytest.raises(OutOfMemory, match="raise memory_limit, or repartition"):
            one_group.to_arrow()
        assert sp.from_arrow(TABLE).filter("n > 3").count() == ROWS - 4


# ---- stragglers


def test_a_straggler_gets_a_second_copy(
    sp: smallpond.Session, marks: Marks, events: list[Event]
) -> None:
    def sleeps() -> None:
        time.sleep(100)

    parts = sp.from_arrow(TABLE).repartition(ROWS, by_rows=True)
    began = time.monotonic()
    assert_same(parts.map(once(marks.folder, sleeps)).to_arrow(), doubled())
    assert time.monotonic() - began < 90
    [copy] = [e for e in states(events, State.STARTED) if e.speculative]
    [cancelled] = states(events, State.CANCELLED)
    assert cancelled.task_key == copy.task_key
    assert cancelled.attempt != copy.attempt


def test_stragglers_are_left_alone_if_so_wished(tmp_path: Path, marks: Marks) -> None:
    kwargs: dict[str, Any] = {"cpus": 2, "progress": False, "speculative_exec": False}
    with smallpond.init(data_root=str(tmp_path / "root"), **kwargs) as sp:
        seen: list[Event] = []
        sp.on_event(seen.append)
        parts = sp.from_arrow(TABLE).repartition(ROWS, by_rows=True)
        made = parts.map(once(marks.folder, lambda: time.sleep(3)))
        assert_same(made.to_arrow(), doubled())
        assert not [e for e in states(seen, State.STARTED) if e.speculative]
