"""Python functions over rows and batches: Arrow in, Arrow out, the user's mistakes in his words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from smallpond.columns import array_of, table_of_rows
from smallpond.errors import InjectedFault, TaskError, UserCodeError
from smallpond.functions import user_frames
from smallpond.plan import Function, Shape
from smallpond.rows import rows_of


def apply(
    node: Function, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Applies a row-wise function.

    Args:
        node: the function; its shape is one of `plan.ROWWISE`.
        batches: the input.
        schema: the input's.
    """
    if node.shape is Shape.BATCH:
        return _batches(node, batches, schema)
    if node.shape is Shape.ROW_TO_BOOL:
        return _filtered(node, batches)
    return _mapped(node, batches)


@contextmanager
def _blaming(node: Function) -> Iterator[None]:
    """What the user's function raises is told in his words."""
    try:
        yield
    except InjectedFault:
        raise  # the function has asked for it
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"{node.label}: {node.function.name} raised\n{user_frames(error)}"
        ) from error


def _filtered(node: Function, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    function = node.function.load()
    for batch in batches:
        rows = rows_of(batch)
        with _blaming(node):
            kept = [bool(function(row)) for row in rows]
        yield pa.table(batch.filter(array_of(kept).cast(pa.bool_())))


def _mapped(node: Function, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    function = node.function.load()
    for batch in batches:
        rows = rows_of(batch)
        with _blaming(node):
            made = [function(row) for row in rows]
            if node.shape is Shape.ROW_TO_ROWS:
                made = [_listed(value) for value in made]
        if node.shape is Shape.ROW_TO_ROWS:
            _check(node, made, list, "a list of dicts")
            made = [row for rows_out in made for row in rows_out]
        _check(node, made, dict, "a dict")
        if made or node.schema is not None:
            yield _table(node, made)


def _listed(value: Any) -> Any:
    """The rows that a function has made of one; generators run only now."""
    if isinstance(value, Iterable) and not isinstance(value, dict | str):
        return list(value)
    return value


def _check(node: Function, values: list[Any], kind: type, expected: str) -> None:
    wrong = [value for value in values if not isinstance(value, kind)]
    if wrong:
        raise TaskError(
            f"{node.label}: {node.function.name} must return {expected} for each row, got "
            f"{type(wrong[0]).__name__}: {wrong[0]!r:.80}"
        )


def _table(node: Function, rows: list[dict[str, Any]]) -> pa.Table:
    try:
        if node.schema is None:
            return table_of_rows(rows)
        return pa.Table.from_pylist(rows, schema=node.schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise TaskError(
            f"{node.label}: what {node.function.name} returned does not fit "
            f"{'schema=' if node.schema else 'one type per column; pass schema='}: {error}"
        ) from error


def _batches(
    node: Function, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Batches of exactly ``batch_rows`` rows but the last, whatever the input's were."""
    seen = False
    for table in regrouped(batches, node.batch_rows, schema):
        seen = True
        yield _result(node, call_once(node, table))
    if not seen and len(schema):
        # The function alone knows what it makes of columns, so it is asked with no rows.
        yield _result(node, call_once(node, schema.empty_table()))


def regrouped(
    batches: Iterable[pa.RecordBatch], rows: int, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The same rows in tables of exactly ``rows`` rows but the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        table = pa.Table.from_batches(waiting, schema)
        while table.num_rows >= rows:
            yield table.slice(0, rows)
            table = table.slice(rows)
        waiting, count = table.to_batches(), table.num_rows
    if count:
        yield pa.Table.from_batches(waiting, schema)


def _result(node: Function, value: Any) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        value = pa.table(value)
    if not isinstance(value, pa.Table):
        raise TaskError(
            f"{node.label}: {node.function.name} must return a pyarrow.Table, got "
            f"{type(value).__name__}"
        )
    if node.schema is not None:
        try:
            return value.select(node.schema.names).cast(node.schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
            raise TaskError(
                f"{node.label}: what {node.function.name} returned does not fit schema=: {error}"
            ) from error
    return value


def call_once(node: Function, *arguments: Any) -> Any:
    """Calls a function that takes more than a row."""
    function = node.function.load()
    with _blaming(node):
        return function(*arguments)


_SETTLE_BYTES = 8 << 20


def settled(
    tables: Iterable[pa.Table], operation: str, given: pa.Schema | None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """One schema for all tables: the given one, or what the first of them, up to 8 MB, share.

    Types that were guessed from values differ where values do: a column may be all null at first.

    Raises:
        TaskError: two tables have types that do not go together.
    """
    source = iter(tables)
    first: list[pa.Table] = []
    size = 0
    while given is None and size <= _SETTLE_BYTES and (table := next(source, None)) is not None:
        first.append(table)
        size += table.nbytes
    schemas = [table.schema for table in first if table.num_columns]
    schema = given or (_unified(schemas, operation) if schemas else pa.schema([]))

    def batches() -> Iterator[pa.RecordBatch]:
        for table in first:
            yield from _as(table, schema, operation)
        for table in source:
            yield from _as(table, schema, operation)

    return schema, batches()


def _unified(schemas: list[pa.Schema], operation: str) -> pa.Schema:
    if all(schema.equals(schemas[0]) for schema in schemas):
        return schemas[0]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TaskError(
            f"{operation}: the function's results have types that do not go together ({error}); "
            "pass schema="
        ) from error


def _as(table: pa.Table, schema: pa.Schema, operation: str) -> list[pa.RecordBatch]:
    if table.schema.equals(schema):
        return list(table.to_batches())
    if not table.num_columns and not table.num_rows:
        return []
    unknown = [name for name in table.column_names if name not in schema.names]
    if unknown:
        raise TaskError(
            f"{operation}: a later batch has columns {unknown} that the first ones had not; "
            "pass schema="
        )
    try:
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TaskError(
            f"{operation}: a later batch has other types than the first ones ({error}); pass "
            "schema="
        ) from error
    return list(pa.Table.from_arrays(columns, schema=schema).to_batches())
