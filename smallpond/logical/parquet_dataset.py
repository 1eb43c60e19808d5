"""Parquet files, and ranges of their rows."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from smallpond.errors import PlanError
from smallpond.io.arrow import (
    RowRange,
    build_batch_reader_from_files,
    dump_to_parquet_files,
    load_from_parquet_files,
    row_range,
)
from smallpond.logical.base_dataset import DataSet, checked_count
from smallpond.plan import BATCH_ROWS, FileSlice
from smallpond.storage import filesystem_of


class ParquetDataSet(DataSet):
    """Parquet files, or ranges of their rows.

    Attributes:
        generated_columns: "filename" and "file_row_number", if wanted as columns.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        root_dir: str | None = "",
        recursive: bool = False,
        columns: Sequence[str] | None = None,
        generated_columns: Sequence[str] | None = None,
        union_by_name: bool = False,
    ) -> None:
        super().__init__(paths, root_dir, recursive, columns, union_by_name)
        self.generated_columns = list(generated_columns or [])

    @staticmethod
    def create_from(table: pa.Table, output_dir: str, filename: str = "data") -> ParquetDataSet:
        """Writes a table into a folder, and returns what was written."""
        dump_to_parquet_files(table, output_dir, filename)
        return ParquetDataSet([f"{output_dir}/{filename}-*.parquet"])

    # ---- ranges of rows

    @property
    def resolved_row_ranges(self) -> list[RowRange]:
        """What it consists of, in order; reads the files' footers."""
        with ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(lambda f: row_range(f.url, f.begin, f.end), self.slices))

    def _of_ranges(self, ranges: Sequence[RowRange]) -> Self:
        if not ranges and self.slices:
            # Nothing of a file: no rows, but its columns.
            return self.of_slices([dataclasses.replace(self.slices[0], begin=0, end=0)])
        known = {file.url: file for file in self.slices}
        return self.of_slices([_slice(known[part.path], part) for part in ranges])

    def partition_by_files(self, npartition: int, random_shuffle: bool = False) -> list[Self]:
        made = super().partition_by_files(npartition, random_shuffle)
        return [part if part.slices else self._of_ranges([]) for part in made]

    def partition_by_rows(self, npartition: int, random_shuffle: bool = False) -> list[Self]:
        """The same rows, in order or with files shuffled, in equal numbers."""
        checked_count("partition_by_rows", npartition)
        ranges = self.resolved_row_ranges
        if random_shuffle:
            random.Random(0).shuffle(ranges)
        return [self._of_ranges(part) for part in RowRange.partition_by_rows(ranges, npartition)]

    def partition_by_size(self, max_partition_size: int) -> list[Self]:
        """The same rows in order, in as many equal parts as it takes for this size in bytes."""
        if max_partition_size < 1:
            raise PlanError(
                f"partition_by_size: the size must be at least 1, got {max_partition_size}"
            )
        size = self.estimated_data_size
        return self.partition_by_rows(max(1, -(-size // max_partition_size)))

    def remove_empty_files(self) -> None:
        """Leaves out what holds no rows."""
        kept = [part for part in self.resolved_row_ranges if part.num_rows]
        self._slices = self._of_ranges(kept).slices if kept else ()

    # ---- partitions that are there already

    def load_partitioned_datasets(
        self, npartition: int, data_partition_column: str, hive_partitioning: bool = False
    ) -> list[Self]:
        """The files by the partition that each of them is.

        Args:
            npartition: how many partitions there are.
            data_partition_column: names the partitioning: in the files' metadata, in the folders'
                names (``column=3``), or as a column that is the same in a whole file.
            hive_partitioning: only folders' names count.

        Raises:
            PlanError: a file is no partition, or its number is out of range.
        """
        checked_count("load_partitioned_datasets", npartition)
        groups: list[list[FileSlice]] = [[] for _ in range(npartition)]
        for file in self.slices:
            index = _index(file.url, data_partition_column, hive_partitioning)
            if not 0 <= index < npartition:
                raise PlanError(
                    f"partition key {index} is out of range 0-{npartition - 1}: {file.url}"
                )
            groups[index].append(file)
        return [self.of_slices(group) if group else self._of_ranges([]) for group in groups]

    # ---- rows

    @property
    def num_rows(self) -> int:
        known = [file for file in self.slices if file.end is not None or file.num_rows is not None]
        if len(known) == len(self.slices):
            return sum((f.end if f.end is not None else f.num_rows or 0) - f.begin for f in known)
        return sum(part.num_rows for part in self.resolved_row_ranges)

    @property
    def estimated_data_size(self) -> int:
        """Bytes of the rows, uncompressed."""
        return sum(part.estimated_data_size for part in self.resolved_row_ranges)

    @property
    def _is_plain(self) -> bool:
        return bool(self.slices) and not self.generated_columns and not self.union_by_name

    def to_arrow_table(
        self, max_workers: int = 16, filesystem: Any = None, conn: Any = None
    ) -> pa.Table:
        if conn is not None or not self._is_plain:
            return super().to_arrow_table(max_workers, filesystem, conn)
        return load_from_parquet_files(self._items(), self.columns, max_workers, filesystem)

    def to_batch_reader(
        self, batch_size: int = BATCH_ROWS, filesystem: Any = None, conn: Any = None
    ) -> pa.RecordBatchReader:
        if conn is not None or not self._is_plain:
            return super().to_batch_reader(batch_size, filesystem, conn)
        return build_batch_reader_from_files(
            self._items(), columns=self.columns, batch_size=batch_size, filesystem=filesystem
        )

    def _items(self) -> list[str | RowRange]:
        return [
            file.url if file.end is None else RowRange(file.url, 0, 0, file.begin, file.end)
            for file in self.slices
        ]


def _slice(file: FileSlice, part: RowRange) -> FileSlice:
    whole = part.begin == 0 and part.end == part.file_num_rows
    rows = part.file_num_rows
    if whole:
        return dataclasses.replace(file, num_rows=rows, begin=0, end=None)
    return dataclasses.replace(file, num_rows=rows, begin=part.begin, end=part.end)


def _index(url: str, column: str, hive: bool) -> int:
    """Which partition a file is."""
    found = re.search(rf"(?:^|/){re.escape(column)}=(-?\d+)(?=/)", url)
    if found:
        return int(found[1])
    if hive:
        raise PlanError(f"LoadPartitionedDataSetNode: no folder {column}=... in {url}")
    filesystem, path = filesystem_of(url, {})
    with filesystem.open(path, "rb") as source, pq.ParquetFile(source) as file:
        noted = (file.metadata.metadata or {}).get(f"SMALLPOND:{column}".encode())
        if noted is not None:
            return int(noted)
        if column not in file.schema_arrow.names:
            raise PlanError(
                f"LoadPartitionedDataSetNode: {url} does not say which partition it is: there is "
                f"no folder {column}=..., no metadata SMALLPOND:{column}, and no column {column}"
            )
        values = file.read(columns=[column]).column(0).unique().to_pylist()
    if len(values) != 1:
        raise PlanError(
            f"LoadPartitionedDataSetNode: {url} has rows of {len(values)} partitions in column "
            f"{column}, where one is expected"
        )
    return int(values[0])


def parquet_of(slices: Sequence[FileSlice]) -> ParquetDataSet:
    """A data set of files that are known."""
    return ParquetDataSet([]).of_slices(slices)
