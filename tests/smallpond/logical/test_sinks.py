"""Where results go, and what is left when a plan has run."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.errors import PlanError, SmallpondError
from smallpond.execution.scheduler import Scheduler
from smallpond.execution.task import RuntimeContext
from smallpond.logical.dataset import CsvDataSet, DataSet, FileSet, ParquetDataSet
from smallpond.logical.node import (
    ArrowComputeNode,
    Context,
    DataSinkNode,
    DataSourceNode,
    EvenlyDistributedPartitionNode,
    LogicalPlan,
    Node,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
)
from smallpond.logical.planner import Planner
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import rows

BEGAN = datetime(2026, 1, 2)  # noqa: DTZ001 (of no place)


def source(ctx: Context, urls: Path) -> DataSourceNode:
    return DataSourceNode(ctx, ParquetDataSet([str(urls)]))


def thirds(ctx: Context, urls: Path) -> Node:
    return EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), 3, partition_by_rows=True)


def listed(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", ["link", "copy", "link_or_copy", "manifest"])
def test_computed_rows(
    run: Run, ctx: Context, urls: Path, table: pa.Table, tmp_path: Path, kind: Any
) -> None:
    node = SqlEngineNode(ctx, (thirds(ctx, urls),), "SELECT * FROM {0}")
    plan = run(DataSinkNode(ctx, (node,), str(tmp_path / "out"), type=kind))
    assert rows(plan.final_output) == rows(table)
    assert plan.final_output_path == str(tmp_path / "out")
    names = (tmp_path / "out" / ".MANIFEST.txt").read_text().split()
    assert names == plan.final_output.resolved_paths
    inside = [] if kind == "manifest" else [f"DataSinkNode-0000{i}.parquet" for i in range(3)]
    assert listed(tmp_path / "out") == [".MANIFEST.txt", *inside]


def test_ranges_of_rows_are_written_once(
    run: Run, ctx: Context, urls: Path, table: pa.Table, tmp_path: Path
) -> None:
    run(DataSinkNode(ctx, (thirds(ctx, urls),), str(tmp_path / "out")))
    assert rows(ParquetDataSet([str(tmp_path / "out")])) == rows(table)


@pytest.mark.parametrize("kind", ["link", "copy"])
def test_whole_files_stay_what_they_are(
    run: Run, ctx: Context, urls: Path, tmp_path: Path, kind: Any
) -> None:
    run(DataSinkNode(ctx, (source(ctx, urls),), str(tmp_path / "out"), type=kind))
    files = [f"urls-{i}.parquet" for i in range(4)]
    assert listed(tmp_path / "out") == [".MANIFEST.txt", *files]
    for name in files:
        made, own = tmp_path / "out" / name, urls / name
        assert made.read_bytes() == own.read_bytes()
        assert made.samefile(own) == (kind == "link")


def test_csv_becomes_parquet(run: Run, ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,x\n2,y\n")
    csv = CsvDataSet([str(tmp_path / "a.csv")], {"n": "BIGINT", "s": "VARCHAR"})
    run(DataSinkNode(ctx, (DataSourceNode(ctx, csv),), str(tmp_path / "out")))
    assert rows(ParquetDataSet([str(tmp_path / "out")])) == [(1, "x"), (2, "y")]


def _scripted(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    (Path(output) / "inner").mkdir()
    (Path(output) / "inner" / "note.txt").write_text(
        str(runtime_ctx.task.partition_infos_as_dict["__data_partition__"])
    )
    return True


def test_files_of_scripts_keep_their_names(
    run: Run, ctx: Context, urls: Path, tmp_path: Path
) -> None:
    node = PythonScriptNode(ctx, (thirds(ctx, urls),), process_func=_scripted)
    plan = run(DataSinkNode(ctx, (node,), str(tmp_path / "out"), type="copy"))
    assert isinstance(plan.final_output, FileSet)
    names = ["inner/note-1.txt", "inner/note-2.txt", "inner/note.txt"]
    assert listed(tmp_path / "out") == [".MANIFEST.txt", *names]
    texts = [(tmp_path / "out" / name).read_text() for name in names]
    assert texts == ["1", "2", "0"]


def test_several_sinks(run: Run, ctx: Context, urls: Path, table: pa.Table, tmp_path: Path) -> None:
    odd, even = (
        SqlEngineNode(ctx, (thirds(ctx, urls),), f"SELECT * FROM {{0}} WHERE id % 2 = {i}")
        for i in (1, 0)
    )
    plan = run(
        RootNode(
            ctx,
            [
                DataSinkNode(ctx, (odd,), str(tmp_path / "odd")),
                DataSinkNode(ctx, (odd, even), str(tmp_path / "all")),
            ],
        )
    )
    assert rows(ParquetDataSet([str(tmp_path / "all")])) == rows(table)
    assert plan.final_output.num_rows == 750
    assert plan.logical_plan.numbers[odd.label].tasks == 3


def test_an_earlier_result_is_replaced_and_nothing_else(
    run: Run, ctx: Context, urls: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for count in (3, 2):
        inner = Context()
        few = SqlEngineNode(inner, (source(inner, urls),), f"SELECT * FROM {{0}} LIMIT {count}")
        run(DataSinkNode(inner, (few,), str(tmp_path / "out")))
        assert ParquetDataSet([str(tmp_path / "out")]).num_rows == count
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds data already"):
        run(DataSinkNode(ctx, (source(ctx, urls),), str(tmp_path / "mine")))
    assert listed(tmp_path / "mine") == ["notes.txt"]


def _fails(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    raise ValueError("no")


def test_nothing_is_left_of_a_failed_plan(
    run: Run, ctx: Context, urls: Path, tmp_path: Path
) -> None:
    fails = ArrowComputeNode(ctx, (thirds(ctx, urls),), process_func=_fails)
    with pytest.raises(SmallpondError, match="ValueError: no"):
        run(DataSinkNode(ctx, (fails,), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_named_results(run: Run, ctx: Context, urls: Path, table: pa.Table, tmp_path: Path) -> None:
    first = SqlEngineNode(
        ctx, (thirds(ctx, urls),), "SELECT * FROM {0}", output_name="first",
        parquet_row_group_size=2048, parquet_compression="SNAPPY",
    )  # fmt: skip
    second = SqlEngineNode(
        ctx, (first,), "SELECT id FROM {0}", output_path=str(tmp_path / "second")
    )
    plan = run(second, manifest_only_final_results=False, output_path=str(tmp_path / "final"))
    found = plan.get_output("first")
    assert found is not None
    assert rows(found) == rows(table)
    job = tmp_path / "jobs" / "2026-01-02-00-00-00.job"
    assert [Path(p).parent for p in found.resolved_paths] == [job / "output" / "first"] * 3
    column = pq.read_metadata(found.resolved_paths[0]).row_group(0).column(0)
    assert column.compression == "SNAPPY"
    assert (
        pq.read_metadata(found.resolved_paths[2]).metadata[b"SMALLPOND:__data_partition__"] == b"2"
    )
    assert rows(ParquetDataSet([str(tmp_path / "second")])) == rows(table.select(["id"]))
    assert rows(ParquetDataSet([str(tmp_path / "final")])) == rows(table.select(["id"]))
    assert plan.final_output_path == str(tmp_path / "final")
    assert plan.get_output("other") is None
    # What tasks have handed on to one another is gone, results have no second name.
    assert not list(job.rglob("*.arrow"))


def test_empty_files_can_be_left_out(run: Run, ctx: Context, urls: Path) -> None:
    node = SqlEngineNode(ctx, (thirds(ctx, urls),), "SELECT * FROM {0} WHERE id < 10")
    assert run(node).final_output.num_files == 3
    again = Context()
    node = SqlEngineNode(again, (thirds(again, urls),), "SELECT * FROM {0} WHERE id < 10")
    plan = run(node, remove_empty_parquet=True)
    assert plan.final_output.num_files == 1
    assert plan.final_output.num_rows == 10


def test_a_plan_step_by_step(ctx: Context, urls: Path, tmp_path: Path, executor: Any) -> None:
    node = SqlEngineNode(ctx, (thirds(ctx, urls),), "SELECT id FROM {0}", output_name="ids")
    runtime_ctx = RuntimeContext("job", BEGAN, str(tmp_path), env_overrides={"SP_TEST": "1"})
    exec_plan = Planner(runtime_ctx).create_exec_plan(LogicalPlan(ctx, node))
    assert not exec_plan.successful
    assert len(exec_plan.tasks) >= 3
    assert all(not task.needs for task in exec_plan.leaves)
    scheduler = Scheduler(exec_plan, max_retry_count=3)
    assert scheduler.run()
    assert scheduler.success
    assert exec_plan.successful
    assert exec_plan.final_output.num_rows == 500
    assert "SP_TEST" not in os.environ
    with pytest.raises(PlanError, match="no task runs here"):
        _ = runtime_ctx.task


def _counts_calls(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    calls = Path(runtime_ctx.data_root) / "calls"
    with calls.open("a") as file:
        file.write("x")
    if tables[0].num_rows == 250 and not (calls.parent / "go").exists():
        deadline = time.monotonic() + 30  # until another has been finished
        while not list(calls.parent.glob("*/output/*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise ValueError("not yet")
    return tables[0]


def test_a_failed_job_is_taken_up(run: Run, ctx: Context, urls: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()

    def plan(inner: Context) -> Node:
        files = EvenlyDistributedPartitionNode(inner, (source(inner, urls),), 4)
        return ArrowComputeNode(inner, (files,), process_func=_counts_calls)

    with pytest.raises(SmallpondError, match="not yet"):
        run(plan(ctx))
    before = len((tmp_path / "jobs" / "calls").read_text())
    (tmp_path / "jobs" / "go").touch()
    assert run(plan(Context())).final_output.num_rows == 500
    after = len((tmp_path / "jobs" / "calls").read_text()) - before
    assert after < 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c, n: DataSinkNode(c, n, "x", type="move"), "type must be 'link', 'copy'"),
        (lambda _, n: LogicalPlan(Context(), n[0]), "belongs to another Context"),
    ],
)
def test_arguments(ctx: Context, urls: Path, make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make(ctx, (source(ctx, urls),))
