"""Tables as Python's values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """A dict per row; sums of integers, which SQL makes 128 bits wide, are ints."""
    wide = [field.name for field in table.schema if _is_wide(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in wide:
            if row[name] is not None:
                row[name] = int(row[name])
    return rows


def with_plain_integers(table: pa.Table) -> pa.Table:
    """The table with 128 bit integers as int64, or as doubles where they do not fit."""
    for i, field in enumerate(table.schema):
        if _is_wide(field.type):
            try:
                column = table.column(i).cast(pa.int64())
            except pa.ArrowInvalid:
                column = table.column(i).cast(pa.float64())
            table = table.set_column(i, field.name, column)
    return table


def _is_wide(kind: pa.DataType) -> bool:
    """Whether a type is what DuckDB gives for HUGEINT."""
    return bool(kind == pa.decimal128(38, 0))
