"""smallpond, on its embedded executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.dataframes.job import AGGREGATES, batch_function, row_function


class Smallpond:
    """One session; what it hands on and spills lies in the scratch folder."""

    def __init__(self, scratch: Path, limit_bytes: int | None) -> None:
        import smallpond  # noqa: PLC0415 (its import is a part of what is timed)

        self.session = smallpond.init(
            data_root=str(scratch), memory_limit=limit_bytes, progress=False
        )

    def trivial(self) -> int:
        return int(self.session.partial_sql("SELECT 42 AS item").take_all()[0]["item"])

    def group_by(self, measures: Path, out: Path | None) -> Any:
        aggregates = [f"{sql} as {name}" for name, sql in AGGREGATES.items()]
        return _result(self._read(measures).group_by("k").agg(*aggregates), out)

    def medians(self, measures: Path, out: Path | None) -> Any:
        return _result(self._read(measures).group_by("k").agg("median(v) as middle"), out)

    def join(self, measures: Path, names: Path, out: Path) -> None:
        _result(self._read(measures).join(self._read(names), on="k"), out)

    def sort(self, records: Path, out: Path) -> None:
        _result(self._read(records).sort("k"), out)

    def map_rows(self, measures: Path) -> Any:
        return self._read(measures).map(row_function).to_arrow()

    def map_batches(self, measures: Path) -> Any:
        return self._read(measures).map_batches(batch_function).to_arrow()

    def tasks(self, items: Any) -> Any:
        parts = self.session.from_arrow(items).repartition(len(items), by_rows=True)
        return self.session.partial_sql("SELECT item + 1 AS item FROM {0}", parts).to_arrow()

    def close(self) -> None:
        self.session.shutdown()

    def _read(self, folder: Path) -> Any:
        return self.session.read_parquet(f"{folder}/*.parquet")


def _result(frame: Any, out: Path | None) -> Any:
    if out is None:
        return frame.to_arrow()
    frame.write_parquet(str(out), mode="overwrite", compression="snappy")
    return None
