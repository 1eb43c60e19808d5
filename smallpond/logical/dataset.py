"""All kinds of data sets: files of several formats, tables in memory, queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from smallpond import sources
from smallpond.errors import PlanError
from smallpond.logical.base_dataset import DataSet, FileSet, checked_count, connection
from smallpond.logical.parquet_dataset import ParquetDataSet
from smallpond.plan import BATCH_ROWS, Format, Partitioned, Plan, Sql
from smallpond.sql import literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ArrowTableDataSet",
    "CsvDataSet",
    "DataSet",
    "FileSet",
    "JsonDataSet",
    "PandasDataSet",
    "ParquetDataSet",
    "PartitionedDataSet",
    "SqlQueryDataSet",
]


class CsvDataSet(DataSet):
    """CSV files.

    Args:
        schema: SQL type of each column, in order.
        max_line_size: of the longest line, in bytes.
        parallel: whether several threads may read a file.
        header: whether the first line of a file has names.
    """

    format = Format.CSV

    def __init__(
        self,
        paths: str | Sequence[str],
        schema: Mapping[str, str],
        delim: str = ",",
        max_line_size: int | None = None,
        parallel: bool = True,
        header: bool = False,
        root_dir: str | None = "",
        recursive: bool = False,
        columns: Sequence[str] | None = None,
        union_by_name: bool = False,
    ) -> None:
        super().__init__(paths, root_dir, recursive, columns, union_by_name)
        self.schema = dict(schema)
        self.delim = delim
        self.max_line_size = max_line_size
        self.parallel = parallel
        self.header = header

    def _schema(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.schema.items())

    def _options(self) -> tuple[tuple[str, str], ...]:
        options = {
            "delim": literal(self.delim),
            "header": str(self.header).lower(),
            "parallel": str(self.parallel).lower(),
        }
        if self.max_line_size is not None:
            options["max_line_size"] = str(self.max_line_size)
        return (*options.items(), *super()._options())


class JsonDataSet(DataSet):
    """JSON files.

    Args:
        schema: SQL type of each column.
        format: as DuckDB's read_json takes it: "newline_delimited", "array", "unstructured".
        max_object_size: of the largest object, in bytes.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        schema: Mapping[str, str],
        format: str = "newline_delimited",  # noqa: A002 (the original's)
        max_object_size: int = 1 << 30,
        root_dir: str | None = "",
        recursive: bool = False,
        columns: Sequence[str] | None = None,
        union_by_name: bool = False,
    ) -> None:
        super().__init__(paths, root_dir, recursive, columns, union_by_name)
        self.schema = dict(schema)
        self.layout = format
        self.max_object_size = max_object_size

    format = Format.JSON

    def _schema(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.schema.items())

    def _options(self) -> tuple[tuple[str, str], ...]:
        options = {
            "format": literal(self.layout),
            "maximum_object_size": str(self.max_object_size),
        }
        return (*options.items(), *super()._options())


class ArrowTableDataSet(DataSet):
    """An Arrow table in memory."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__([])
        self.table = table

    def plan(self) -> Plan:
        return sources.table(self.table)

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def empty(self) -> bool:
        return self.num_rows == 0

    def partition_by_rows(
        self,
        npartition: int,
        random_shuffle: bool = False,  # noqa: ARG002 (it concerns files)
    ) -> list[Self]:
        """The same rows, in order, in equal numbers."""
        checked_count("partition_by_rows", npartition)
        bounds = [self.num_rows * i // npartition for i in range(npartition + 1)]
        return [self._slice(bounds[i], bounds[i + 1]) for i in range(npartition)]

    partition_by_files = partition_by_rows

    def _slice(self, begin: int, end: int) -> Self:
        return type(self)(self.table.slice(begin, end - begin))

    def merged(self, datasets: Sequence[DataSet]) -> DataSet:
        tables = [dataset.to_arrow_table() for dataset in datasets]
        return ArrowTableDataSet(pa.concat_tables(tables, promote_options="permissive"))

    def to_arrow_table(
        self,
        max_workers: int = 16,  # noqa: ARG002 (the original's)
        filesystem: Any = None,  # noqa: ARG002
        conn: Any = None,  # noqa: ARG002
    ) -> pa.Table:
        return self.table

    def to_batch_reader(
        self,
        batch_size: int = BATCH_ROWS,
        filesystem: Any = None,  # noqa: ARG002
        conn: Any = None,  # noqa: ARG002
    ) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(
            self.table.schema, self.table.to_batches(max_chunksize=batch_size)
        )

    def sql_query_fragment(self, filesystem: Any = None, conn: Any = None) -> str:  # noqa: ARG002
        if conn is None:
            raise PlanError(f"{type(self).__name__}: sql_query_fragment needs conn=")
        name = f"table_{id(self.table)}"
        conn.register(name, self.table)
        return name


class PandasDataSet(ArrowTableDataSet):
    """A pandas DataFrame in memory, without its index."""

    def __init__(self, df: pd.DataFrame) -> None:
        super().__init__(pa.Table.from_pandas(df, preserve_index=False))
        self.df = df

    def to_pandas(self) -> pd.DataFrame:
        return self.df

    def _slice(self, begin: int, end: int) -> Self:
        return type(self)(self.df.iloc[begin:end])


class SqlQueryDataSet(DataSet):
    """The rows of a query that reads its own sources.

    Args:
        sql_query: the query.
        query_builder: gives it instead, called with a connection and a file system.
    """

    def __init__(
        self, sql_query: str, query_builder: Callable[[Any, Any], str] | None = None
    ) -> None:
        super().__init__([])
        self.sql_query = sql_query
        self.query_builder = query_builder

    def _built(self, conn: Any, filesystem: Any) -> str:
        if self.query_builder is None:
            return self.sql_query
        return self.query_builder(conn or connection(), filesystem)

    def plan(self) -> Plan:
        return Sql((), self._built(None, None), label="SqlQueryDataSet")

    def sql_query_fragment(self, filesystem: Any = None, conn: Any = None) -> str:
        return f"({self._built(conn, filesystem)})"

    @property
    def empty(self) -> bool:
        return self.num_rows == 0

    def partition_by_files(
        self,
        npartition: int,  # noqa: ARG002
        random_shuffle: bool = False,  # noqa: ARG002
    ) -> list[Self]:
        raise PlanError("SqlQueryDataSet: a query has no files to be partitioned by")

    def merged(self, datasets: Sequence[DataSet]) -> DataSet:
        queries = [f"FROM {dataset.sql_query_fragment()}" for dataset in datasets]
        return SqlQueryDataSet("\nUNION ALL BY NAME\n".join(queries))


class PartitionedDataSet(DataSet):
    """Data sets, each of them one partition."""

    def __init__(self, datasets: Sequence[DataSet]) -> None:
        if not datasets:
            raise PlanError("PartitionedDataSet: at least one data set expected")
        super().__init__([path for dataset in datasets for path in dataset.paths])
        self.datasets = list(datasets)

    def __getitem__(self, index: int) -> DataSet:
        return self.datasets[index]

    def __len__(self) -> int:
        return len(self.datasets)

    @property
    def slices(self) -> tuple[Any, ...]:
        return tuple(file for dataset in self.datasets for file in dataset.slices)

    def plan(self) -> Plan:
        return Partitioned(tuple(dataset.plan() for dataset in self.datasets))

    @property
    def num_rows(self) -> int:
        return sum(dataset.num_rows for dataset in self.datasets)

    @property
    def empty(self) -> bool:
        return all(dataset.empty for dataset in self.datasets)

    def sql_query_fragment(self, filesystem: Any = None, conn: Any = None) -> str:
        parts = [f"FROM {d.sql_query_fragment(filesystem, conn)}" for d in self.datasets]
        return f"({' UNION ALL BY NAME '.join(parts)})"

    def merged(self, datasets: Sequence[DataSet]) -> DataSet:
        """Partition by partition."""
        parts = [d.datasets for d in datasets if isinstance(d, PartitionedDataSet)]
        if len({len(part) for part in parts}) != 1:
            counts = [len(part) for part in parts]
            raise PlanError(f"PartitionedDataSet.merge: equal numbers expected, got {counts}")
        return PartitionedDataSet([DataSet.merge(group) for group in zip(*parts, strict=True)])
