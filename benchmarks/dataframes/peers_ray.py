"""Ray Data on one machine: only loopback is listened on, and no dashboard is started."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.dataframes.job import batch_function, row_function

# Ray refuses smaller object stores.
_LEAST_STORE_BYTES = 78_643_200


class RayData:
    """Is told the limit as the size of its object store: its tasks have none."""

    def __init__(self, scratch: Path, limit_bytes: int | None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray  # noqa: PLC0415 (reads the environment when it is imported)

        self.ray = ray
        self.num_cpus = os.cpu_count() or 1
        ray.init(
            num_cpus=self.num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=limit_bytes and max(limit_bytes, _LEAST_STORE_BYTES),
            _node_ip_address="127.0.0.1",
            _temp_dir=str(scratch),
        )
        import ray.data  # noqa: PLC0415

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def trivial(self) -> int:
        rows = self.ray.data.from_items([41]).map_batches(_add_one, batch_format="pyarrow")
        return int(rows.take_all()[0]["item"])

    def group_by(self, measures: Path, out: Path | None) -> pa.Table | None:
        from ray.data.aggregate import Count, Max, Min, Sum  # noqa: PLC0415

        aggregates: tuple[Any, ...] = (
            Sum("v", alias_name="total"),
            Count(alias_name="num"),
            Min("id", alias_name="first"),
            Max("v", alias_name="largest"),
        )
        return self._aggregated(measures, aggregates, out)

    def medians(self, measures: Path, out: Path | None) -> pa.Table | None:
        from ray.data.aggregate import Quantile  # noqa: PLC0415

        return self._aggregated(measures, (Quantile("v", q=0.5, alias_name="middle"),), out)

    def join(self, measures: Path, names: Path, out: Path) -> None:
        left, right = self._read(measures), self._read(names)
        joined = left.join(right, "inner", num_partitions=4 * self.num_cpus, on=("k",))
        self._written(joined, out)

    def sort(self, records: Path, out: Path) -> None:
        self._written(self._read(records).sort("k"), out)

    def map_rows(self, measures: Path) -> pa.Table:
        return self._table(self._read(measures).map(row_function))

    def map_batches(self, measures: Path) -> pa.Table:
        return self._table(self._read(measures).map_batches(batch_function, batch_format="pyarrow"))

    def tasks(self, items: pa.Table) -> pa.Table:
        rows = self.ray.data.from_arrow([items.slice(row, 1) for row in range(len(items))])
        return self._table(rows.map_batches(_add_one, batch_format="pyarrow"))

    def close(self) -> None:
        self.ray.shutdown()

    def _read(self, folder: Path) -> Any:
        return self.ray.data.read_parquet(str(folder))

    def _aggregated(
        self, measures: Path, aggregates: tuple[Any, ...], out: Path | None
    ) -> pa.Table | None:
        groups = self._read(measures).groupby("k", num_partitions=4 * self.num_cpus)
        result = groups.aggregate(*aggregates)
        if out is None:
            return self._table(result)
        self._written(result, out)
        return None

    def _table(self, dataset: Any) -> pa.Table:
        return pa.concat_tables(self.ray.get(dataset.to_arrow_refs()))

    def _written(self, dataset: Any, out: Path) -> None:
        dataset.write_parquet(str(out), compression="snappy")


def _add_one(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc  # noqa: PLC0415

    return pa.table({"item": pc.add(table["item"], 1)})
