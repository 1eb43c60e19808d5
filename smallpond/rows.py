"""Tables as Python's values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def rows_of(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """A dict per row; sums of integers, which SQL makes 128 bits wide, are ints."""
    names = table.schema.names
    if not names:
        return [{} for _ in range(table.num_rows)]
    columns = [_values(column) for column in table.columns]
    # Looking whether lengths agree would take half as long again.
    return [dict(zip(names, row)) for row in zip(*columns)]  # noqa: B905


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if _is_wide(column.type):
        return [None if value is None else int(value) for value in values]
    return values


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
