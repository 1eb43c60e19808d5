"""COLLATE means the same whether rows stay in one task or move, and ends with its operation."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.engine.passes import in_passes
from smallpond.rules import Spread
from tests.oracles.smallpond import assert_same, query
from tests.smallpond.planned import SPREAD, rows_by_rules

TABLE = pa.table({"s": [*"bCaBAdcD", None] * 3, "n": list(range(27))})


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(TABLE).repartition(4, by_rows=True)


HOLDS: dict[str, tuple[Callable[[DataFrame], DataFrame], str]] = {
    "min": (
        lambda df: df.agg("min(s COLLATE NOCASE) AS m"),
        "SELECT min(s COLLATE NOCASE) AS m FROM t",
    ),
    "count": (
        lambda df: df.agg("count(DISTINCT s COLLATE NOCASE) AS c"),
        "SELECT count(DISTINCT s COLLATE NOCASE) AS c FROM t",
    ),
    "group": (
        lambda df: df.group_by("s COLLATE NOCASE AS k").agg("sum(n) AS x").map("lower(k) AS k, x"),
        "SELECT lower(s) AS k, sum(n) AS x FROM t GROUP BY lower(s)",
    ),
    "groups that are asked to spread": (
        lambda df: df.group_by("s collate nocase AS k", npartitions=3).agg("sum(n) AS x").map("x"),
        "SELECT sum(n) AS x FROM t GROUP BY lower(s)",
    ),
    "filter": (
        lambda df: df.repartition(3, hash_by="s").filter("s COLLATE NOCASE = 'A'"),
        "SELECT * FROM t WHERE lower(s) = 'a'",
    ),
    "window": (
        lambda df: df.select("n", "rank() OVER (ORDER BY s COLLATE NOCASE) AS r"),
        "SELECT n, rank() OVER (ORDER BY lower(s)) AS r FROM t",
    ),
    "other rules": (
        lambda df: df.group_by("s || 'é' COLLATE NOACCENT AS k").agg("sum(n) AS x").map("x"),
        "SELECT sum(n) AS x FROM t GROUP BY s",
    ),
}


@SPREAD
@pytest.mark.parametrize("case", HOLDS)
def test_a_collation_holds_where_it_is_written(
    sp: smallpond.Session, df: DataFrame, case: str, spread: Spread
) -> None:
    make, expected = HOLDS[case]
    assert_same(rows_by_rules(sp, make(df).plan, spread), query(expected, t=TABLE))


@SPREAD
def test_rows_are_sorted_by_a_collation(
    sp: smallpond.Session, df: DataFrame, spread: Spread
) -> None:
    expected = query("SELECT * FROM t ORDER BY lower(s) DESC NULLS LAST, n", t=TABLE)
    for asked in (None, 3):
        ordered = df.sort("s COLLATE NOCASE DESC", "n", npartitions=asked)
        assert_same(rows_by_rules(sp, ordered.plan, spread), expected, ordered=True)
        first = rows_by_rules(sp, ordered.limit(4).plan, spread)
        assert_same(first, expected.slice(0, 4), ordered=True)


def test_passes_keep_equal_keys_together(sp: smallpond.Session, df: DataFrame) -> None:
    grouped = df.group_by("s COLLATE NOCASE AS k").agg("sum(n) AS x").map("x").plan
    parts = [rows_by_rules(sp, program, Spread(None)) for program in in_passes(grouped, 4)]
    assert_same(
        pa.concat_tables(parts), query("SELECT sum(n) AS x FROM t GROUP BY lower(s)", t=TABLE)
    )


MAKES: dict[str, Callable[[DataFrame], DataFrame]] = {
    "map": lambda df: df.map("s COLLATE NOCASE AS s, n"),
    "expression": lambda df: df.map("concat(s COLLATE NOCASE) AS s, n").filter("s != ''"),
    "query": lambda df: df.session.partial_sql("SELECT s COLLATE NOCASE AS s, n FROM {0}", df),
    "group": lambda df: df.group_by("s COLLATE NOCASE AS s", "n").agg("count(*) AS c"),
    "aggregate": lambda df: df.group_by("n").agg("min(s COLLATE NOCASE) AS s"),
    "window": lambda df: df.map("s AS t, n").window(
        partition_by="n", s="min(t COLLATE NOCASE)"
    ),
}  # fmt: skip

READS: dict[str, tuple[Callable[[DataFrame], DataFrame], str]] = {
    "group": (
        lambda df: df.group_by("s").agg("sum(n) AS x"), "SELECT s, sum(n) AS x FROM t GROUP BY s",
    ),
    "distinct": (lambda df: df.map("s").distinct(), "SELECT DISTINCT s FROM t"),
    "filter": (lambda df: df.filter("s = 'a'").map("n"), "SELECT n FROM t WHERE s = 'a'"),
    "join": (
        lambda df: df.map("s, n").join(df.map("s, n AS m").filter("m < 8"), on="s"),
        "SELECT s, n, m FROM t JOIN (SELECT s, n AS m FROM t WHERE n < 8) USING (s)",
    ),
    "rank": (
        lambda df: df.select("n", "rank() OVER (ORDER BY s) AS r"),
        "SELECT n, rank() OVER (ORDER BY s) AS r FROM t",
    ),
}  # fmt: skip


@SPREAD
@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("makes", MAKES)
def test_columns_do_not_keep_a_collation(
    sp: smallpond.Session, df: DataFrame, makes: str, reads: str, spread: Spread
) -> None:
    make, expected = READS[reads]
    table = TABLE.filter(TABLE["s"].is_valid()) if makes == "expression" else TABLE
    plan = make(MAKES[makes](df)).plan
    assert_same(rows_by_rules(sp, plan, spread), query(expected, t=table))


def test_other_columns_stay_what_they_are(df: DataFrame) -> None:
    rows = df.filter("n = 0").map(
        "s COLLATE NOCASE AS s, n, [s] AS list, s::BLOB AS bytes, NULL AS x"
    )
    assert rows.take_all() == [{"s": "b", "n": 0, "list": ["b"], "bytes": b"b", "x": None}]
    assert df.map('n AS "collate"').schema.names == ["collate"]
