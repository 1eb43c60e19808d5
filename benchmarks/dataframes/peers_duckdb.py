"""DuckDB by itself, set up for speed: rows of a result may come in any order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb.func import PythonUDFType

from benchmarks.dataframes.job import AGGREGATES, batch_function, row_function

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET = "FORMAT parquet, COMPRESSION snappy"


class DuckDb:
    """Has no tasks and no functions of rows: here those are queries, and functions of values."""

    def __init__(self, scratch: Path, limit_bytes: int | None) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET preserve_insertion_order = false")
        self.connection.execute(f"SET temp_directory = '{scratch}'")
        if limit_bytes is not None:
            self.connection.execute(f"SET memory_limit = '{limit_bytes}B'")

    def trivial(self) -> int:
        return int(self.connection.execute("SELECT 42").fetchall()[0][0])

    def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
        aggregates = ", ".join(f"{sql} AS {name}" for name, sql in AGGREGATES.items())
        return self._result(f"SELECT k, {aggregates} FROM {_files(measures)} GROUP BY k", out)

    def medians(self, measures: Path, out: Path | None) -> pa.Table | None:
        query = f"SELECT k, median(v) AS middle FROM {_files(measures)} GROUP BY k"
        return self._result(query, out)

    def join(self, measures: Path, names: Path, out: Path) -> None:
        query = f"SELECT * FROM {_files(measures)} m JOIN {_files(names)} n USING (k)"
        self._result(query, out, ", PER_THREAD_OUTPUT")

    def sort(self, records: Path, out: Path) -> None:
        self._result(f"SELECT * FROM {_files(records)} ORDER BY k", out)

    def map_rows(self, measures: Path) -> pa.Table:
        def of_row(k: int, v: float) -> Any:
            return row_function({"id": 0, "k": k, "v": v})["x"]

        self.connection.create_function("of_row", of_row, ["BIGINT", "DOUBLE"], "DOUBLE")
        return self._table(f"SELECT id, of_row(k, v) AS x FROM {_files(measures)}")

    def map_batches(self, measures: Path) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415

        def of_batch(k: Any, v: Any) -> Any:
            return batch_function(pa.table({"id": k, "k": k, "v": v}))["x"]

        types: list[Any] = ["BIGINT", "DOUBLE"]
        kind = PythonUDFType.ARROW
        self.connection.create_function("of_batch", of_batch, types, "DOUBLE", type=kind)
        return self._table(f"SELECT id, of_batch(k, v) AS x FROM {_files(measures)}")

    def tasks(self, items: pa.Table) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415

        self.connection.register("items", items)
        query = "SELECT item + 1 AS item FROM items LIMIT 1 OFFSET "
        return pa.concat_tables([self._table(f"{query}{row}") for row in range(len(items))])

    def close(self) -> None:
        self.connection.close()

    def _result(self, query: str, out: Path | None, options: str = "") -> pa.Table | None:
        if out is None:
            return self._table(query)
        target = out if options else out / "data.parquet"
        self.connection.execute(f"COPY ({query}) TO '{target}' ({_PARQUET}{options})")
        return None

    def _table(self, query: str) -> pa.Table:
        return self.connection.sql(query).to_arrow_table()


def _files(folder: Path) -> str:
    return f"read_parquet('{folder}/*.parquet')"
