"""Columns are found as SQL finds them, however their names are written, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.errors import PlanError
from smallpond.names import column_of, folded, twice

LEFT = pa.table({"id": [1, 2, 3], "Name": ["x", "y", "z"], "v": [5, 6, 7]})
RIGHT = pa.table({"ID": [1, 2, 9], "name": ["p", "q", "r"], "W": [0, 1, 2]})


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    return sp.from_arrow(LEFT)


# The last one is the Kelvin sign, which Python takes for a capital of k.
LETTERS = st.text('aAäÄßẞiIİıkK"\u212a', min_size=1, max_size=2)


@given(LETTERS, LETTERS, st.sampled_from([str.upper, str.lower, str.swapcase, None]))
def test_names_are_compared_as_duckdb_does(
    a: str, b: str, change: Callable[[str], str] | None
) -> None:
    names = [a, change(a) if change else b]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({quoted[0]} INT)")
        try:
            connection.execute(f"SELECT {quoted[1]} FROM t")
            found = True
        except duckdb.BinderException:
            found = False
    assert (folded(names[0]) == folded(names[1])) == found
    assert (column_of(names[1], names[:1]) == names[0]) == found
    assert (twice(names) == names[1]) == found


def test_the_spelling_that_is_asked_for_comes_first() -> None:
    assert column_of("B", ["a", "b", "B"]) == "B"
    assert column_of("B", ["a", "b", "c"]) == "b"
    assert column_of("d", ["a", "b"]) is None


FOUND: dict[str, tuple[Callable[[DataFrame], DataFrame], list[str]]] = {
    "with_column": (lambda df: df.with_column("NAME", "upper(name)"), ["id", "Name", "v"]),
    "another letter": (
        lambda df: df.with_column("ä", "1").with_column("Ä", "2"),
        ["id", "Name", "v", "ä", "Ä"],
    ),
    "drop": (lambda df: df.drop("name", "V"), ["id"]),
    "rename": (lambda df: df.rename({"name": "text"}), ["id", "text", "v"]),
    "rename in turn": (lambda df: df.rename({"ID": "v", "V": "Id"}), ["v", "Name", "Id"]),
    "rename in place": (lambda df: df.rename({"name": "NAME"}), ["id", "NAME", "v"]),
}


@pytest.mark.parametrize("case", FOUND)
def test_columns_that_are_written_otherwise(df: DataFrame, case: str) -> None:
    operation, names = FOUND[case]
    made = operation(df)
    assert made.columns == names
    assert made.to_arrow().column_names == names
    if case == "with_column":
        assert made.to_arrow()["Name"].to_pylist() == ["X", "Y", "Z"]
    if case == "rename in turn":
        assert made.to_arrow()["v"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize("npartitions", [None, 3])
@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ("inner", [(1, "x", 5, "p", 0), (2, "y", 6, "q", 1)]),
        ("left", [(1, "x", 5, "p", 0), (2, "y", 6, "q", 1), (3, "z", 7, None, None)]),
        ("right", [(1, "x", 5, "p", 0), (2, "y", 6, "q", 1), (9, None, None, "r", 2)]),
        (
            "full",
            [
                *[(1, "x", 5, "p", 0), (2, "y", 6, "q", 1)],
                *[(3, "z", 7, None, None), (9, None, None, "r", 2)],
            ],
        ),
    ],
)
def test_keys_of_a_join_that_are_written_otherwise(
    sp: smallpond.Session, df: DataFrame, how: Any, rows: list[Any], npartitions: int | None
) -> None:
    made = df.join(sp.from_arrow(RIGHT), on="Id", how=how, npartitions=npartitions)
    assert made.columns == ["id", "Name", "v", "name_right", "W"]
    assert [tuple(row.values()) for row in made.sort("id").take_all()] == rows


LOST: dict[str, tuple[Callable[[DataFrame], Any], str]] = {
    "rename": (lambda df: df.rename({"id": "V"}), "rename: two columns would be called 'v'"),
    "agg": (lambda df: df.agg("sum(v) as s", S="max(v)"), "agg: two columns would be called 'S'"),
    "a key": (
        lambda df: df.group_by("id").agg("max(v) as ID"),
        "agg: two columns would be called 'ID'",
    ),
    "a window": (
        lambda df: df.window(order_by="id", NAME="row_number()"),
        "window: two columns would be called 'NAME'",
    ),
    "a join": (
        lambda df: df.join(df.select("id", "v as V"), on="id", suffix=""),
        "both sides have a column 'V', and suffix is empty",
    ),
    "a table": (
        lambda df: df.session.from_arrow(pa.table([[1], [2]], names=["a", "a"])),
        "from_arrow: 2 columns are called 'a', rename them",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_no_column_gets_lost_behind_another(df: DataFrame, case: str) -> None:
    operation, message = LOST[case]
    with pytest.raises(PlanError, match=message):
        operation(df)


def test_types_are_remembered_as_they_are(sp: smallpond.Session) -> None:
    """Whatever the types and names of the columns that a step is made of are."""
    expressions = [
        *[
            "1::TINYINT",
            "1::HUGEINT",
            "1.5::DECIMAL(38,10)",
            "'a'::ENUM('a', 'b c', 'd''e', '{0}')",
        ],
        *["'101'::BIT", "uuid()", "TIMETZ '10:00:00+01'", "TIMESTAMP_S '2020-01-01'", "NULL", "[]"],
        *["TIMESTAMPTZ '2020-01-01'", "INTERVAL 3 DAY", "[NULL]", "MAP{'a': 1}", "row(1, 'a')"],
        *["union_value(n := 1)", "[1, 2]::INT[2]", "'{}'::JSON", "sum(1)", "[1::HUGEINT]"],
        *["{'a b': 1, 'c\"d': 'x', 'E': [1]}"],
    ]
    for number, expression in enumerate(expressions):
        query = f'SELECT {expression} AS "a ""c", 1 AS y'
        forgetful = sp.partial_sql(query).filter("y = 1")
        expected = forgetful.schema
        asked = sp.partial_sql(f"{query}, {number} AS n")
        assert asked.schema.field(0).equals(expected.field(0))
        assert asked.drop("n").filter("y = 1").schema.equals(expected), expression
        assert asked.drop("n").filter("y = 1").to_arrow().schema.equals(expected), expression
    braces = sp.from_items([{"a{b}": 1, "c": 2}]).map("*")
    assert braces.columns == ["a{b}", "c"]
    assert braces.map("*").columns == ["a{b}", "c"]


def test_a_function_is_asked_for_its_schema_with_rows(sp: smallpond.Session) -> None:
    known = sp.from_items([1, 2]).map("item AS a")
    assert known.columns == ["a"]
    called = known.map(lambda row: {"m": row["a"] * 1.5})
    assert called.columns == ["m"]
    assert called.map("m + 1 AS n").columns == ["n"]


def test_what_a_function_made_of_the_first_rows_is_not_remembered(sp: smallpond.Session) -> None:
    df = sp.from_items(list(range(2000))).map(lambda row: {"v": 1 if row["item"] < 1000 else 1.5})
    doubled = df.map("v * 2 as v")
    assert str(df.schema.field("v").type) == "int64"
    assert str(doubled.schema.field("v").type) == "int64"
    df.compute()
    assert str(doubled.schema.field("v").type) == "double"
    assert doubled.to_arrow().schema == doubled.schema
