"""Work on data far over the memory limit is done, and done right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.events import Event, State, TaskEvent

ROWS = 1_500_000  # of 24 bytes and more: twice the limit, and far more while they are worked on
LIMIT = "24MB"


@pytest.fixture
def sp(tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session that may use little memory."""
    kwargs = {"cpus": 2, "progress": False, "memory_limit": LIMIT}
    with smallpond.init(data_root=str(tmp_path / "root"), **kwargs) as session:  # type: ignore[arg-type]
        yield session


def mixed(sp: smallpond.Session, rows: int = ROWS) -> DataFrame:
    """All numbers up to a limit, in an order far from theirs."""
    return sp.partial_sql(
        f"SELECT (range * 7919) % {rows} AS n, range AS i, 'text ' || range AS s FROM range({rows})"
    )


def spilled(events: list[Event]) -> int:
    return max(
        e.metrics.spilled_bytes
        for e in events
        if isinstance(e, TaskEvent) and e.state is State.FINISHED
    )


def one(df: DataFrame) -> dict[str, int]:
    [row] = df.take_all()
    return row


def sorts(sp: smallpond.Session, tmp_path: Path) -> None:
    target = str(tmp_path / "sorted")
    mixed(sp).sort("n").write_parquet(target)
    read = sp.read_parquet(target)
    steps = sp.partial_sql("SELECT n - lag(n) OVER () AS step, s FROM {0}", read)
    checked = steps.agg("count(*) AS c", "min(step) AS lo", "max(step) AS hi", "count(s) AS s")
    assert one(checked) == {"c": ROWS, "lo": 1, "hi": 1, "s": ROWS}


def sorts_in_ranges(sp: smallpond.Session, tmp_path: Path) -> None:
    target = str(tmp_path / "sorted")
    mixed(sp).sort("n desc", npartitions=4).write_parquet(target)
    last = ROWS
    for batch in sp.read_parquet(target).iter_batches(100_000):
        numbers = batch.column("n").to_pylist()
        assert numbers == list(range(last - 1, last - 1 - len(numbers), -1))
        last -= len(numbers)
    assert last == 0


def joins(sp: smallpond.Session, tmp_path: Path) -> None:
    joined = mixed(sp).join(mixed(sp).map("i AS n, s AS t"), on="n")
    checked = joined.agg("count(*) AS c", "sum(n) AS n", "count_if(t = 'text ' || n) AS same")
    assert one(checked) == {"c": ROWS, "n": ROWS * (ROWS - 1) // 2, "same": ROWS}


def groups(sp: smallpond.Session, tmp_path: Path) -> None:
    grouped = mixed(sp).group_by("n").agg("min(s) AS s", "sum(i) AS i", "count(*) AS c")
    checked = grouped.agg("count(*) AS c", "sum(i) AS i", "max(c) AS most", "count(s) AS s")
    assert one(checked) == {"c": ROWS, "i": ROWS * (ROWS - 1) // 2, "most": 1, "s": ROWS}


def distincts(sp: smallpond.Session, tmp_path: Path) -> None:
    twice = mixed(sp).union(mixed(sp)).distinct()
    assert one(twice.agg("count(*) AS c", "sum(i) AS i")) == {
        "c": ROWS,
        "i": ROWS * (ROWS - 1) // 2,
    }


def moves(sp: smallpond.Session, tmp_path: Path) -> None:
    moved = mixed(sp).repartition(16, hash_by="n")
    counted = sp.partial_sql("SELECT count(*) AS c, count(DISTINCT n) AS d FROM {0}", moved)
    assert one(counted.agg("sum(c) AS c", "sum(d) AS d")) == {"c": ROWS, "d": ROWS}


@pytest.mark.parametrize("work", [sorts, sorts_in_ranges, joins, groups, distincts, moves])
def test_more_than_fits_into_memory(
    sp: smallpond.Session, tmp_path: Path, work: Callable[[smallpond.Session, Path], None]
) -> None:
    events: list[Event] = []
    sp.on_event(events.append)
    work(sp, tmp_path)
    if work is not moves:  # which streams
        assert spilled(events) > 1_000_000, "the limit was no limit"
    # DuckDB marks its folder with a small file as long as it lives.
    files = [path for path in Path(sp.config.job_root, "temp").rglob("*") if path.is_file()]
    assert [path for path in files if not path.name.endswith("_owner")] == []
