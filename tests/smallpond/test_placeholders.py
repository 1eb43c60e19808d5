"""The number of a partition in SQL text, whatever becomes of the partitions afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smallpond import DataFrame, Session
from smallpond.errors import PlanError
from smallpond.sql import fill, fill_some, refers

NUMBER = "{__data_partition__}"


@pytest.fixture
def thirds(sp: Session) -> DataFrame:
    """Rows whose k is the number of their partition."""
    rows = [{"k": i % 3, "v": i} for i in range(30)]
    return sp.from_items(rows).repartition(3, by="k")


@pytest.mark.parametrize(
    "use",
    [
        lambda _, df: df.map(f"k, {NUMBER} AS p"),
        lambda _, df: df.filter(f"k = {NUMBER}").map(f"k, {NUMBER} AS p"),
        lambda _, df: df.flat_map(f"k, unnest([{NUMBER}]) AS p"),
        lambda sp, df: sp.partial_sql(f"SELECT k, {NUMBER} AS p FROM {{0}}", df),
        lambda _, df: df.map(f"k, {NUMBER} AS p").sort("k"),
        lambda _, df: df.map(f"k, {NUMBER} AS p").repartition(2, hash_by="p"),
        lambda _, df: df.map(f"k, {NUMBER} AS p").repartition(2, by_rows=True),
        lambda sp, df: sp.partial_sql(
            "FROM {0}", sp.partial_sql(f"SELECT k, {NUMBER} AS p FROM {{0}}", df).map(dict)
        ),
    ],
    ids=["map", "filter", "flat_map", "partial_sql", "sort", "hash", "rows", "function"],
)
def test_every_row_gets_the_number_of_its_partition(
    sp: Session, thirds: DataFrame, use: Callable[[Session, DataFrame], DataFrame]
) -> None:
    found = use(sp, thirds).take_all()
    assert len(found) == 30
    assert all(row["k"] == row["p"] for row in found)
    assert use(sp, thirds).count() == 30
    grouped = use(sp, thirds).group_by("p").agg("count(*) AS c").take_all()
    assert sorted((row["p"], row["c"]) for row in grouped) == [(0, 10), (1, 10), (2, 10)]


@pytest.mark.parametrize("key", [{"hash_by": "k"}, {"by": "v % 4"}])
def test_the_number_as_a_column(sp: Session, key: dict[str, Any]) -> None:
    df = sp.from_items([{"k": i % 7, "v": i} for i in range(30)])
    kept = df.repartition(4, **key, drop_partition_column=False)
    found = sp.partial_sql(f"SELECT *, {NUMBER} AS p FROM {{0}}", kept).take_all()
    assert sorted(row["v"] for row in found) == list(range(30))
    assert all(row["__data_partition__"] == row["p"] for row in found)
    # Another repartition has numbers of its own.
    again = kept.repartition(2, hash_by="v", drop_partition_column=False)
    found = sp.partial_sql(f"SELECT *, {NUMBER} AS p FROM {{0}}", again).take_all()
    assert sorted(row["v"] for row in found) == list(range(30))
    assert all(row["__data_partition__"] == row["p"] < 2 for row in found)


def test_braces(sp: Session) -> None:
    df = sp.from_items([{"a": 1}])
    for text in ("{'x': a} AS s", "{{'x': a}} AS s"):
        assert df.map(text).take_all() == [{"s": {"x": 1}}]


@pytest.mark.parametrize(
    ("text", "some", "all_of_it"),
    [
        ("{0} {p}", "{0} 7", "t 7"),
        ("{{'a': {p}}} {0}", "{{'a': 7}} {0}", "{'a': 7} t"),
        ("{'a': {p}} {0}", "{'a': 7} {0}", "{'a': 7} t"),
        ("{{p}} {0}", "{{p}} {0}", "{p} t"),
    ],
)
def test_filling_in_two_steps(text: str, some: str, all_of_it: str) -> None:
    assert fill_some(text, {"p": 7}) == some
    assert fill(some, {"0": "t"}) == all_of_it


def test_placeholders_are_no_columns() -> None:
    uses = refers("a, {__data_partition__} AS p, {'x': b} AS s")
    assert uses.columns == {"a", "b"}


def test_errors_show_the_text_as_it_was_written() -> None:
    with pytest.raises(PlanError) as caught:
        refers("{__data_partition__}, ) AS x")
    _, line, mark = str(caught.value).splitlines()
    assert line == "LINE 1: {__data_partition__}, ) AS x"
    assert line[mark.index("^")] == ")"
