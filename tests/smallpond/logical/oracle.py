"""What DuckDB alone makes of whole tables, and rows in a form that compares."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

Rows = list[tuple[Any, ...]]


def query(text: str, **tables: pa.Table) -> Rows:
    """The rows of a query, sorted."""
    con = duckdb.connect()
    for name, rows in tables.items():
        con.register(name, rows)
    return sorted(con.execute(text).fetchall(), key=repr)


def rows(dataset: Any) -> Rows:
    """The rows of a data set or a table, sorted."""
    table = dataset if isinstance(dataset, pa.Table) else dataset.to_arrow_table()
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)
