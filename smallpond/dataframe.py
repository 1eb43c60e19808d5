"""The API: sessions that read data, and lazy data frames over it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from smallpond.config import parse_bytes, whole_number
from smallpond.errors import PlanError
from smallpond.explain import tree
from smallpond.functions import FunctionRef
from smallpond.keywords import Keywords
from smallpond.names import column_of, folded, twice
from smallpond.plan import (
    BATCH_ROWS,
    PARTITION_COLUMN,
    Aggregate,
    By,
    Distinct,
    Filter,
    Format,
    Function,
    Gather,
    Limit,
    Plan,
    Project,
    Repartition,
    Saved,
    Shape,
    Sort,
    SortKey,
    Sql,
    Union,
    Window,
)
from smallpond.rows import rows_of, with_plain_integers
from smallpond.session import Session as Session  # noqa: PLC0414 (the original has it here)
from smallpond.sql import literal, quote, refers, sort_keys, split_alias
from smallpond.storage import AnyPath, path_of

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    from torch.utils.data import IterableDataset

_calls = itertools.count()
Mode = Literal["error", "overwrite", "append"]
HowName = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]


class DataFrame:
    """Rows to be computed: a plan, and the session that computes it.

    Methods that return a DataFrame compute nothing. Methods that return rows, counts or nothing
    run the plan. A DataFrame has partitions; operations that the documentation calls partial work
    on each of them by itself.

    SQL's COLLATE holds in the operation in which it is written, as in ``sort("s COLLATE NOCASE")``.
    Columns do not keep it: what reads them compares bytes.
    Rows of chance, such as ``filter("random() < 0.1")``, are drawn once for all that read them in a
    run, and ``now()`` is when the run began.
    """

    def __init__(self, session: Session, plan: Plan, recompute: bool = False) -> None:
        self.session = session
        self.plan = plan
        self.need_recompute = recompute

    # ---- computing

    @property
    def optimized_plan(self) -> Plan:
        """The plan after the rules."""
        return self.session.job.optimised(self.plan)

    def is_computed(self) -> bool:
        """Whether the rows have been computed and kept, by `compute` or an action."""
        return self.session.job.is_computed(self.plan)

    def compute(self) -> None:
        """Computes the rows and keeps them; what is derived from this DataFrame reuses them."""
        self._refresh()
        self.session.job.compute(self.plan)

    def recompute(self) -> DataFrame:
        """Has the next use compute the rows again, functions and all; returns the DataFrame."""
        self.need_recompute = True
        return self

    def cache(self) -> DataFrame:
        """Has the first use keep the rows for later ones; returns the DataFrame."""
        self.session.job.cache(self.plan)
        return self

    def _refresh(self) -> None:
        if self.need_recompute:
            self.session.job.forget(self.plan)
            self.need_recompute = False

    def _collect(self, plan: Plan) -> pa.Table:
        self._refresh()
        return self.session.job.collect(plan)

    def _with(self, plan: Plan) -> DataFrame:
        return DataFrame(self.session, plan, self.need_recompute)

    # ---- partitions

    def repartition(
        self,
        npartitions: int,
        hash_by: str | list[str] | None = None,
        by: str | None = None,
        by_rows: bool = False,
        **kwargs: Any,
    ) -> DataFrame:
        """The same rows in other partitions.

        Args:
            npartitions: how many.
            hash_by: columns; rows that are equal there come into the same partition.
            by: a column or expression that gives the number of the partition, from 0.
            by_rows: equal numbers of rows. Without any of these: equal numbers of files, where
                the data still lies in files, else of rows.
            **kwargs: what the original's partition nodes take, among them ``dimension``,
                ``nested``, ``random_shuffle`` and ``drop_partition_column=False``, which keeps
                the number of the partition as the column ``__data_partition__``.

        Raises:
            PlanError: a value makes no sense.
        """
        more = Keywords("repartition", kwargs)
        whole_number("repartition: npartitions", npartitions, 1)
        chosen = [
            name
            for name, value in (("hash_by", hash_by), ("by", by), ("by_rows", by_rows))
            if value
        ]
        if len(chosen) > 1:
            raise PlanError(f"repartition: only one of hash_by, by and by_rows, got {chosen}")
        kind = {"hash_by": By.HASH, "by": By.COLUMN, "by_rows": By.ROWS}.get(
            chosen[0] if chosen else "", By.FILES
        )
        columns = tuple(_names(hash_by, quoted=True)) if hash_by else (by,) if by else ()
        if by:
            _parsed("repartition", by, "select")
        keep = more.take("drop_partition_column", default=True) is False
        shuffle = bool(more.take("random_shuffle", default=False))
        node = Repartition(
            (self.plan,),
            npartitions,
            By.RANDOM if shuffle and kind is By.HASH else kind,
            columns,
            dimension=more.take("dimension", default=None) or PARTITION_COLUMN,
            nested=bool(more.take("nested", default=False)),
            keep_column=PARTITION_COLUMN if keep and kind in (By.HASH, By.COLUMN) else None,
            shuffle_files=shuffle,
            demand=more.demand(),
        )
        more.done()
        return self._with(node)

    def random_shuffle(self, seed: int = 0, **kwargs: Any) -> DataFrame:
        """The same rows in random order; the same order for the same seed."""
        more = Keywords("random_shuffle", kwargs)
        demand = more.demand()
        more.done()
        moved = Repartition((self.plan,), 0, By.RANDOM, seed=seed, demand=demand)
        query = (
            "SELECT * EXCLUDE (__smallpond_row) FROM "
            "(SELECT *, row_number() OVER () AS __smallpond_row FROM {0}) "
            f"ORDER BY hash(__smallpond_row, {seed}), __smallpond_row"
        )
        return self._with(
            Sql((moved,), query, label="random_shuffle", demand=demand, from_rows=True)
        )

    def partial_sort(self, by: str | list[str], **kwargs: Any) -> DataFrame:
        """Each partition in order; ``by`` as in ORDER BY, such as ``["a", "b desc"]``."""
        more = Keywords("partial_sort", kwargs)
        keys = _sort_keys("partial_sort", by, None)
        node = Sort(self.plan, keys, partial=True, demand=more.demand())
        more.done()
        return self._with(node)

    # ---- rows

    def filter(
        self, sql_or_func: str | Callable[[dict[str, Any]], bool], **kwargs: Any
    ) -> DataFrame:
        """The rows for which an SQL condition, or a function of the row as a dict, is true."""
        more = Keywords("filter", kwargs)
        if isinstance(sql_or_func, str):
            _parsed("filter", sql_or_func, "where")
            node: Plan = Filter(self.plan, sql_or_func, more.udfs(), more.demand())
        elif callable(sql_or_func):
            node = self._function(sql_or_func, Shape.ROW_TO_BOOL, None, "filter", more)
        else:
            raise PlanError(f"filter: a condition or a function expected, got {sql_or_func!r}")
        more.done()
        return self._with(node)

    def map(
        self,
        sql_or_func: str | Callable[[dict[str, Any]], dict[str, Any]],
        *,
        schema: pa.Schema | None = None,
        **kwargs: Any,
    ) -> DataFrame:
        """Other columns for each row.

        Args:
            sql_or_func: a select list such as ``"a, b * 2 as c"``, or a function from the row as
                a dict to another dict.
            schema: of the function's rows, where it cannot be inferred from their values.
            **kwargs: ``udfs``, ``cpu_limit``, ``memory_limit`` and the like.
        """
        return self._mapped("map", sql_or_func, Shape.ROW, schema, kwargs)

    def flat_map(
        self,
        sql_or_func: str | Callable[[dict[str, Any]], list[dict[str, Any]]],
        *,
        schema: pa.Schema | None = None,
        **kwargs: Any,
    ) -> DataFrame:
        """Any number of rows for each row: ``"unnest([a, b]) as c"``, or a function to a list."""
        return self._mapped("flat_map", sql_or_func, Shape.ROW_TO_ROWS, schema, kwargs)

    def _mapped(
        self, name: str, sql_or_func: Any, shape: Shape, schema: pa.Schema | None, kwargs: Any
    ) -> DataFrame:
        more = Keywords(name, kwargs)
        if isinstance(sql_or_func, str):
            _parsed(name, sql_or_func, "select")
            node: Plan = Project(self.plan, sql_or_func, more.udfs(), name, more.demand())
        elif callable(sql_or_func):
            node = self._function(sql_or_func, shape, schema, name, more)
        else:
            raise PlanError(f"{name}: a select list or a function expected, got {sql_or_func!r}")
        more.done()
        return self._with(node)

    def map_batches(
        self,
        func: Callable[[pa.Table], pa.Table],
        *,
        batch_size: int = BATCH_ROWS,
        schema: pa.Schema | None = None,
        **kwargs: Any,
    ) -> DataFrame:
        """A table for each batch of at most ``batch_size`` rows."""
        more = Keywords("map_batches", kwargs)
        whole_number("map_batches: batch_size", batch_size, 1)
        if not callable(func):
            raise PlanError(f"map_batches: a function expected, got {func!r}")
        node = self._function(func, Shape.BATCH, schema, "map_batches", more, batch_size)
        more.done()
        return self._with(node)

    def _function(
        self,
        func: Callable[..., Any],
        shape: Shape,
        schema: pa.Schema | None,
        name: str,
        more: Keywords,
        batch_rows: int | None = None,
    ) -> Function:
        node = Function(
            (self.plan,),
            FunctionRef.of(func, name),
            shape,
            schema,
            batch_rows or more.take("streaming_batch_size", default=None) or BATCH_ROWS,
            name,
            demand=more.demand(),
        )
        self.session.job.warm()
        return node

    def limit(self, limit: int) -> DataFrame:
        """The first rows, over all partitions."""
        return self._with(Limit(self.plan, _not_negative("limit", limit)))

    def head(self, n: int = 5) -> DataFrame:
        """The first ``n`` rows."""
        return self.limit(n)

    # ---- columns

    def select(self, *columns: str, **named: str) -> DataFrame:
        """These columns or expressions: ``select("a", "b + 1 as c", d="upper(name)")``."""
        if not columns and not named:
            raise PlanError("select: at least one column expected")
        items = [
            *columns,
            *(f"{expression} AS {quote(name)}" for name, expression in named.items()),
        ]
        return self._projected("select", ", ".join(items))

    def with_column(self, name: str, expression: str) -> DataFrame:
        """A further column, or another in the place of one of that name."""
        there = column_of(name, self.columns)
        if there is None:
            return self._projected("with_column", f"*, {expression} AS {quote(name)}")
        return self._projected("with_column", f"* REPLACE ({expression} AS {quote(there)})")

    def drop(self, *columns: str) -> DataFrame:
        """All columns but these."""
        self._known("drop", columns)
        return self._projected("drop", f"* EXCLUDE ({', '.join(map(quote, columns))})")

    def rename(self, columns: Mapping[str, str]) -> DataFrame:
        """Columns under other names, ``{old: new}``."""
        self._known("rename", columns)
        new = {folded(old): name for old, name in columns.items()}
        _all_differ("rename", [new.get(folded(name), name) for name in self.columns])
        items = ", ".join(f"{quote(old)} AS {quote(new)}" for old, new in columns.items())
        return self._projected("rename", f"* RENAME ({items})")

    def _known(self, operation: str, names: Sequence[str] | Mapping[str, str]) -> None:
        if not names:
            raise PlanError(f"{operation}: at least one column expected")
        unknown = [name for name in names if column_of(name, self.columns) is None]
        if unknown:
            raise PlanError(f"{operation}: no column {unknown[0]!r}; there are {self.columns}")

    def _projected(self, name: str, select: str) -> DataFrame:
        """Windows and aggregates see all rows, whatever the partitions are."""
        uses = _parsed(name, select, "select")
        whole = uses.has_window or uses.has_aggregate or uses.has_distinct
        source = Gather(self.plan) if whole else self.plan
        return self._with(Project(source, select, label=name))

    def window(
        self,
        *,
        partition_by: str | Sequence[str] = (),
        order_by: str | Sequence[str] = (),
        frame: str = "",
        npartitions: int | None = None,
        **columns: str,
    ) -> DataFrame:
        """Further columns from window functions over the whole data.

        Example:
            ``df.window(partition_by="user", order_by="time", nth="row_number()")``
        """
        if not columns:
            raise PlanError("window: at least one column such as nth='row_number()' expected")
        _all_differ("window", [*self.columns, *columns])
        keys = tuple(_names(partition_by, quoted=True))
        over = f"PARTITION BY {', '.join(keys)}" if keys else ""
        if order_by:
            order = ", ".join(key.sql() for key in _sort_keys("window", order_by, None))
            over += f" ORDER BY {order}"
        items = [f"{e} OVER ({over} {frame}) AS {quote(n)}" for n, e in columns.items()]
        select = ",\n".join(items)
        _parsed("window", select, "select")
        return self._with(Window(self.plan, select, keys, npartitions))

    # ---- all rows together

    def group_by(self, *keys: str, npartitions: int | None = None) -> GroupBy:
        """Groups of rows that are equal in columns or expressions; call ``agg`` on the result."""
        if not keys:
            raise PlanError("group_by: at least one key expected (use agg for all rows together)")
        return GroupBy(self, tuple(_item("group_by", key) for key in keys), npartitions)

    def agg(self, *expressions: str, **named: str) -> DataFrame:
        """One row from all: ``agg("count(*) as n", total="sum(x)")``."""
        return GroupBy(self, (), None).agg(*expressions, **named)

    def distinct(self, *columns: str, npartitions: int | None = None) -> DataFrame:
        """Each row once; with columns, one row of each combination of their values."""
        return self._with(Distinct(self.plan, columns, npartitions))

    def sort(
        self,
        *by: str,
        descending: bool | Sequence[bool] | None = None,
        npartitions: int | None = None,
    ) -> DataFrame:
        """All rows in order: ``sort("a", "b desc")``; NULL comes last unless "nulls first"."""
        if not by:
            raise PlanError("sort: at least one key expected")
        return self._with(
            Sort(self.plan, _sort_keys("sort", list(by), descending), npartitions=npartitions)
        )

    def union(self, *others: DataFrame) -> DataFrame:
        """The rows of several DataFrames, columns matched by name."""
        return self._with(Union((self.plan, *(other.plan for other in others))))

    def join(
        self,
        other: DataFrame,
        on: str | Sequence[str] | None = None,
        how: HowName = "inner",
        *,
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
        suffix: str = "_right",
        broadcast: bool | None = None,
        npartitions: int | None = None,
    ) -> DataFrame:
        """Rows of both whose keys are equal; NULL equals nothing, as in SQL.

        Args:
            other: the right side.
            on: columns that both have; they appear once.
            how: which rows without a partner are kept; "semi" and "anti" give left rows only.
            left_on: the left side's keys, where the names differ.
            right_on: the right side's.
            suffix: added to right columns whose names the left has too.
            broadcast: send the whole right side to every worker; None decides by its size.
            npartitions: split both sides by the keys into so many.
        """
        from smallpond.joins import joined  # noqa: PLC0415

        return self._with(
            joined(self, other, on, how, left_on, right_on, suffix, broadcast, npartitions)
        )

    # ---- what there is

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns."""
        return self.session.job.schemas.schema(self.plan)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @property
    def dtypes(self) -> list[tuple[str, str]]:
        """Name and Arrow type of each column."""
        return [(field.name, str(field.type)) for field in self.schema]

    def describe(self) -> DataFrame:
        """A row per column with count, extremes, mean and quartiles, as DuckDB's SUMMARIZE."""
        return self._with(
            Sql((Gather(self.plan),), "SELECT * FROM (SUMMARIZE FROM {0})", label="describe")
        )

    def explain(self, mode: Literal["all", "logical", "optimised", "physical"] = "all") -> str:
        """The plan as text: as written, after the rules, and as tasks."""
        from smallpond.explain import explained  # noqa: PLC0415

        return explained(self.session.job, self.plan, mode)

    def show(self, n: int = 20) -> None:
        """Prints the first rows."""
        from smallpond.explain import box  # noqa: PLC0415

        sys.stdout.write(box(self._collect(Limit(self.plan, _not_negative("show", n)))) + "\n")

    def __repr__(self) -> str:
        return f"DataFrame\n{tree(self.plan)}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the plan, and the first rows once they have been computed."""
        from smallpond.explain import preview  # noqa: PLC0415

        return preview(self.session.job, self.plan)

    # ---- rows out

    def count(self) -> int:
        """The number of rows."""
        counted = self._collect(Aggregate(self.plan, (), (("n", "count(*)"),)))
        return int(counted.column("n")[0].as_py())

    def take(self, limit: int) -> list[dict[str, Any]]:
        """The first rows as dicts."""
        return rows_of(self._collect(Limit(self.plan, _not_negative("take", limit))))

    def take_all(self) -> list[dict[str, Any]]:
        """All rows as dicts."""
        return rows_of(self.to_arrow())

    def to_arrow(self) -> pa.Table:
        """All rows; strings that DuckDB made are large_string."""
        return self._collect(self.plan)

    def to_pandas(self) -> pd.DataFrame:
        """All rows as a pandas DataFrame."""
        return with_plain_integers(self.to_arrow()).to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """All rows as a Polars DataFrame."""
        import polars  # noqa: PLC0415, ICN001

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)  # noqa: S101 (of a table it makes a frame)
        return frame

    def to_duckdb(
        self, connection: duckdb.DuckDBPyConnection | None = None
    ) -> duckdb.DuckDBPyRelation:
        """All rows as a DuckDB relation, of the given or the default connection."""
        import duckdb  # noqa: PLC0415

        return (connection or duckdb).from_arrow(self.to_arrow())

    def iter_batches(self, batch_size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, without all of them in memory at once."""
        whole_number("iter_batches: batch_size", batch_size, 1)
        self._refresh()
        return self.session.job.batches(self.plan, batch_size)

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """The rows one by one, as dicts."""
        for batch in self.iter_batches():
            yield from rows_of(pa.table(batch))

    def to_torch(self, batch_size: int | None = None) -> IterableDataset[Any]:
        """A data set for a DataLoader; each of its workers and each rank get their own rows.

        Args:
            batch_size: yield dicts of tensors of so many rows; None yields one dict a row.
        """
        from smallpond.torch_data import dataset  # noqa: PLC0415

        self.compute()
        return dataset(self.session.job.compute(self.plan), batch_size)

    # ---- files out

    def write_parquet(
        self,
        path: AnyPath,
        *,
        mode: Mode = "error",
        partition_by: str | Sequence[str] = (),
        file_size: int | str | None = None,
        compression: str = "zstd",
        row_group_size: int = BATCH_ROWS,
    ) -> None:
        """Writes Parquet files into a folder: all of them, or nothing.

        A program that is killed leaves unfinished files: on a local disk in a hidden folder beside
        this one, which the next write to it removes; in an object store below ``_unfinished-*``,
        to be removed by hand once no program writes there.

        Args:
            path: of the folder.
            mode: "error" if the folder holds data, "overwrite" or "append".
            partition_by: columns that become folders ``column=value``.
            file_size: begin another file beyond it, such as "256MB".
            compression: of Parquet.
            row_group_size: rows of a row group.
        """
        options = _parquet(compression, row_group_size)
        self._write(path, Format.PARQUET, mode, options, partition_by, file_size)

    def write_parquet_lazy(
        self,
        path: AnyPath,
        *,
        mode: Mode = "error",
        partition_by: str | Sequence[str] = (),
        file_size: int | str | None = None,
        compression: str = "zstd",
        row_group_size: int = BATCH_ROWS,
    ) -> DataFrame:
        """The same rows, which are written to a folder, once, when they are first needed.

        Arguments as for `write_parquet`. What is derived from this DataFrame needs them, too.
        """
        return self._with(
            Saved(
                self.plan, path_of(path), mode, _parquet(compression, row_group_size),
                tuple(_names(partition_by)), _file_bytes(file_size), next(_calls),
            )
        )  # fmt: skip

    def write_csv(
        self,
        path: AnyPath,
        *,
        mode: Mode = "error",
        header: bool = True,
        delim: str = ",",
        partition_by: str | Sequence[str] = (),
        file_size: int | str | None = None,
    ) -> None:
        """Writes CSV files into a folder; arguments as for `write_parquet`."""
        options = (("HEADER", str(header)), ("DELIM", literal(delim)))
        self._write(path, Format.CSV, mode, options, partition_by, file_size)

    def write_json(
        self,
        path: AnyPath,
        *,
        mode: Mode = "error",
        partition_by: str | Sequence[str] = (),
        file_size: int | str | None = None,
    ) -> None:
        """Writes JSON files, a row a line, into a folder; arguments as for `write_parquet`."""
        self._write(path, Format.JSON, mode, (), partition_by, file_size)

    def write_ipc(self, path: AnyPath, *, mode: Mode = "error") -> None:
        """Writes Arrow IPC files into a folder."""
        self._write(path, Format.IPC, mode, (), (), None)

    def _write(
        self,
        path: AnyPath,
        file_format: Format,
        mode: Mode,
        options: tuple[tuple[str, str], ...],
        partition_by: str | Sequence[str],
        file_size: int | str | None,
    ) -> None:
        self._refresh()
        self.session.job.write(
            self.plan,
            path_of(path),
            file_format,
            mode,
            options,
            tuple(_names(partition_by)),
            _file_bytes(file_size),
        )


class GroupBy:
    """Groups that wait for what to compute of each."""

    def __init__(
        self, frame: DataFrame, keys: tuple[tuple[str, str], ...], npartitions: int | None
    ) -> None:
        self._frame = frame
        self._keys = keys
        self._npartitions = npartitions

    def agg(self, *expressions: str, **named: str) -> DataFrame:
        """A row per group: its keys, and aggregates: ``agg("sum(x) as s", n="count(*)")``."""
        items = [_item("agg", expression) for expression in expressions]
        items += list(named.items())
        for name, expression in named.items():
            _parsed("agg", f"{expression} AS {quote(name)}", "select")
        if not items and not self._keys:
            raise PlanError("agg: at least one aggregate expected")
        _all_differ("agg", [name for name, _ in (*self._keys, *items)])
        node = Aggregate(self._frame.plan, self._keys, tuple(items), self._npartitions)
        return DataFrame(self._frame.session, node, self._frame.need_recompute)

    def count(self) -> DataFrame:
        """The number of rows of each group, as column "count"."""
        return self.agg(count="count(*)")


def _parquet(compression: str, row_group_size: int) -> tuple[tuple[str, str], ...]:
    return (("COMPRESSION", literal(compression)), ("ROW_GROUP_SIZE", str(row_group_size)))


def _file_bytes(file_size: int | str | None) -> int | None:
    return None if file_size is None else parse_bytes(file_size, "file_size")


def _parsed(operation: str, text: str, kind: str) -> Any:
    """What a text refers to; a text that does not parse is the user's mistake, told at once."""
    try:
        return refers(text, kind)
    except PlanError as error:
        raise PlanError(f"{operation}: {error}\nin {operation}: {text}") from error


def _item(operation: str, text: str) -> tuple[str, str]:
    try:
        return split_alias(text)
    except PlanError as error:
        raise PlanError(f"{operation}: {error}\nin {operation}: {text}") from error


def _all_differ(operation: str, names: Sequence[str]) -> None:
    name = twice(names)
    if name is not None:
        raise PlanError(
            f"{operation}: two columns would be called {name!r} (capitals make no difference)"
        )


def _names(value: str | Sequence[str] | None, *, quoted: bool = False) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else list(value)
    return [quote(name) for name in names] if quoted else names


def _sort_keys(
    operation: str, by: str | Sequence[str], descending: bool | Sequence[bool] | None
) -> tuple[SortKey, ...]:
    texts = [by] if isinstance(by, str) else list(by)
    keys = [key for text in texts for key in sort_keys(operation, text)]
    if descending is None:
        return tuple(SortKey(e, d, n) for e, d, n in keys)
    flags = [descending] * len(keys) if isinstance(descending, bool) else list(descending)
    if len(flags) != len(keys):
        raise PlanError(f"{operation}: {len(keys)} keys but {len(flags)} values in descending")
    return tuple(SortKey(e, flag, n) for (e, _, n), flag in zip(keys, flags, strict=True))


def _not_negative(operation: str, value: int) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise PlanError(f"{operation}: a whole number of rows expected, got {value!r}")
    return value
