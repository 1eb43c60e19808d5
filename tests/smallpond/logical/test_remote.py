"""Nodes whose data, hand-off files and results lie in an object store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.execution.manager import JobManager
from smallpond.execution.task import RuntimeContext
from smallpond.logical.dataset import DataSet, ParquetDataSet
from smallpond.logical.node import (
    Context,
    DataSetPartitionNode,
    DataSinkNode,
    DataSourceNode,
    HashPartitionNode,
    LogicalPlan,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
)


def _counted(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    counted = pa.table({"n": [inputs[0].to_arrow_table().num_rows]})
    pq.write_table(counted, Path(output) / "counted.parquet")
    return True


@pytest.fixture
def bucket(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """An address that this process and its workers can reach without options."""
    monkeypatch.setenv("FSSPEC_S3", json.dumps(s3))
    monkeypatch.setitem(fsspec.config.conf, "s3", s3)
    return "s3://data/nodes"


def test_everything_in_a_bucket(ctx: Context, bucket: str, table: pa.Table) -> None:
    dataset = ParquetDataSet.create_from(table, f"{bucket}/in")
    assert dataset.num_rows == 500
    source = DataSourceNode(ctx, dataset)
    parts = DataSetPartitionNode(ctx, (source,), 3, partition_by_rows=True)
    hosts = HashPartitionNode(ctx, (source,), 2, ["host"])
    ids = SqlEngineNode(ctx, (hosts,), "SELECT id FROM {0}")
    scripts = [
        PythonScriptNode(ctx, (node,), process_func=_counted, output_name=name)
        for node, name in ((parts, "files"), (ids, "rows"))
    ]
    sinks = [
        DataSinkNode(ctx, scripts, f"{bucket}/copied", type="copy"),
        DataSinkNode(ctx, scripts, f"{bucket}/listed", type="manifest"),
    ]
    plan = JobManager(f"{bucket}/jobs").run(LogicalPlan(ctx, RootNode(ctx, sinks)))
    assert sum(plan.final_output.to_arrow_table()["n"].to_pylist()) == 2 * 1000
    assert ParquetDataSet([f"{bucket}/copied"]).num_rows == 5
    files = plan.get_output("files")
    assert files is not None
    assert sorted(files.to_arrow_table()["n"].to_pylist()) == [166, 167, 167]
