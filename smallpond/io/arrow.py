"""Parquet files and ranges of their rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smallpond.errors import PlanError
from smallpond.plan import BATCH_ROWS
from smallpond.storage import filesystem_of

_ROW_GROUP_BYTES = 480 << 20


@dataclass(frozen=True)
class RowRange:
    """Rows of a Parquet file, from ``begin`` up to ``end``.

    Attributes:
        data_size: bytes of the file's rows, uncompressed.
    """

    path: str
    data_size: int
    file_num_rows: int
    begin: int
    end: int

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.end - self.begin

    @property
    def estimated_data_size(self) -> int:
        """Its share of the file's bytes."""
        return self.data_size * self.num_rows // max(1, self.file_num_rows)

    def take(self, num_rows: int) -> RowRange:
        """The first rows of it, at most so many."""
        return replace(self, end=min(self.end, self.begin + num_rows))

    @staticmethod
    def partition_by_rows(row_ranges: Sequence[RowRange], npartition: int) -> list[list[RowRange]]:
        """The same rows in order, in so many lists whose numbers of rows differ by one at most."""
        total = sum(part.num_rows for part in row_ranges)
        return [
            _between(row_ranges, total * i // npartition, total * (i + 1) // npartition)
            for i in range(npartition)
        ]


def _between(row_ranges: Sequence[RowRange], begin: int, end: int) -> list[RowRange]:
    kept, position = [], 0
    for part in row_ranges:
        first, last = max(begin, position), min(end, position + part.num_rows)
        if first < last:
            offset = part.begin - position
            kept.append(replace(part, begin=first + offset, end=last + offset))
        position += part.num_rows
    return kept


PathOrRange = str | RowRange


def row_range(
    path: str, begin: int = 0, end: int | None = None, filesystem: Any = None
) -> RowRange:
    """A range of a file's rows, all of them by default; reads the file's footer."""
    with _open(path, filesystem) as file:
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        last = meta.num_rows if end is None else min(end, meta.num_rows)
        return RowRange(path, size, meta.num_rows, min(begin, last), last)


def load_from_parquet_files(
    paths_or_ranges: Sequence[PathOrRange],
    columns: Sequence[str] | None = None,
    max_workers: int = 16,
    filesystem: Any = None,
) -> pa.Table:
    """The rows of files, or of ranges of their rows, as one table.

    Raises:
        PlanError: there are no files, or their types do not go together.
    """
    if not paths_or_ranges:
        raise PlanError("load_from_parquet_files: at least one file expected")
    with ThreadPoolExecutor(max_workers=min(max_workers, len(paths_or_ranges))) as pool:
        tables = list(pool.map(lambda item: _load(item, columns, filesystem), paths_or_ranges))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PlanError(f"load_from_parquet_files: the files' types differ: {error}") from error


def _load(item: PathOrRange, columns: Sequence[str] | None, filesystem: Any) -> pa.Table:
    with _open(_path(item), filesystem) as file:
        groups, begin, length = _groups(file.metadata, item)
        table = file.read_row_groups(groups, columns=_listed(columns))
        table = table if columns is None else table.select(_listed(columns))
        return table.slice(begin, length)


def build_batch_reader_from_files(
    paths_or_ranges: Sequence[PathOrRange],
    *,
    columns: Sequence[str] | None = None,
    batch_size: int = BATCH_ROWS,
    max_batch_byte_size: int | None = None,
    filesystem: Any = None,
) -> pa.RecordBatchReader:
    """The same rows batch by batch, in at most one file's row group of memory.

    Args:
        paths_or_ranges: files of one schema.
        columns: those to read.
        batch_size: the most rows of a batch.
        max_batch_byte_size: fewer rows, where rows are large.
        filesystem: fsspec's; by default what the path says.
    """
    if not paths_or_ranges:
        raise PlanError("build_batch_reader_from_files: at least one file expected")
    first = paths_or_ranges[0]
    with _open(_path(first), filesystem) as file:
        schema = file.schema_arrow
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    if max_batch_byte_size is not None:
        whole = row_range(_path(first), filesystem=filesystem)
        per_row = max(1, whole.data_size // max(1, whole.file_num_rows))
        batch_size = max(1, min(batch_size, max_batch_byte_size // per_row))

    def batches() -> Iterator[pa.RecordBatch]:
        for item in paths_or_ranges:
            for batch in _batches(item, columns, batch_size, filesystem):
                table = pa.table(batch).select(schema.names).cast(schema)
                yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _batches(
    item: PathOrRange, columns: Sequence[str] | None, batch_size: int, filesystem: Any
) -> Iterator[pa.RecordBatch]:
    with _open(_path(item), filesystem) as file:
        groups, begin, length = _groups(file.metadata, item)
        for batch in file.iter_batches(batch_size, groups, _listed(columns)):
            wanted = batch.slice(min(begin, batch.num_rows), length)
            begin, length = max(0, begin - batch.num_rows), length - wanted.num_rows
            if wanted.num_rows:
                yield wanted
            if not length:
                return


def _groups(meta: Any, item: PathOrRange) -> tuple[list[int], int, int]:
    """The row groups that hold a range, where it begins in them, and how many rows it has."""
    if isinstance(item, str):
        return list(range(meta.num_row_groups)), 0, meta.num_rows
    groups, position, before = [], 0, 0
    for i in range(meta.num_row_groups):
        rows = meta.row_group(i).num_rows
        if position + rows <= item.begin:
            before += rows
        elif position < item.end:
            groups.append(i)
        position += rows
    return groups, item.begin - before, item.num_rows


def _path(item: PathOrRange) -> str:
    return item if isinstance(item, str) else item.path


def _listed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _open(path: str, filesystem: Any) -> Any:
    if filesystem is None and "://" not in path:
        return pq.ParquetFile(path, memory_map=True)
    if filesystem is None:
        filesystem, path = filesystem_of(path, {})
    return pq.ParquetFile(filesystem.open(path, "rb"))


def dump_to_parquet_files(
    table: pa.Table,
    output_dir: str,
    filename: str = "data",
    compression: str = "ZSTD",
    compression_level: int | None = 3,
    row_group_size: int = BATCH_ROWS,
    row_group_bytes: int = _ROW_GROUP_BYTES,
    use_dictionary: bool = False,
    max_workers: int = 16,
    filesystem: Any = None,
) -> bool:
    """Writes a table as files ``{filename}-0.parquet`` and so on, none larger than a row group."""
    count = min(max(1, table.num_rows), -(-table.nbytes // row_group_bytes) or 1)
    bounds = [table.num_rows * i // count for i in range(count + 1)]

    def write(i: int) -> int:
        return parquet_write_table(
            table.slice(bounds[i], bounds[i + 1] - bounds[i]),
            f"{output_dir}/{filename}-{i}.parquet",
            filesystem,
            compression=compression,
            compression_level=compression_level,
            row_group_size=row_group_size,
            use_dictionary=use_dictionary,
        )

    with ThreadPoolExecutor(max_workers=max_workers) as pool:
        return sum(pool.map(write, range(count))) == int(table.num_rows)


def parquet_write_table(
    table: pa.Table, where: str, filesystem: Any = None, **write_table_args: Any
) -> int:
    """Writes one Parquet file; returns the number of rows."""
    if filesystem is None:
        filesystem, where = filesystem_of(where, {})
    filesystem.makedirs(where.rpartition("/")[0] or ".", exist_ok=True)
    with filesystem.open(where, "wb") as file:
        pq.write_table(table, file, **write_table_args)
    return int(table.num_rows)


def convert_type_to_large(type_: pa.DataType) -> pa.DataType:
    """The type with 64 bit offsets in it, however deep."""
    if pa.types.is_string(type_):
        return pa.large_string()
    if pa.types.is_binary(type_):
        return pa.large_binary()
    if pa.types.is_list(type_):
        return pa.large_list(convert_type_to_large(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(convert_type_to_large(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(
            convert_type_to_large(type_.key_type), convert_type_to_large(type_.item_type)
        )
    return type_


def convert_types_to_large_string(schema: pa.Schema) -> pa.Schema:
    """The schema with texts and binaries of 64 bit offsets."""
    return pa.schema(
        [field.with_type(convert_type_to_large(field.type)) for field in schema], schema.metadata
    )


def cast_columns_to_large_string(table: pa.Table) -> pa.Table:
    """The table with texts and binaries of 64 bit offsets, as query results have them."""
    return table.cast(convert_types_to_large_string(table.schema))


def filter_schema(
    schema: pa.Schema,
    included_cols: Sequence[str] | None = None,
    excluded_cols: Sequence[str] | None = None,
) -> pa.Schema:
    """Only some columns, or all but some."""
    kept = [
        field
        for field in schema
        if (included_cols is None or field.name in included_cols)
        and (excluded_cols is None or field.name not in excluded_cols)
    ]
    return pa.schema(kept, schema.metadata)
