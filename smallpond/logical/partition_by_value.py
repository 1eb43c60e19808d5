"""Nodes that bring rows into partitions by what the rows hold."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from smallpond.errors import PlanError
from smallpond.logical.base_node import Context, Node
from smallpond.logical.partition_nodes import PartitionNode
from smallpond.logical.table_nodes import parquet_options
from smallpond.plan import BATCH_ROWS, PARTITION_COLUMN, By, Plan, Project
from smallpond.sql import literal, quote, refers

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext


class HashPartitionNode(PartitionNode):
    """Partitions by the values of columns: rows that are equal there come together.

    Args:
        hash_columns: the columns.
        data_partition_column: the column for the partition's number, unless it is dropped; with
            ``shuffle_only`` a column, or expression, that has the number already.
        engine_type: accepted; both of the original's engines are one here.
        use_parquet_writer: accepted; what tasks hand on is not Parquet here.
        parquet_dictionary_encoding: accepted; see `SqlEngineNode`.
        random_shuffle: any partition for any row.
        shuffle_only: by the numbers in ``data_partition_column``.
        drop_partition_column: leave the number out of the rows.
        hive_partitioning: of a named result: folders ``column=number``.
    """

    at_rest = False
    default_cpu_limit = 1
    default_memory_limit: int | None = None
    default_data_partition_column = PARTITION_COLUMN
    default_engine_type = "duckdb"
    default_row_group_size = BATCH_ROWS
    max_num_producer_tasks = 1000
    enable_resource_boost = True

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        hash_columns: Sequence[str] | None = None,
        data_partition_column: str | None = None,
        *,
        dimension: str | None = None,
        nested: bool = False,
        engine_type: Literal["duckdb", "arrow"] | None = None,
        random_shuffle: bool = False,
        shuffle_only: bool = False,
        drop_partition_column: bool = False,
        use_parquet_writer: bool = False,  # noqa: ARG002 (the original's)
        hive_partitioning: bool = False,
        parquet_row_group_size: int | None = None,
        parquet_dictionary_encoding: bool = False,  # noqa: ARG002
        parquet_compression: str | None = "ZSTD",
        parquet_compression_level: int | None = 3,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        column = data_partition_column or self.default_data_partition_column
        own = column if column.isidentifier() else None
        super().__init__(
            ctx, input_deps, npartitions, dimension or own, nested, output_name, output_path,
            cpu_limit or self.default_cpu_limit, memory_limit or self.default_memory_limit,
        )  # fmt: skip
        self.hash_columns = list(hash_columns or [])
        self.data_partition_column = column
        self.random_shuffle = random_shuffle
        self.shuffle_only = shuffle_only
        self.drop_partition_column = drop_partition_column
        self.hive_partitioning = hive_partitioning
        self.engine_type = engine_type or self.default_engine_type
        self.parquet = parquet_options(
            parquet_row_group_size or self.default_row_group_size,
            parquet_compression,
            parquet_compression_level,
        )
        if self.engine_type not in ("duckdb", "arrow"):
            raise PlanError(
                f"{self.label}: engine_type must be 'duckdb' or 'arrow', got {engine_type!r}"
            )
        if not (self.hash_columns or random_shuffle or shuffle_only):
            raise PlanError(f"{self.label}: hash_columns must name at least one column")

    @property
    def described(self) -> str:
        keys = "random" if self.random_shuffle else ", ".join(self.hash_columns)
        return f"{super().described} by {keys or self.data_partition_column}"

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        keep = None if self.drop_partition_column else self.data_partition_column
        if self.shuffle_only:
            number = _expression(self.data_partition_column)
            moved = self.moved(inputs, By.COLUMN, (number,))
            if self.drop_partition_column and self.data_partition_column.isidentifier():
                return Project(moved, f"* EXCLUDE ({number})", label=self.label)
            return moved
        if self.random_shuffle:
            moved = self.moved(inputs, By.RANDOM)
            return replace(moved, keep_column=keep, seed=job.random_seed)
        columns = tuple(quote(name) for name in self.hash_columns)
        return replace(self.moved(inputs, By.HASH, columns), keep_column=keep)


class ShuffleNode(HashPartitionNode):
    """Partitions by a column, or expression, that gives the number of each row's partition."""

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        data_partition_column: str | None = None,
        *,
        dimension: str | None = None,
        nested: bool = False,
        engine_type: Literal["duckdb", "arrow"] | None = None,
        use_parquet_writer: bool = False,
        hive_partitioning: bool = False,
        parquet_row_group_size: int | None = None,
        parquet_dictionary_encoding: bool = False,
        parquet_compression: str | None = "ZSTD",
        parquet_compression_level: int | None = 3,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx,
            input_deps,
            npartitions,
            None,
            data_partition_column,
            dimension=dimension,
            nested=nested,
            engine_type=engine_type,
            shuffle_only=True,
            use_parquet_writer=use_parquet_writer,
            hive_partitioning=hive_partitioning,
            parquet_row_group_size=parquet_row_group_size,
            parquet_dictionary_encoding=parquet_dictionary_encoding,
            parquet_compression=parquet_compression,
            parquet_compression_level=parquet_compression_level,
            output_name=output_name,
            output_path=output_path,
            cpu_limit=cpu_limit,
            memory_limit=memory_limit,
        )


class RangePartitionNode(PartitionNode):
    """Partitions by the value of a column: the first holds what is below the first split point.

    The original has this node without a task for it, and without a word for the column.

    Args:
        split_points: numbers, texts, bytes, dates or times in ascending order; there is one
            partition more than points, and a row equal to a point is in the partition that begins
            with it. NULL is in the last one.
        by: the column, or an expression in SQL.

    Example:
        >>> from smallpond.logical.node import DataSourceNode
        >>> ctx = Context()
        >>> source = DataSourceNode(ctx, None)
        >>> ages = RangePartitionNode(ctx, (source,), [18, 65], dimension="age", by="years")
        >>> ages.num_partitions
        3
    """

    at_rest = False

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        split_points: Sequence[Any],
        dimension: str | None = None,
        nested: bool = False,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int = 1,
        memory_limit: int | None = None,
        *,
        by: str,
    ) -> None:
        super().__init__(
            ctx, input_deps, len(split_points) + 1, dimension, nested, output_name, output_path,
            cpu_limit, memory_limit,
        )  # fmt: skip
        self.split_points = list(split_points)
        self.by = by
        try:
            ascend = all(a <= b for a, b in itertools.pairwise(self.split_points))
        except TypeError as error:
            raise PlanError(f"{self.label}: split_points must be of one type: {error}") from error
        if not ascend:
            raise PlanError(f"{self.label}: split_points must ascend, got {split_points}")
        self._points = ", ".join(_value(self.label, point) for point in self.split_points)

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        key = _expression(self.by)
        index = f"len(list_filter([{self._points}], lambda point: point <= ({key})))"
        number = f"CASE WHEN ({key}) IS NULL THEN {len(self.split_points)} ELSE {index} END"
        return self.moved(inputs, By.COLUMN, (number if self.split_points else "0",))


def _expression(text: str) -> str:
    """A column's name in quotes, or an expression as it is."""
    if text.isidentifier():
        return quote(text)
    refers(f"({text})")
    return text


def _value(label: str, value: Any) -> str:
    """A value in SQL."""
    match value:
        case bool():
            return str(value).upper()
        case int() | decimal.Decimal():
            return str(value)
        case float():
            return f"'{value}'::DOUBLE"
        case str():
            return literal(value)
        case bytes():
            return "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"
        case dt.datetime():
            kind = "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP"
            return f"'{value.isoformat(sep=' ')}'::{kind}"
        case dt.date():
            return f"'{value.isoformat()}'::DATE"
    raise PlanError(f"{label}: a split point of type {type(value).__name__} is not supported")
