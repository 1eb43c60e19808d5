"""Columns are found as SQL finds them, however their names are written, and none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
def sp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[smallpond.Session]:
    root = str(tmp_path_factory.mktemp("root"))
    with smallpond.init(data_root=root, cpus=2, progress=False) as session:
        yield session


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
