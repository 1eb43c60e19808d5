"""Rows that chance or functions make are made once, however often a plan reads them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pyarrow as pa
import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.engine.passes import in_passes, one_by_one
from smallpond.plan import Held, Plan, walk
from smallpond.rules import Spread, distribute, hold_shared
from tests.smallpond.planned import SPREAD, rows_by_rules, rows_of


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(pa.table({"a": list(range(1000)), "b": list(range(1000))}))


@smallpond.udf(params=[smallpond.UDFType.BIGINT], return_type=smallpond.UDFType.DOUBLE)
def drawn(_: int) -> float:
    return random.random()


def test_functions_that_are_read_twice_are_held(df: DataFrame) -> None:
    def held(plan: Plan) -> list[str]:
        nodes = walk(hold_shared(plan))
        return [type(node.input).__name__ for node in nodes if isinstance(node, Held)]

    once = df.map(lambda row: row)
    assert held(once.map("a").plan) == held(df.join(df, on="a").plan) == []
    assert held(once.join(once.filter("a > 1"), on="a").plan) == ["Function"]
    several = once.map("a + 1 AS a")
    assert held(several.join(several, on="a").plan) == ["Project"]
    first = df.distinct("b")
    assert held(first.join(first, on="a").plan) == ["Distinct"]
    all_of_it = df.distinct()
    assert held(all_of_it.join(all_of_it, on="a").plan) == []


CHANCE: dict[str, Callable[[DataFrame], DataFrame]] = {
    "map": lambda df: df.map("a, uuid() AS x"),
    "function": lambda df: df.map("a, drawn(a) AS x", udfs=[drawn]),
    "query": lambda df: df.session.partial_sql("SELECT a, uuid() AS x FROM {0}", df),
    "sample": lambda df: df.session.partial_sql(
        "SELECT a, b AS x FROM {0} USING SAMPLE 50 ROWS", df
    ),
    "table sample": lambda df: df.session.partial_sql(
        "SELECT a, b AS x FROM (SELECT * FROM {0}) TABLESAMPLE 50%", df
    ),
    "filter": lambda df: df.filter("random() < 0.5").map("a, b AS x"),
    "filter by a function": lambda df: df.filter("drawn(a) < 0.5", udfs=[drawn]).map("a, b AS x"),
    "first": lambda df: df.sort("random()").limit(500).map("a, b AS x"),
    "group": lambda df: df.group_by("a").agg("max(random()) AS x"),
    "key": lambda df: df.group_by("a", "uuid() AS x").agg("count(*) AS n").map("a, x"),
    "window": lambda df: df.window(partition_by="a", x="max(random())").map("a, x"),
}


@SPREAD
@pytest.mark.parametrize("case", CHANCE)
def test_rows_of_chance_are_the_same_wherever_they_are_read(
    sp: smallpond.Session, df: DataFrame, case: str, spread: Spread
) -> None:
    rows = CHANCE[case](df.repartition(2, by_rows=True))
    for again in (rows, rows.repartition(2, hash_by="a")):  # which is work for other tasks
        lone = rows.join(again, on=["a", "x"], how="anti", broadcast=False)
        assert rows_by_rules(sp, lone.plan, spread).num_rows == 0


ONCE: dict[str, Callable[[DataFrame], DataFrame]] = {
    "Function": lambda df: df.map(lambda row: row),
    "Project": lambda df: df.map("a, random() AS r"),
    "Project of a function": lambda df: df.map("drawn(a) AS x", udfs=[drawn]),
    "Filter": lambda df: df.filter("drawn(a) < 0.5", udfs=[drawn]),
}


@pytest.mark.parametrize("case", ONCE)
def test_what_passes_would_not_find_again_is_put_aside(df: DataFrame, case: str) -> None:
    aside: list[Plan] = []

    def put_aside(plan: Plan) -> Plan:
        aside.append(plan)
        return df.plan

    one_by_one(ONCE[case](df).distinct().plan, put_aside)
    assert [type(plan).__name__ for plan in aside] == [case.split(maxsplit=1)[0]]
    one_by_one(df.map("a + 1 AS a").filter("a > 2").distinct().plan, put_aside)
    assert len(aside) == 1


def test_groups_of_chance_are_whole(sp: smallpond.Session, df: DataFrame) -> None:
    parts = df.repartition(4, by_rows=True)
    groups = parts.group_by("(random() * 5)::INT AS k").agg("count(*) AS c", "median(a) AS m")
    for plan in (distribute(groups.plan, Spread(3)), *in_passes(groups.plan, 4)):
        rows = rows_of(sp, plan)
        assert len({*rows["k"].to_pylist()}) == rows.num_rows
        assert sum(rows["c"].to_pylist()) == 1000
