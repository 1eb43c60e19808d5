"""Data sets: files, and how to read rows from them."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa

from smallpond import sources
from smallpond.engine.query import scan
from smallpond.errors import PlanError
from smallpond.plan import BATCH_ROWS, Files, FileSlice, Format, Listed, Memory, Plan
from smallpond.storage import resolve

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("smallpond")
LISTED_FILES = pa.schema([("file", pa.string())])


class DataSet:
    """Files that hold rows.

    Attributes:
        paths: files, folders and patterns, as they were given.
        root_dir: what relative paths start from.
    """

    format: ClassVar[Format] = Format.PARQUET

    def __init__(
        self,
        paths: str | Sequence[str],
        root_dir: str | None = "",
        recursive: bool = False,
        columns: Sequence[str] | None = None,
        union_by_name: bool = False,
    ) -> None:
        self.paths = [paths] if isinstance(paths, str) else [str(path) for path in paths]
        self.root_dir = root_dir or ""
        self.recursive = recursive
        self.columns = None if columns is None else list(columns)
        self.union_by_name = union_by_name
        self.generated_columns: list[str] = []
        self._slices: tuple[FileSlice, ...] | None = None

    def __repr__(self) -> str:
        shown = ", ".join(self.paths[:3]) + (", ..." if len(self.paths) > 3 else "")
        return f"{type(self).__name__}({shown})"

    # ---- files

    @property
    def absolute_paths(self) -> list[str]:
        """The paths as they were given, from the root of the file system on."""
        return [_absolute(path, self.root_dir) for path in self.paths]

    @property
    def slices(self) -> tuple[FileSlice, ...]:
        """The files that the paths mean, or the ranges of their rows; looked for once.

        Raises:
            FileNotFoundError: a path or pattern matches nothing.
        """
        if self._slices is None:
            self._slices = self._found() if self.paths else ()
        return self._slices

    def _found(self) -> tuple[FileSlice, ...]:
        found = sources.files(self.absolute_paths, self.format, (), recursive=self.recursive)
        return found.files

    @property
    def resolved_paths(self) -> list[str]:
        """The files, in order; without those of which no rows are taken, only the columns."""
        return list(dict.fromkeys(file.url for file in self.slices if file.end != file.begin))

    @property
    def num_files(self) -> int:
        """How many files there are."""
        return len(self.resolved_paths)

    def reset(
        self,
        paths: Sequence[str] | None = None,
        root_dir: str | None = "",
        recursive: bool | None = None,
    ) -> None:
        """Other files in the place of these."""
        self.paths = list(paths or [])
        self.root_dir = root_dir or ""
        self.recursive = self.recursive if recursive is None else recursive
        self._slices = None

    def of_slices(self, slices: Sequence[FileSlice]) -> Self:
        """A data set like this one of other files."""
        other = copy.copy(self)
        other.paths = list(dict.fromkeys(file.url for file in slices))
        other.root_dir = ""
        other._slices = tuple(slices)  # noqa: SLF001 (its own class)
        return other

    def partition_by_files(self, npartition: int, random_shuffle: bool = False) -> list[Self]:
        """The same files, in order or shuffled, in data sets of about as many files each."""
        checked_count(type(self).__name__, npartition)
        slices = list(self.slices)
        if random_shuffle:
            random.Random(0).shuffle(slices)
        bounds = [len(slices) * i // npartition for i in range(npartition + 1)]
        return [self.of_slices(slices[bounds[i] : bounds[i + 1]]) for i in range(npartition)]

    @staticmethod
    def merge(datasets: Sequence[DataSet]) -> DataSet:
        """One data set of the files of several of a kind.

        Raises:
            PlanError: they are of different kinds, or there are none.
        """
        kinds = list(dict.fromkeys(type(dataset) for dataset in datasets))
        if len(kinds) != 1:
            names = [kind.__name__ for kind in kinds]
            raise PlanError(f"DataSet.merge: data sets of one kind expected, got {names}")
        return datasets[0].merged(datasets)

    def merged(self, datasets: Sequence[DataSet]) -> DataSet:
        """One data set like this one, of the files of all."""
        return self.of_slices([file for dataset in datasets for file in dataset.slices])

    # ---- rows

    def plan(self) -> Plan:
        """The plan that reads the rows."""
        return self.files()

    def files(self) -> Files:
        """The files, and how to read them."""
        return Files(
            self.slices,
            self.format,
            None if self.columns is None else tuple(self.columns),
            self._schema(),
            self._options(),
            tuple(self.generated_columns),
        )

    def _schema(self) -> tuple[tuple[str, str], ...] | None:
        return None

    def _options(self) -> tuple[tuple[str, str], ...]:
        return (("union_by_name", "true"),) if self.union_by_name else ()

    def sql_query_fragment(self, filesystem: Any = None, conn: Any = None) -> str:  # noqa: ARG002
        """What stands after FROM in a query on the rows.

        Args:
            filesystem: taken for the original's sake; the paths say where the files are.
            conn: the connection that the query will run on.
        """
        return f"({scan(self.files())})"

    @property
    def num_rows(self) -> int:
        """How many rows there are; reads the files if they do not say."""
        con = connection()
        query = f"SELECT count(*) FROM {self.sql_query_fragment(conn=con)}"
        return int(con.execute(query).fetchall()[0][0])

    @property
    def empty(self) -> bool:
        """Whether there are no rows."""
        return not self.slices or self.num_rows == 0

    def to_arrow_table(
        self,
        max_workers: int = 16,  # noqa: ARG002 (the original's)
        filesystem: Any = None,
        conn: Any = None,
    ) -> pa.Table:
        """All rows."""
        con = conn or connection()
        return con.sql(f"FROM {self.sql_query_fragment(filesystem, con)}").to_arrow_table()

    def to_batch_reader(
        self, batch_size: int = BATCH_ROWS, filesystem: Any = None, conn: Any = None
    ) -> pa.RecordBatchReader:
        """All rows, in batches of at most so many."""
        con = conn or connection()
        query = f"FROM {self.sql_query_fragment(filesystem, con)}"
        reader = con.sql(query).to_arrow_reader(batch_size)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from reader
            assert con is not None  # noqa: S101 (it has to live as long as its reader)

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def to_pandas(self) -> pd.DataFrame:
        """All rows as a pandas DataFrame."""
        return self.to_arrow_table().to_pandas()

    def log(self, num_rows: int = 200) -> None:
        """Writes the files and the first rows into the log."""
        rows = self.to_arrow_table().slice(0, num_rows).to_pylist()
        lines = "\n".join(str(row) for row in rows)
        _log.info("%r: %d files, %d rows\n%s", self, self.num_files, self.num_rows, lines)


class FileSet(DataSet):
    """Files of any kind, for Python scripts."""

    def _found(self) -> tuple[FileSlice, ...]:
        found = resolve(
            self.absolute_paths, recursive=self.recursive, suffixes=("",), storage_options={}
        )
        return tuple(FileSlice(info.url, info.size_bytes, info.version) for info in found)

    def plan(self) -> Plan:
        table = pa.table({"file": self.resolved_paths}, schema=LISTED_FILES)
        listing = sources.table(table)
        versions = "/".join(file.version for file in self.slices)
        return Listed(Memory(f"{listing.content} {versions}", table), Files((), Format.PARQUET))

    @property
    def num_rows(self) -> int:
        raise PlanError("FileSet: its files are not known to hold rows")

    @property
    def empty(self) -> bool:
        return not self.slices

    def sql_query_fragment(self, filesystem: Any = None, conn: Any = None) -> str:  # noqa: ARG002
        raise PlanError("FileSet: its files are not known to hold rows (use ParquetDataSet)")

    def log(self, num_rows: int = 200) -> None:
        _log.info("%d files\n%s", self.num_files, "\n".join(self.resolved_paths[:num_rows]))


def _absolute(path: str, root_dir: str) -> str:
    if "://" in path or Path(path).is_absolute():
        return path
    if "://" in root_dir:
        return f"{root_dir.rstrip('/')}/{path}"
    return str(Path(root_dir).absolute() / path)


def checked_count(operation: str, npartition: int) -> None:
    """Raises if it is no number of partitions.

    Raises:
        PlanError: it is less than one.
    """
    if npartition < 1:
        raise PlanError(
            f"{operation}: the number of partitions must be at least 1, got {npartition}"
        )


def connection() -> Any:
    """A DuckDB connection of its own, with wide texts as results of queries have them."""
    import duckdb  # noqa: PLC0415

    return duckdb.connect(":memory:", config={"arrow_large_buffer_size": True})
