"""Nodes whose subclasses make their own tasks, as programs written for the original have them."""

# ruff: noqa: ARG002 (what process() is called with is given)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.errors import InjectedFault, PlanError, SmallpondError
from smallpond.execution.task import (
    ArrowBatchTask,
    ArrowComputeTask,
    ArrowStreamTask,
    PandasBatchTask,
    PandasComputeTask,
    PartitionInfo,
    PythonScriptTask,
    RuntimeContext,
    Task,
)
from smallpond.logical.dataset import DataSet, ParquetDataSet
from smallpond.logical.node import (
    ArrowBatchNode,
    ArrowComputeNode,
    ArrowStreamNode,
    Context,
    DataSetPartitionNode,
    DataSourceNode,
    HashPartitionNode,
    Node,
    PandasBatchNode,
    PandasComputeNode,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
)
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import rows


def parts(ctx: Context, urls: Path, n: int) -> Node:
    source = DataSourceNode(ctx, ParquetDataSet([str(urls)]))
    return DataSetPartitionNode(ctx, (source,), n, partition_by_rows=True)


class ScaledTask(ArrowComputeTask):
    """Has an attribute that its node sets."""

    factor = 1

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        assert runtime_ctx.task is self
        [part] = self.partition_infos
        assert part == PartitionInfo(part.index, 2, "__data_partition__")
        assert self.partition_infos_as_dict == {"__data_partition__": part.index}
        assert self.cpu_limit >= 1
        if self.retry_count == 0 and part.index == 1:
            raise InjectedFault("the first time")
        return pa.table({"n": [self.factor * input_tables[0].num_rows], "part": [part.index]})


class Scaled(ArrowComputeNode):
    """Makes tasks of its own, and tells them something."""

    def __init__(self, ctx: Context, deps: tuple[Node, ...], factor: int, **kwargs: Any) -> None:
        super().__init__(ctx, deps, **kwargs)
        self.factor = factor

    def spawn(self, *args: Any, **kwargs: Any) -> ScaledTask:
        task = ScaledTask(*args, **kwargs)
        task.factor = self.factor
        return task


class Numbering(ArrowBatchNode):
    """Its tasks remember, from batch to batch, what they have seen."""

    class Numbered(ArrowBatchTask):
        """Made with a constructor of its own."""

        def __init__(self, *args: Any, first: int, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.next = first

        def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
            begin, self.next = self.next, self.next + input_tables[0].num_rows
            return pa.table({"begin": [begin]})

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return self.Numbered(*args, first=1000, **kwargs)


class Scripted(PythonScriptNode):
    """Writes a file by a task."""

    class Writing(PythonScriptTask):
        """Knows where."""

        def process(
            self,
            runtime_ctx: RuntimeContext,
            input_datasets: list[DataSet],
            output_path: str,
        ) -> bool:
            assert output_path == self.runtime_output_abspath
            made = pa.table({"n": [input_datasets[0].num_rows]})
            pq.write_table(made, f"{output_path}/{self.output_filename}.parquet")
            return True

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return self.Writing(*args, **kwargs)


class Streamed(ArrowStreamNode):
    """A task that is a generator."""

    class Streaming(ArrowStreamTask):
        """One row for each batch."""

        def process(
            self,
            runtime_ctx: RuntimeContext,
            input_readers: list[pa.RecordBatchReader],
        ) -> Iterator[pa.Table]:
            for batch in input_readers[0]:
                yield pa.table({"n": [batch.num_rows]})

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return self.Streaming(*args, **kwargs)


class Framed(PandasComputeNode):
    """Of frames."""

    class Framing(PandasComputeTask):
        """Whole partitions."""

        def process(
            self,
            runtime_ctx: RuntimeContext,
            input_dfs: list[pd.DataFrame],
        ) -> pd.DataFrame:
            return pd.DataFrame({"n": [len(input_dfs[0])]})

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return self.Framing(*args, **kwargs)


class FramedBatches(PandasBatchNode):
    """Keeps the default task, and looks at it."""

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.DataFrame({"n": [len(input_dfs[0])], "seen": [runtime_ctx.task.seen]})  # type: ignore[attr-defined]

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        task = super().spawn(*args, **kwargs)
        assert isinstance(task, PandasBatchTask)
        vars(task)["seen"] = "yes"
        return task


def _halved(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    return pa.table({"n": [tables[0].num_rows // 2]})


class WithFunction(ArrowComputeNode):
    """Passes a given function on to its tasks."""

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return ArrowComputeTask(*args, **kwargs)


def test_every_kind(run: Run, ctx: Context, urls: Path) -> None:
    two = parts(ctx, urls, 2)
    nodes = [
        Scaled(ctx, (two,), 3, output_name="scaled"),
        Numbering(ctx, (two,), streaming_batch_size=100, output_name="numbered"),
        Scripted(ctx, (two,), output_name="scripted"),
        Streamed(ctx, (two,), streaming_batch_size=200, output_name="streamed"),
        Framed(ctx, (two,), output_name="framed"),
        FramedBatches(ctx, (two,), streaming_batch_size=240, output_name="batches"),
        WithFunction(ctx, (two,), process_func=_halved, output_name="given"),
    ]
    plan = run(RootNode(ctx, nodes))
    found = {name: rows(dataset) for name, dataset in plan.named_outputs.items()}
    assert found == {
        "scaled": [(750, 0), (750, 1)],
        "numbered": sorted([(1000,), (1100,), (1200,)] * 2),
        "scripted": [(250,)] * 2,
        "streamed": sorted([(200,), (50,)] * 2, key=repr),
        "framed": [(250,)] * 2,
        "batches": sorted([(240, "yes"), (10, "yes")] * 2, key=repr),
        "given": [(125,)] * 2,
    }


def test_a_class_of_one_function_travels(run: Run, ctx: Context, urls: Path) -> None:
    offset = 7

    class Local(ArrowComputeNode):
        """Known in this test alone."""

        class Added(ArrowComputeTask):
            """As its node."""

            def process(
                self,
                runtime_ctx: RuntimeContext,
                input_tables: list[pa.Table],
            ) -> pa.Table:
                return pa.table({"n": [offset + input_tables[0].num_rows]})

        def spawn(self, *args: Any, **kwargs: Any) -> Task:
            return self.Added(*args, **kwargs)

    hosts = HashPartitionNode(ctx, (parts(ctx, urls, 2),), 3, ["host"])
    counted = SqlEngineNode(ctx, (Local(ctx, (hosts,)),), "SELECT n - 7 AS n FROM {0}")
    assert sum(n for (n,) in rows(run(counted).final_output)) == 500


# ---- mistakes


class Wrong(ArrowComputeNode):
    """Makes a task of another kind."""

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return PandasComputeTask(*args, **kwargs)


class Idle(ArrowStreamNode):
    """Makes a task that does nothing."""

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        return ArrowStreamTask(*args, **kwargs)


def test_tasks_that_cannot_be(run: Run, ctx: Context, urls: Path) -> None:
    two = parts(ctx, urls, 2)
    message = r"Wrong\.spawn must return a ArrowComputeTask .*, got PandasComputeTask"
    with pytest.raises(SmallpondError, match=message):
        run(Wrong(ctx, (two,)))
    with pytest.raises(SmallpondError, match=r"ArrowStreamTask: process_func= or process\(\)"):
        run(Idle(ctx, (two,)))


def test_what_nobody_would_call(ctx: Context) -> None:
    with pytest.raises(PlanError, match=r"Own: run\(\) of a task is not called; override proc"):

        class Own(ArrowComputeTask):
            """Overrides what the original's scheduler calls."""

            def run(self) -> bool:
                return True

    class Sql(SqlEngineNode):
        """There is no function whose task it could be."""

        def spawn(self) -> None:
            """As programs for the original may have it."""

    with pytest.raises(PlanError, match=r"Sql-0: spawn\(\) is not called.*override process\(\)"):
        Sql(ctx, (), "SELECT 1")

    class Planned(ArrowComputeNode):
        """Takes part in the original's planning."""

        def create_task(self) -> None:
            """As programs for the original may have it."""

    with pytest.raises(PlanError, match=r"Planned-1: create_task\(\) is not called"):
        Planned(ctx, ())
