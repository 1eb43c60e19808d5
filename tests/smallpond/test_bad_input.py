"""Mistakes are told in the user's words: which operation, which of his lines, what to do."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.errors import PlanError, SmallpondError, TaskError, UserCodeError

SCREEN = 24


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(pa.table({"n": list(range(20)), "s": ["x"] * 20}))


def told(action: Callable[[], Any], *patterns: str, kind: type = SmallpondError) -> str:
    """The message of the error that an action raises; every pattern is in it."""
    with pytest.raises(kind) as raised:
        action()
    message = str(raised.value)
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in:\n{message}"
    return message


# ---- SQL


SYNTAX: dict[str, tuple[Callable[[DataFrame], Any], str, str]] = {
    "select list": (lambda df: df.map("n,\n n +"), "map", "LINE 2:  n +"),
    "second line": (lambda df: df.map("n,\n 1 2 3,\n s"), "map", "LINE 2:  1 2 3,"),
    "condition": (lambda df: df.filter("n >\n > 3"), "filter", "LINE 2:  > 3"),
    "end of a condition": (lambda df: df.filter("n > 3 and"), "filter", "LINE 1: n > 3 and"),
    "select": (lambda df: df.select("n", "s s s"), "select", "LINE 1: n, s s s"),
    "key": (lambda df: df.sort("n +"), "sort", "LINE 1"),
    "group": (lambda df: df.group_by("n +"), "group_by", "LINE 1: n +"),
    "aggregate": (lambda df: df.group_by("n").agg("sum(n"), "agg", "LINE 1: sum"),
    "partition": (lambda df: df.repartition(2, by="n +"), "repartition", "LINE 1: n +"),
    "window": (lambda df: df.window(w="row_number("), "window", "LINE 1"),
    "query": (
        lambda df: df.session.partial_sql("SELECT n\nFRM {0}", df), "partial_sql", "LINE 2: FRM",
    ),
    "whole query": (
        lambda df: df.session.sql("SELECT\n n FRM\n {a}", a=df), "sql", "LINE 3:",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SYNTAX)
def test_sql_that_does_not_parse_is_refused_at_once(df: DataFrame, case: str) -> None:
    make, operation, line = SYNTAX[case]
    message = told(lambda: make(df), f"^{operation}: ", re.escape(line), kind=PlanError)
    assert re.search(f"\nin {operation}: ", message)
    assert "FROM t" not in message.replace("FROM t\n", "FROM t")
    assert len(message.splitlines()) < SCREEN


UNBOUND: dict[str, tuple[Callable[[DataFrame], DataFrame], str, str]] = {
    "column": (lambda df: df.filter("n > 2").map("n,\n zz + 1"), "map", "LINE 2:  zz [+] 1"),
    "function": (lambda df: df.map("n,\n nosuch(n)\n AS m"), "map", "LINE 2:  nosuch"),
    "condition": (lambda df: df.map("n").filter("n > 1\n AND s = 'x'"), "filter", "LINE 2:  AND s"),
    "aggregate": (lambda df: df.group_by("n").agg("sum(zz)"), "group_by", '"zz"'),
    "aggregate of all": (lambda df: df.agg("sum(zz)"), "agg", '"zz"'),
    "key": (lambda df: df.group_by("zz").agg("sum(n)"), "group_by", 'column "zz" not found'),
    "sort": (lambda df: df.sort("zz"), "sort", '"zz"'),
    "spread sort": (lambda df: df.sort("zz", npartitions=3), "sort", '"zz"'),
    "distinct": (lambda df: df.distinct("zz"), "distinct", '"zz"'),
    "hash": (lambda df: df.repartition(2, hash_by=["n", "zz"]), "repartition", '"zz"'),
    "hash alone": (lambda df: df.repartition(2, hash_by="zz").map("n"), "repartition", "zz"),
    "hash of what is not read": (
        lambda df: df.repartition(2, hash_by="z(z").agg("count(*)"),
        "repartition",
        r"no column 'z\(z'",
    ),
    "number": (lambda df: df.repartition(2, by="zz").map("n"), "repartition", "zz"),
    "window": (lambda df: df.window(partition_by="zz", w="rank()"), "window", '"zz"'),
    "select": (lambda df: df.select("zz"), "select", "LINE 1: zz"),
    "query": (
        lambda df: df.session.partial_sql("SELECT n,\n zz FROM {0}", df),
        "partial_sql",
        "LINE 2:  zz",
    ),
    "table": (
        lambda df: df.session.partial_sql("SELECT n\nFROM nowhere, {0}", df),
        "partial_sql",
        r"(?s)LINE 2: FROM nowhere|.*inputs are tables that stand in braces, as in FROM \{0\}",
    ),
}


@pytest.mark.parametrize("case", UNBOUND)
def test_names_that_do_not_exist_are_told_with_the_operation(df: DataFrame, case: str) -> None:
    make, operation, text = UNBOUND[case]
    made = make(df)
    message = told(made.to_arrow, rf"^{operation}\b", text, kind=TaskError)
    assert len(message.splitlines()) < SCREEN


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE z AS FROM {0}", "set threads = 1", "attach 'x'"]
)
def test_what_is_no_query_is_refused(df: DataFrame, statement: str) -> None:
    word = statement.split(maxsplit=1)[0].upper()
    told(
        lambda: df.session.partial_sql(statement, df),
        rf"^partial_sql: a query expected \(SELECT, FROM, WITH, VALUES\), got {word}\n",
        kind=PlanError,
    )


def test_values_that_do_not_fit_are_told_with_the_users_line(df: DataFrame) -> None:
    made = df.filter("n > 2").map("n,\n s::INTEGER AS i").filter("n < 10")
    message = told(
        made.to_arrow, "^map: Conversion Error: .*'x'", r"LINE 2:  s::INTEGER AS i", "\nin map: n,"
    )
    assert "in filter" not in message
    told(df.map("n, s").filter("n > 2\n AND s::INTEGER > 2").to_arrow, "^filter", "LINE 2:  AND s")
    told(
        df.repartition(2, by="s").map("n").to_arrow, "^repartition", "Could not convert string 'x'"
    )
    told(
        df.session.partial_sql("SELECT\n\n s::INTEGER FROM {0}", df.repartition(2)).to_arrow,
        "^partial_sql",
        "LINE 3:  s::INTEGER",
    )


def test_inputs_that_a_query_names_exist(sp: smallpond.Session, df: DataFrame) -> None:
    told(lambda: sp.partial_sql("FROM {0} JOIN {1} USING (n)", df), r"there is no input \{1\}")
    told(lambda: sp.sql("FROM {a} JOIN {b} USING (n)", a=df), r"sql: there is no input \{b\}")


def test_partitions_that_do_not_match_are_told(sp: smallpond.Session, df: DataFrame) -> None:
    three, two = df.repartition(3, hash_by="n"), df.repartition(2, hash_by="n")
    query = "SELECT * FROM {0} a JOIN {1} b ON a.n = b.n"
    told(sp.partial_sql(query, three, two).to_arrow, "partial_sql: ", "repartition both alike")


# ---- values


VALUES: dict[str, tuple[Callable[[DataFrame], Any], str]] = {
    "zero partitions": (
        lambda df: df.repartition(0),
        "repartition: npartitions must be a whole number of at least 1, got 0",
    ),
    "half a partition": (lambda df: df.repartition(2.5), "repartition: npartitions .* got 2.5"),
    "two ways": (
        lambda df: df.repartition(2, hash_by="n", by="n"),
        "repartition: only one of hash_by, by and by_rows",
    ),
    "keyword": (
        lambda df: df.repartition(2, hash_bye="n"),
        "repartition: unknown keyword 'hash_bye'",
    ),
    "map keyword": (lambda df: df.map("n", udf=[]), "map: unknown keyword 'udf'"),
    "no function": (lambda df: df.map("n", udfs=[len]), "map: udfs takes functions made by @udf"),
    "cpu": (lambda df: df.map("n", cpu_limit=0), "map: cpu_limit must be positive, got 0"),
    "memory": (lambda df: df.map("n", memory_limit=-1), "map: memory_limit must be positive"),
    "limit": (lambda df: df.limit(-1), "limit: a whole number of rows expected, got -1"),
    "limit text": (lambda df: df.limit("3"), "limit: a whole number of rows expected, got '3'"),
    "take": (lambda df: df.take(-1), "take: a whole number of rows expected, got -1"),
    "head": (lambda df: df.head(2**64), "limit: a whole number of rows expected"),
    "batch": (lambda df: df.map_batches(lambda t: t, batch_size=0), "map_batches: batch_size"),
    "no column": (lambda df: df.select(), "select: at least one column expected"),
    "drop": (lambda df: df.drop("zz"), r"drop: no column 'zz'; there are \['n', 's'\]"),
    "rename": (lambda df: df.rename({"zz": "a"}), "rename: no column 'zz'"),
    "join": (lambda df: df.join(df, on="zz"), "join: the left side has no column 'zz'"),
    "how": (lambda df: df.join(df, on="n", how="outer"), "join: how must be one of .*'outer'"),
    "on": (lambda df: df.join(df), "join: on, or left_on and right_on, are needed"),
    "types": (lambda df: df.join(df.map("s AS n"), on="n"), "join: .* never equal .cast one"),
    "sort": (lambda df: df.sort(), "sort: at least one key expected"),
    "directions": (lambda df: df.sort("n", descending=[True, False]), "sort: 1 keys but 2 values"),
    "group": (lambda df: df.group_by(), "group_by: at least one key expected"),
    "agg": (lambda df: df.agg(), "agg: at least one aggregate expected"),
    "window": (lambda df: df.window(), "window: at least one column"),
    "filter": (lambda df: df.filter(3), "filter: a condition or a function expected, got 3"),
    "map": (lambda df: df.map(3), "map: a select list or a function expected, got 3"),
    "map_batches": (lambda df: df.map_batches("n"), "map_batches: a function expected, got 'n'"),
    "explain": (lambda df: df.explain("zz"), "explain: mode must be .*'zz'"),
    "items": (lambda df: df.session.from_items([]), "from_items: items must not be empty"),
    "mixed items": (
        lambda df: df.session.from_items([{"a": 1}, {"a": "x"}]),
        "from_items: the items have no common type",
    ),
    "arrow": (lambda df: df.session.from_arrow([1]), "from_arrow: a pyarrow.Table expected, got l"),
    "no path": (lambda df: df.session.read_parquet([]), "at least one path expected"),
    "file size": (lambda df: df.write_parquet("x", file_size="big"), "file_size: a size such as"),
    "mode": (lambda df: df.write_parquet("x", mode="zz"), "mode must be one of .*'zz'"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_make_no_sense_are_refused(df: DataFrame, case: str) -> None:
    make, pattern = VALUES[case]
    told(lambda: make(df), pattern, kind=PlanError)
    assert not Path("x").exists()


INIT: dict[str, tuple[dict[str, Any], str]] = {
    "executor": ({"executor": "zz"}, "executor must be 'embedded' or 'ray', got 'zz'"),
    "memory": ({"memory_limit": "zz"}, "memory_limit: a size such as '4GB'.*'zz'"),
    "no memory": ({"memory_limit": 0}, "memory_limit must be positive"),
    "cpus": ({"cpus": 0}, "cpus must be a whole number of at least 1, got 0"),
    "half a CPU": ({"cpus": 1.5}, "cpus must be a whole number of at least 1, got 1.5"),
    "workers": (
        {"num_executors": "2"},
        "num_executors must be a whole number of at least 0, got '2'",
    ),
    "workers elsewhere": (
        {"num_executors": 2, "executor": "embedded"},
        "executor='embedded' runs here, and num_executors=2 elsewhere; leave one out",
    ),
    "address elsewhere": (
        {"ray_address": "auto", "executor": "embedded"},
        "executor='embedded' runs here, and ray_address='auto' elsewhere",
    ),
    "faults": ({"fault_inject_prob": 2}, "fault_inject_prob must be from 0 to 1, got 2"),
    "options": ({"storage_options": "key"}, "storage_options: a dict expected, got 'key'"),
    "root": ({"data_root": "s3://"}, "data_root: an address such as .* expected, got 's3://'"),
    "no root": ({"data_root": 5}, "a path must be a text, got 5"),
    "job": ({"job_id": "a/b"}, "job_id: letters, digits.*'a/b'"),
    "time": ({"job_time": "yesterday"}, "job_time: an ISO time expected, got 'yesterday'"),
}


@pytest.mark.parametrize("case", INIT)
def test_init_refuses_what_makes_no_sense(case: str) -> None:
    kwargs, pattern = INIT[case]
    told(lambda: smallpond.init(**kwargs), pattern, kind=PlanError)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with smallpond.init(data_root=tmp_path / "file" / "root", progress=False) as sp:
        told(
            sp.from_items([1]).map(lambda row: row).count,
            "^data_root .*/file/root cannot be written: .*Not a directory",
            kind=PlanError,
        )


def test_a_key_out_of_range_is_told_with_the_range(df: DataFrame) -> None:
    told(
        df.repartition(10, by="n % 11").count,
        "^repartition.* key 10 is out of range 0-9",
    )
    told(df.repartition(10, by="-1").count, "partition key -1 is out of range 0-9")
    told(df.repartition(3, by="nullif(n % 3, 1)").count, "partition key NULL is out of range 0-2")
    assert df.repartition(10, by="n % 10").count() == 20


# ---- functions


def fails(row: dict[str, int]) -> dict[str, int]:
    return {"x": inner(row["n"])}


def inner(n: int) -> int:
    if n == 13:
        message = f"no {n}, please"
        raise KeyError(message)
    return n


def deep(row: dict[str, int], depth: int = 0) -> dict[str, int]:
    return deep(row, depth + 1) if depth < 200 else {"x": 1 // 0}


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"odd {a} {b}")


def odd(row: dict[str, int]) -> dict[str, int]:
    raise OddError(row["n"], 2)


def leaves(row: dict[str, int]) -> dict[str, int]:
    sys.exit(row["n"] + 3)


def test_a_function_that_raises_shows_the_users_frames(df: DataFrame) -> None:
    message = told(df.map(fails).to_arrow, "^map: fails raised", "KeyError: 'no 13, please'")
    assert "in fails" in message
    assert "in inner" in message
    assert f'{Path(__file__).name}", line' in message
    assert "raise KeyError(message)" in message
    assert "smallpond/engine" not in message
    assert len(message.splitlines()) < SCREEN
    told(df.map(deep).to_arrow, "ZeroDivisionError", "in deep", kind=UserCodeError)
    told(df.map(odd).to_arrow, "odd raised", "OddError: odd 0 2")
    told(df.map(leaves).to_arrow, "map: leaves raised", "in leaves", "SystemExit: 3")
    told(df.filter(lambda row: row["zz"] > 1).to_arrow, "^filter: .*lambda", "KeyError: 'zz'")
    told(df.map_batches(lambda t: t.column("zz")).to_arrow, "^map_batches", "KeyError.*zz")
    assert len(told(df.map(deep).to_arrow).splitlines()) < SCREEN + 10


def test_a_function_in_sql_that_raises_shows_the_users_frames(df: DataFrame) -> None:
    @smallpond.udf(params=[smallpond.UDFType.BIGINT], return_type=smallpond.UDFType.BIGINT)
    def picky(n: int) -> int:
        return inner(n)

    message = told(df.map("picky(n) AS m", udfs=[picky]).to_arrow, "^map", "KeyError", "picky")
    assert "in inner" in message
    assert "in map: picky(n) AS m" in message
    assert len(message.splitlines()) < SCREEN


def test_what_a_function_returns_is_checked(df: DataFrame) -> None:
    told(
        df.map(lambda _row: 3).to_arrow, "^map: .*lambda.* must return a dict for each row, got in"
    )
    told(df.flat_map(lambda _row: 3).to_arrow, "^flat_map: .* must return a list of dicts.* int")
    told(df.flat_map(lambda row: row).to_arrow, "^flat_map: .* must return a list of dicts.*dict")
    told(df.flat_map(lambda _row: [3]).to_arrow, "^flat_map: .* a dict for each row, got int: 3")
    told(df.map_batches(lambda _t: 3).to_arrow, "^map_batches: .* must return a pyarrow.Table")
    mixed = df.map(lambda row: {"a": row["n"] if row["n"] < 10 else "x"})
    told(mixed.to_arrow, "^map: what .* returned does not fit one type per column; pass schema=")
    schema = pa.schema([("a", pa.int64())])
    told(df.map(lambda _row: {"a": "x"}, schema=schema).to_arrow, "^map: .* does not fit schema=")
    told(
        df.map_batches(lambda _t: pa.table({"a": ["x"]}), schema=schema).to_arrow,
        "^map_batches: .* schema=",
    )


def test_a_function_that_cannot_travel_is_refused_at_once(df: DataFrame) -> None:
    lock = threading.Lock()
    message = told(
        lambda: df.map(lambda row: {"x": lock, **row}), "map: Can't pickle task: .*lambda"
    )
    assert "cannot pickle '_thread.lock' object" in message
    told(lambda: df.filter(lambda _row: bool(lock)), "filter: Can't pickle task")
    told(lambda: df.map_batches(lambda t: (lock, t)[1]), "map_batches: Can't pickle task")


# ---- files


def test_files_that_are_not_what_they_seem(sp: smallpond.Session, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_text("this is no parquet file, though it is long enough for one")
    told(sp.read_parquet(str(bad)).to_arrow, "^read", "bad.parquet")
    told(sp.read_parquet(str(bad)).repartition(2, by_rows=True).to_arrow, "^read", "bad.parquet")
    csv = tmp_path / "bad.csv"
    csv.write_text("1,2\n3,x\n")
    told(sp.read_csv(str(csv), {"a": "BIGINT", "b": "BIGINT"}).to_arrow, "^read", "column .?b", "x")
    told(sp.read_csv(str(csv), {"a": "NOTYPE"}).to_arrow, "^read", "NOTYPE does not exist")
    told(sp.read_csv(str(csv), {"a": "BIGINT"}).to_arrow, "^read", "number of columns")
    told(sp.read_json(str(csv)).to_arrow, "^read", "bad.csv")
    told(sp.read_ipc(str(csv)).to_arrow, "^read_ipc", "bad.csv is no Arrow IPC file")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "good.parquet")
    good = sp.read_parquet(str(tmp_path / "good.parquet"), columns=["zz"])
    told(good.to_arrow, "^read", '"zz"')


def test_files_of_mixed_schemas(sp: smallpond.Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["x"]}), tmp_path / "2.parquet")
    told(sp.read_parquet(str(tmp_path)).to_arrow, "^read", "2.parquet", "union_by_name=True")
    both = sp.read_parquet(str(tmp_path), union_by_name=True).to_arrow().to_pylist()
    assert both == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    told(sp.read_parquet(str(tmp_path)).to_arrow, "^read", "2.parquet", 'column "a"', "VARCHAR")


def test_tables_that_are_none(sp: smallpond.Session) -> None:
    told(lambda: sp.from_arrow({"a": [1]}), "from_arrow: a pyarrow.Table expected, got dict")  # type: ignore[arg-type]
    told(lambda: sp.from_pandas([1]), "from_pandas: a DataFrame expected, got list")  # type: ignore[arg-type]
    told(lambda: sp.from_polars([1]), "from_polars: a DataFrame expected, got list")  # type: ignore[arg-type]
    mixed = pd.DataFrame({"a": [1, "x"]})
    told(lambda: sp.from_pandas(mixed), "^from_pandas: .*Conversion failed for column a")


def test_types_that_duckdb_has_not(sp: smallpond.Session) -> None:
    table = pa.table({"n": [1], "h": pa.array(np.ones(1, np.float16))})
    df = sp.from_arrow(table)
    told(
        lambda: df.map("n").count(),
        "from_arrow: .* halffloat .column 'h'. .cast it first",
        kind=TaskError,
    )
    made = sp.from_items([1]).map_batches(lambda _: table)
    told(lambda: made.map("n").count(), "map_batches: .* halffloat .column 'h'.", kind=TaskError)
    assert made.to_arrow() == table


def test_what_fails_leaves_no_folder(df: DataFrame, tmp_path: Path) -> None:
    def dies_late(row: dict[str, int]) -> dict[str, int]:
        return {"x": 1 // (19 - row["n"])}

    target = tmp_path / "deep" / "out"
    failing = [
        lambda: df.map("n, s::INTEGER AS i").write_parquet(str(target)),
        lambda: df.map(dies_late).repartition(4, by_rows=True).write_parquet(str(target)),
        lambda: df.map(dies_late).write_csv(str(target)),
        lambda: df.map(dies_late).write_ipc(str(target)),
        lambda: df.repartition(3, by="n").write_json(str(target)),
        lambda: df.write_parquet(str(target), partition_by="zz"),
        lambda: df.write_parquet(str(target), compression="zz"),
        lambda: df.write_parquet_lazy(str(target), compression="zz").count(),
    ]
    for action in failing:
        told(action)
        assert list(tmp_path.iterdir()) == []
    df.write_parquet(str(target))
    before = sorted(path.name for path in target.iterdir())
    for mode in ("overwrite", "append"):
        told(lambda mode=mode: df.map(dies_late).write_parquet(str(target), mode=mode))
        assert sorted(path.name for path in target.iterdir()) == before
        assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_session_that_is_over_says_so(tmp_path: Path) -> None:
    session = smallpond.init(data_root=str(tmp_path), cpus=1, progress=False)
    df = session.from_items([1, 2])
    session.shutdown()
    session.shutdown()
    told(df.count, "this session was shut down; call smallpond.init")
