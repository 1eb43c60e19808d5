"""What the engines are asked to do, and what an engine must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

MEASURES, NAMES, RECORDS = "measures", "names", "records"

# What every engine computes of the rows of a group: SQL, and the column it becomes.
AGGREGATES = {"total": "sum(v)", "num": "count(*)", "first": "min(id)", "largest": "max(v)"}


@dataclass(frozen=True, slots=True)
class Job:
    """A workload on so much data.

    Attributes:
        workload: group_by, medians, join, sort, map_rows, map_batches, tasks, start, exit; or
            "every", all of them but start and exit in one process after another.
        rows: of the input; of tasks, how many.
        groups: distinct keys of the rows.
        files: Parquet files that the rows lie in.
        limit_mb: memory that engines are told to keep to, in 10**6 bytes; 0 for no limit.
    """

    workload: str
    rows: int
    groups: int = 0
    files: int = 8
    limit_mb: int = 0


class Engine(Protocol):
    """A library, started: made with a folder for its own files and a memory limit in bytes.

    Inputs are folders of Parquet files. Where `out` is given, the result is Parquet files there,
    compressed with Snappy; otherwise it is returned.
    """

    def trivial(self) -> int:
        """The smallest query there is; returns 42."""

    def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
        """`AGGREGATES` by column k."""

    def medians(self, measures: Path, out: Path | None) -> pa.Table | None:
        """The exact median of v by column k."""

    def join(self, measures: Path, names: Path, out: Path) -> None:
        """The rows of measures whose k is in names, with the name and weight from there."""

    def sort(self, records: Path, out: Path) -> None:
        """All rows by column k."""

    def map_rows(self, measures: Path) -> pa.Table:
        """`row_function` of every row."""

    def map_batches(self, measures: Path) -> pa.Table:
        """`batch_function` of every batch."""

    def tasks(self, items: pa.Table) -> pa.Table:
        """A query that adds one to column item, for every row by itself."""

    def close(self) -> None:
        """Ends what the engine has started."""


def row_function(row: dict[str, Any]) -> dict[str, Any]:
    """A function of a row, as users write them."""
    return {"id": row["id"], "x": 2 * row["v"] + row["k"]}


def batch_function(table: pa.Table) -> pa.Table:
    """The same of many rows at once."""
    import pyarrow as pa  # noqa: PLC0415 (an engine that needs no Arrow starts without it)
    import pyarrow.compute as pc  # noqa: PLC0415

    return pa.table({"id": table["id"], "x": pc.add(pc.multiply(table["v"], 2), table["k"])})
