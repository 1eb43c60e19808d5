"""Which partition each row belongs to: key columns made by the query, numbers made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smallpond.buffers import fixed_values, is_null
from smallpond.columns import int64_array
from smallpond.hashing import canonical_sql, hash_columns, partition_ids
from smallpond.plan import By, Plan
from smallpond.split import range_ids
from smallpond.sql import quote
from smallpond.task import ToSplit

if TYPE_CHECKING:
    from smallpond.engine.query import Query
    from smallpond.engine.run import Run

# Types that `range_ids` knows how to order; an ENUM is ordered by its place in its list.
_SORTED = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"),
    *("UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN", "VARCHAR", "BLOB", "UUID"),
    *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
    "TIMESTAMP WITH TIME ZONE",
}


def order_sql(expression: str, kind: str) -> str | None:
    """An expression that can be cut by and is in the same order, or None if there is no such."""
    if kind.endswith("]"):  # a list of what the text begins with
        return None
    if kind.partition("(")[0] in _SORTED:
        return expression
    if kind.startswith("ENUM("):
        return f"enum_code({expression})"
    return None


class Keys:
    """The partition of each row of a batch; called with batches that have the key columns."""

    def __init__(self, running: Run, sink: ToSplit) -> None:
        self._running = running
        self._sink = sink
        self._random = np.random.default_rng([sink.seed, running.attempt.task.seed])
        self.expressions = [key.expression for key in sink.order] or list(sink.columns)
        self.hidden: tuple[str, ...] = ()
        self._boundaries: pa.Table | None = None

    def select(self, query: Query, plan: Plan) -> str:
        """The select list: all columns, then the keys in a form that compares simply."""
        if not self.expressions:
            self.expressions = [quote(name) for name in query.columns(plan)]
        types = query.types(plan, self.expressions)
        pairs = zip(self.expressions, types, strict=True)
        match self._sink.by:
            case By.HASH:
                keys = [canonical_sql(f"({e})", t) for e, t in pairs]
            case By.RANGE:
                keys = self._ordered(types)
            case _:
                keys = [f"CAST(({self.expressions[0]}) AS BIGINT)"]
        self.hidden = tuple(f"__smallpond_key_{i}" for i in range(len(keys)))
        named = [f"{key} AS {quote(name)}" for key, name in zip(keys, self.hidden, strict=True)]
        kept = self._sink.keep_column
        if kept is not None and self._sink.by is By.COLUMN and kept != self.expressions[0]:
            named.insert(0, f"({self.expressions[0]}) AS {quote(kept)}")
        return ", ".join(["*", *named])

    def _ordered(self, types: list[str]) -> list[str]:
        """The leading keys that can be cut by; the boundaries get the same form."""
        keys = []
        for expression, kind in zip(self.expressions, types, strict=True):
            key = order_sql(f"({expression})", kind)
            if key is None:
                break
            keys.append(key)
        self._boundaries = self._cuts(types[: len(keys)])
        return keys

    def _cuts(self, types: list[str]) -> pa.Table:
        """Rows that cut the sorted sample into equal pieces."""
        assert self._sink.boundaries is not None  # noqa: S101 (the planner gives them)
        query = self._running.query(self._sink.boundaries)
        if query.is_nothing(self._sink.boundaries):
            return pa.table({})
        keys = [order_sql(f"k{i}", kind) or "NULL" for i, kind in enumerate(types)] or ["NULL"]
        named = ", ".join(f"{key} AS c{i}" for i, key in enumerate(keys))
        sample = self._running.lossless_table(query, query.text(self._sink.boundaries, named))
        n = self._sink.npartitions
        places = [sample.num_rows * i // n for i in range(1, n)] if sample.num_rows else []
        return sample.take(int64_array(places))

    def __call__(self, batch: pa.RecordBatch) -> NDArray[Any]:
        columns = [batch.column(name) for name in self.hidden]
        sink = self._sink
        ids: NDArray[Any]
        match sink.by:
            case By.HASH:
                ids = partition_ids(hash_columns(columns), sink.npartitions)
            case By.RANDOM:
                ids = self._random.integers(sink.npartitions, size=batch.num_rows)
            case By.RANGE:
                ids = self._ranges(columns, batch.num_rows)
            case _:
                ids = fixed_values(columns[0], np.int64)
                if columns[0].null_count:
                    ids = np.where(is_null(columns[0]), np.nan, ids)
        return ids

    def _ranges(self, columns: list[pa.Array], num_rows: int) -> NDArray[np.uint32]:
        if not columns or self._boundaries is None or not self._boundaries.num_rows:
            return np.zeros(num_rows, np.uint32)
        order = self._sink.order[: len(columns)]
        return range_ids(
            self._boundaries,
            columns,
            [key.descending for key in order],
            [key.nulls_first for key in order],
        )
