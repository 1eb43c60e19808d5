"""Daft on its native runner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.dataframes.job import batch_function, row_function


class Daft:
    """Is told the limit through the environment; it bounds what runs at once."""

    def __init__(self, scratch: Path, limit_bytes: int | None) -> None:
        del scratch
        os.environ.update(DAFT_ANALYTICS_ENABLED="0", DAFT_PROGRESS_BAR="0")
        if limit_bytes is not None:
            os.environ["DAFT_MEMORY_LIMIT"] = str(limit_bytes)
        import daft  # noqa: PLC0415 (reads the environment when it is imported)

        daft.set_runner_native()
        self.daft = daft

    def trivial(self) -> int:
        return int(self.daft.from_pydict({"item": [42]}).to_pydict()["item"][0])

    def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
        col = self.daft.col
        aggregates = (
            col("v").sum().alias("total"),
            col("id").count().alias("num"),
            col("id").min().alias("first"),
            col("v").max().alias("largest"),
        )
        return self._result(self._read(measures).groupby("k").agg(*aggregates), out)

    def medians(self, measures: Path, out: Path | None) -> pa.Table | None:
        middle = self.daft.col("v").median().alias("middle")
        return self._result(self._read(measures).groupby("k").agg(middle), out)

    def join(self, measures: Path, names: Path, out: Path) -> None:
        self._result(self._read(measures).join(self._read(names), on="k"), out)

    def sort(self, records: Path, out: Path) -> None:
        self._result(self._read(records).sort("k"), out)

    def map_rows(self, measures: Path) -> pa.Table:
        def of_row(id: int, k: int, v: float) -> dict[str, Any]:  # noqa: A002 (the column's name)
            return row_function({"id": id, "k": k, "v": v})

        function = self.daft.func(of_row, return_dtype=self._row_type(), unnest=True)
        frame = self._read(measures)
        return self._result(frame.select(function(frame["id"], frame["k"], frame["v"])), None)

    def map_batches(self, measures: Path) -> pa.Table:
        def of_batch(id: Any, k: Any, v: Any) -> Any:  # noqa: A002 (the column's name)
            table = pa.table({"id": id.to_arrow(), "k": k.to_arrow(), "v": v.to_arrow()})
            return batch_function(table).to_struct_array().combine_chunks()

        function = self.daft.func.batch(return_dtype=self._row_type(), unnest=True)(of_batch)
        frame = self._read(measures)
        return self._result(frame.select(function(frame["id"], frame["k"], frame["v"])), None)

    def tasks(self, items: pa.Table) -> pa.Table:
        frame = self.daft.from_arrow(items)
        query = (self.daft.col("item") + 1).alias("item")
        done = [frame.offset(row).limit(1).select(query).to_arrow() for row in range(len(items))]
        return pa.concat_tables(done)

    def close(self) -> None:
        """Nothing has been started that ends by itself."""

    def _read(self, folder: Path) -> Any:
        return self.daft.read_parquet(f"{folder}/*.parquet")

    def _row_type(self) -> Any:
        kind = self.daft.DataType
        return kind.struct({"id": kind.int64(), "x": kind.float64()})

    def _result(self, frame: Any, out: Path | None) -> pa.Table | None:
        if out is None:
            return frame.to_arrow()
        frame.write_parquet(str(out), compression="snappy")
        return None
