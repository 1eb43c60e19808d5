"""Names from the original's module of odds and ends."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

import smallpond.utility
from smallpond.logical.dataset import ParquetDataSet
from smallpond.logical.node import Context, DataSetPartitionNode, DataSinkNode, DataSourceNode
from smallpond.utility import overall_stats
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import query, rows


@pytest.mark.parametrize("folder", [None, "out"])
def test_overall_stats(
    run: Run, ctx: Context, urls: Path, table: pa.Table, tmp_path: Path, folder: str | None
) -> None:
    source = DataSourceNode(ctx, ParquetDataSet([str(urls)]))
    parts = DataSetPartitionNode(ctx, (source,), 3, partition_by_rows=True)
    node = overall_stats(
        ctx,
        (parts,),
        "SELECT count(*) AS c, max(size) AS m FROM {0}",
        "SELECT sum(c)::BIGINT AS c, max(m) AS m, count(*) AS parts FROM {0}",
        "stats",
        folder and str(tmp_path / folder),
        cpu_limit=1,
    )
    plan = run(node)
    expected = query("SELECT count(*), max(size), 3 FROM t", t=table)
    assert rows(plan.final_output) == expected
    assert isinstance(node, DataSinkNode) == (folder is not None)
    if folder is not None:
        assert rows(ParquetDataSet([str(tmp_path / folder)])) == expected


def test_what_is_left_out() -> None:
    with pytest.raises(ImportError, match="to loguru: messages here are records of Python's"):
        from smallpond.utility import InterceptHandler  # noqa: F401, PLC0415
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = smallpond.utility.nothing
    assert "loguru" not in sys.modules
