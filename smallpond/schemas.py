"""The columns that plans have."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from smallpond.depth import deep
from smallpond.engine.query import Query
from smallpond.functions import Udf
from smallpond.plan import (
    By,
    Computed,
    Filter,
    Function,
    Gather,
    Held,
    Limit,
    Memory,
    Parts,
    Plan,
    Project,
    Repartition,
    Shape,
    Sql,
    walk,
)
from smallpond.programs import udfs_of
from smallpond.rules import bottom_up, replaced
from smallpond.sql import quote, without_names

_REMEMBERED_TYPES = 1000  # of plans
_TRIED_ROWS = 1000  # of a function whose schema is asked for


class Schemas:
    """Asks DuckDB, of which it remembers the answers; rows are computed for functions alone.

    Args:
        translator: opens a connection that knows some functions.
        with_computed: puts what has been computed into a plan.
        collect: computes the rows of a plan.
    """

    def __init__(
        self,
        translator: Callable[[tuple[Udf, ...]], contextlib.AbstractContextManager[Any]],
        with_computed: Callable[[Plan], Plan],
        collect: Callable[[Plan], pa.Table],
    ) -> None:
        self._translator = translator
        self._with_computed = with_computed
        self._collect = collect
        self._types: dict[str, dict[str, str]] = {}  # of plans' columns, by the plans' keys
        self._lock = threading.Lock()

    @deep
    def schema(self, plan: Plan) -> pa.Schema:
        """Names and Arrow types of a plan's columns, of which no row is computed.

        Only a Python function that does not say its schema has to be tried on some rows.
        """
        if isinstance(plan, Memory):
            return plan.table.schema
        with self._bound(plan) as relation:
            return pa.schema([]) if relation is None else relation.limit(0).to_arrow_table().schema

    @deep
    def sql_types(self, plan: Plan) -> dict[str, str]:
        """The SQL type of each column, which Arrow's may be too coarse to tell."""
        with self._bound(plan) as relation:
            return {} if relation is None else _types_of(relation)

    def kind_of(self, plan: Plan, expression: str) -> str:
        """The SQL type of an expression over a plan's rows."""
        if any(isinstance(node, Function) and node.schema is None for node in walk(plan)):
            return "DOUBLE"  # most likely; functions are not called to find out
        return self.sql_types(Project(plan, f"({expression}) AS x", label="agg"))["x"]

    @contextlib.contextmanager
    def _bound(self, plan: Plan) -> Iterator[Any]:
        """A DuckDB relation with the columns of a plan; None if nothing is known of them."""
        short = self._shortened(plan)
        typed = bottom_up(self._with_computed(short), self._typed)
        with self._translator(udfs_of(typed)) as con:
            query = Query(con, {}, _no_stream)
            query.open_files(typed)
            try:
                relation = None if query.is_nothing(typed) else con.sql(query.text(typed))
            except duckdb_error() as error:
                raise query.explain(error) from error
            # What a function makes is known for certain only when it has made all of it.
            if relation is not None and not any(isinstance(n, Function) for n in walk(short)):
                self._remember(plan, relation)
            yield relation

    def _remember(self, plan: Plan, relation: Any) -> None:
        types = _types_of(relation)
        # In braces a query would have the names of other things.
        if len(types) < len(relation.columns) or any(
            "{" in text for item in types.items() for text in item
        ):
            return
        with self._lock:
            self._types[plan.key] = types
            while len(self._types) > _REMEMBERED_TYPES:
                del self._types[next(iter(self._types))]

    def _shortened(self, plan: Plan) -> Plan:
        """The plan over inputs of the same types, where these are known, instead of its own.

        A function whose schema has to be found out keeps its inputs, for it needs rows.
        """

        def known(node: Plan) -> Plan | None:
            if isinstance(node, Function) and node.schema is None:
                return node
            types = None if node is plan else self._types.get(node.key)
            if types is None:
                return None
            items = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in types.items())
            return Sql((), f"SELECT {items} LIMIT 0", label="read")

        return replaced(plan, known)

    def _typed(self, node: Plan) -> Plan:
        """A node with the same columns that a query can bind: nothing moves, no function runs."""
        match node:
            case Computed():
                return Parts(tuple(part for _, parts in node.partitions for part in parts))
            case Gather() | Held():
                return node.input
            case Repartition(keep_column=str() as kept):
                number = "0" if node.by is not By.COLUMN else node.columns[0]
                return Project(node.sources[0], f"*, ({number})::BIGINT AS {quote(kept)}")
            case Repartition():
                return node.sources[0]
            case Function(shape=Shape.ROW_TO_BOOL):
                return node.sources[0]
            case Function():
                schema = node.schema
                if schema is None:
                    few = tuple(Limit(source, _TRIED_ROWS) for source in node.sources)
                    schema = self._collect(node.with_inputs(few)).schema
                return Memory(schema.to_string(), schema.empty_table())
            case Project():
                return dataclasses.replace(node, select=without_names(node.select))
            case Filter():
                return dataclasses.replace(node, condition=without_names(node.condition))
            case Sql():
                return dataclasses.replace(node, query=without_names(node.query))
        return node


def _types_of(relation: Any) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _no_stream(node: Function) -> pa.RecordBatchReader:
    raise AssertionError(node.label)


def duckdb_error() -> type[Exception]:
    """DuckDB's base class of errors, imported when needed."""
    import duckdb  # noqa: PLC0415

    return duckdb.Error
