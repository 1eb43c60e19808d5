"""What smallpond's operations mean: one naive SQL text over the whole data, on a plain DuckDB.

A plan is described as data, so that neither side writes the other's. Partitions do not exist here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa


@dataclass(frozen=True)
class Op:
    """An operation, what it is told, and what it reads.

    The names are "table" (its name), "filter" (a condition), "map" (a select list), "sort" (keys
    as in ORDER BY), "limit" (a number), "distinct" (columns or nothing), "aggregate" (keys and
    aggregates as select items), "union", "window" (select items), "join" (keys and the kind) and
    "repartition" (anything, for it changes no rows).
    """

    name: str
    args: tuple[Any, ...] = ()
    inputs: tuple[Op, ...] = ()


def connection(tables: Mapping[str, pa.Table] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own, whose Arrow results look as smallpond's are to look."""
    con = duckdb.connect(":memory:", config={"threads": 1, "arrow_large_buffer_size": True})
    for name, table in (tables or {}).items():
        con.register(name, table)
    return con


def run(plan: Op, tables: Mapping[str, pa.Table]) -> pa.Table:
    """The rows of a plan."""
    con = connection(tables)
    return con.sql(text(plan, con)).to_arrow_table()


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """The rows of a query."""
    return connection(tables).sql(sql).to_arrow_table()


def text(plan: Op, con: duckdb.DuckDBPyConnection) -> str:
    """The plan as one statement."""
    inner = [f"(\n{text(source, con)}\n)" for source in plan.inputs]
    match plan.name, plan.args:
        case "table", (name,):
            return f"SELECT * FROM {name}"
        case "repartition", _:
            return f"SELECT * FROM {inner[0]}"
        case "filter", (condition,):
            return f"SELECT * FROM {inner[0]} WHERE {condition}"
        case "map", (select,):
            return f"SELECT {select} FROM {inner[0]}"
        case "sort", keys:
            return f"SELECT * FROM {inner[0]} ORDER BY {', '.join(keys)}"
        case "limit", (count,):
            return f"SELECT * FROM {inner[0]} LIMIT {count}"
        case "distinct", ():
            return f"SELECT DISTINCT * FROM {inner[0]}"
        case "aggregate", (keys, aggregates):
            items = ", ".join([*keys, *aggregates])
            grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
            return f"SELECT {items} FROM {inner[0]}{grouped}"
        case "union", ():
            return " UNION ALL BY NAME ".join(f"SELECT * FROM {source}" for source in inner)
        case "window", (items,):
            return f"SELECT *, {', '.join(items)} FROM {inner[0]}"
        case "join", (keys, how):
            return _join(inner, keys, how, con)
    raise AssertionError(plan)


def _join(
    sides: Sequence[str], keys: Sequence[str], how: str, con: duckdb.DuckDBPyConnection
) -> str:
    """Keys once; a right column whose name the left has, too, gets a suffix."""
    left, right = sides
    if how in ("semi", "anti"):
        return f"SELECT * FROM {left} {how} JOIN {right} USING ({', '.join(keys)})"
    taken = set(con.sql(f"SELECT * FROM {left}").columns)
    renamed = []
    for name in con.sql(f"SELECT * FROM {right}").columns:
        new = name
        while name not in keys and new in taken:
            new += "_right"
        taken.add(new)
        renamed.append(f"{name} AS {new}")
    other = f"(SELECT {', '.join(renamed)} FROM {right})"
    return f"SELECT * FROM {left} {how} JOIN {other} USING ({', '.join(keys)})"


# ---- comparing


def bag(table: pa.Table) -> Counter[str]:
    """The rows as a multiset; NaN equals NaN, and -0.0 does not equal 0.0."""
    return Counter(rows(table))


def rows(table: pa.Table) -> list[str]:
    """Each row as a text that differs where values or their Python types differ."""
    names = table.column_names
    plain = table.rename_columns([f"c{i}" for i in range(len(names))])
    return [repr([_plain(v) for v in row.values()]) for row in plain.to_pylist()]


def _plain(value: Any) -> Any:
    """Dicts without regard to the order in which a map was filled; all else as it is."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def types(table: pa.Table) -> list[tuple[str, str]]:
    """Names and SQL types: what DuckDB takes the columns for."""
    relation = connection().from_arrow(table.slice(0, 0))
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


def assert_same(actual: pa.Table, expected: pa.Table, *, ordered: bool = False) -> None:
    """Raises unless both have the same columns and the same rows."""
    assert types(actual) == types(expected)
    got, want = rows(actual), rows(expected)
    if ordered:
        assert got == want
    else:
        more, less = Counter(got) - Counter(want), Counter(want) - Counter(got)
        assert not more, f"{len(got)} rows, {len(want)} expected; too many: {_shown(more)}"
        assert not less, f"{len(got)} rows, {len(want)} expected; missing: {_shown(less)}"


def assert_in_order(table: pa.Table, keys: Sequence[str]) -> None:
    """Raises unless the rows are in the order of keys such as ``a DESC NULLS LAST``."""
    numbered = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    ranks = query(
        f"SELECT rank FROM (SELECT row, rank() OVER (ORDER BY {', '.join(keys)}) AS rank FROM t) "
        "ORDER BY row",
        t=numbered,
    )
    assert ranks.column("rank").to_pylist() == sorted(ranks.column("rank").to_pylist())


def assert_first(actual: pa.Table, everything: pa.Table, count: int) -> None:
    """Raises unless these are so many of the rows, or all if there are fewer."""
    assert types(actual) == types(everything)
    assert actual.num_rows == min(count, everything.num_rows)
    assert not bag(actual) - bag(everything)


def _shown(counted: Counter[str]) -> str:
    return "; ".join(f"{number} times {row}" for row, number in counted.most_common(3))
