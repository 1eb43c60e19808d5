"""What time it is, all tasks of a run agree on."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.engine.clock import asks_for_time, set_time
from smallpond.rules import Spread
from tests.smallpond.planned import SPREAD, rows_by_rules

ASKS = [
    *("now()", "current_timestamp", "get_current_timestamp()", "transaction_timestamp()"),
    *("today()", "current_date", "current_time", "get_current_time()"),
    *("localtimestamp", "current_localtimestamp()", "localtime", "current_localtime()"),
]
SELECT = ", ".join(f"{call} AS c{i}" for i, call in enumerate(ASKS))


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(pa.table({"n": list(range(8))})).repartition(4, by_rows=True)


def time_of(df: DataFrame) -> dt.datetime:
    [row] = df.take_all()
    found = row["t"]
    assert isinstance(found, dt.datetime)
    return found


@SPREAD
def test_tasks_agree(sp: smallpond.Session, df: DataFrame, spread: Spread) -> None:
    rows = rows_by_rules(sp, df.map(SELECT).distinct().plan, spread)
    assert rows.num_rows == 1
    assert rows.schema.types == duckdb.sql(f"SELECT {SELECT}").to_arrow_table().schema.types


def test_files_of_one_run_agree(sp: smallpond.Session, df: DataFrame, tmp_path: Path) -> None:
    df.map("NOW() AS t, n").write_parquet(str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 4
    times = sp.read_parquet(str(tmp_path / "out")).map("t").distinct()
    assert times.count() == 1


def test_it_is_now(df: DataFrame) -> None:
    begin = dt.datetime.now(dt.UTC)
    first = time_of(df.map("now() AS t").distinct())
    second = time_of(df.agg("max(now()) AS t"))
    assert begin <= first < second <= dt.datetime.now(dt.UTC)


def test_columns_may_have_such_names(df: DataFrame) -> None:
    named = df.map("n AS now, n + 1 AS today").filter("now > 6").map("now, today")
    assert named.take_all() == [{"now": 7, "today": 8}]


def test_the_day_is_that_of_the_time_zone() -> None:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'Asia/Tokyo'")
        set_time(con, 20 * 3600 + 0.25)
        [row] = con.execute(f"SELECT {SELECT}").fetchall()
    utc = dt.datetime(1970, 1, 1, 20, 0, 0, 250_000, tzinfo=dt.UTC)
    local = dt.datetime(1970, 1, 2, 5, 0, 0, 250_000)  # noqa: DTZ001 (as a timestamp is)
    assert row[:4] == (utc,) * 4
    assert row[4:6] == (local.date(),) * 2
    assert [time.replace(tzinfo=None) for time in row[6:8]] == [local.time()] * 2
    assert row[8:10] == (local,) * 2
    assert row[10:] == (local.time(),) * 2


@pytest.mark.parametrize("call", ASKS)
def test_texts_that_ask_are_seen(call: str) -> None:
    assert asks_for_time(f"SELECT {call.upper()} AS x")
    assert not asks_for_time("SELECT known, snow FROM nowhere")
