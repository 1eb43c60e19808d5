"""Polars: lazy frames on its streaming engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.dataframes.job import batch_function, row_function

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class Polars:
    """Spills beyond a budget that it takes from the environment; its spilling is declared young."""

    def __init__(self, scratch: Path, limit_bytes: int | None) -> None:
        if limit_bytes is not None:
            os.environ["POLARS_OOC_MEMORY_BUDGET_MB"] = str(limit_bytes // 10**6)
            os.environ["POLARS_OOC_SPILL_DIR"] = str(scratch)
        import polars as pl  # noqa: PLC0415 (reads the environment when it is imported)

        self.pl = pl

    def trivial(self) -> int:
        return int(self.pl.select(self.pl.lit(42)).item())

    def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
        pl = self.pl
        frame = pl.scan_parquet(measures / "*.parquet").group_by("k")
        aggregates = (
            pl.col("v").sum().alias("total"),
            pl.len().alias("num"),
            pl.col("id").min().alias("first"),
            pl.col("v").max().alias("largest"),
        )
        return self._result(frame.agg(*aggregates), out)

    def medians(self, measures: Path, out: Path | None) -> pa.Table | None:
        frame = self.pl.scan_parquet(measures / "*.parquet").group_by("k")
        return self._result(frame.agg(self.pl.col("v").median().alias("middle")), out)

    def join(self, measures: Path, names: Path, out: Path) -> None:
        scan = self.pl.scan_parquet
        left, right = scan(measures / "*.parquet"), scan(names / "*.parquet")
        self._result(left.join(right, on="k", maintain_order="none"), out)

    def sort(self, records: Path, out: Path) -> None:
        frame = self.pl.scan_parquet(records / "*.parquet").sort("k")
        frame.sink_parquet(out / "data.parquet", compression="snappy")

    def map_rows(self, measures: Path) -> pa.Table:
        pl = self.pl
        kind = pl.Struct({"id": pl.Int64, "x": pl.Float64})
        rows = pl.struct("id", "k", "v").map_elements(row_function, return_dtype=kind)
        frame = pl.scan_parquet(measures / "*.parquet").select(rows.alias("row")).unnest("row")
        return self._result(frame, None)

    def map_batches(self, measures: Path) -> pa.Table:
        pl = self.pl
        frame = pl.scan_parquet(measures / "*.parquet").map_batches(
            lambda batch: pl.DataFrame(batch_function(batch.to_arrow())),
            schema={"id": pl.Int64, "x": pl.Float64},
            streamable=True,
        )
        return self._result(frame, None)

    def tasks(self, items: pa.Table) -> pa.Table:
        pl = self.pl
        frame = pl.DataFrame(items).lazy()
        query = (pl.col("item") + 1).alias("item")
        done = [
            frame.slice(row, 1).select(query).collect(engine="streaming")
            for row in range(len(items))
        ]
        return pl.concat(done).to_arrow()

    def close(self) -> None:
        """Nothing has been started."""

    def _result(self, frame: pl.LazyFrame, out: Path | None) -> pa.Table | None:
        if out is None:
            return frame.collect(engine="streaming").to_arrow()
        frame.sink_parquet(out / "data.parquet", compression="snappy", maintain_order=False)
        return None
