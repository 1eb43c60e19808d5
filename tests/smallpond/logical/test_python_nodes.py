"""Python functions over partitions, in every form that they come in."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.contrib.copy_table import CopyArrowTable, StreamCopy
from smallpond.contrib.log_dataset import LogDataSet
from smallpond.errors import InjectedFault, PlanError, SmallpondError
from smallpond.execution.task import RuntimeContext, StreamOutput
from smallpond.logical.dataset import ArrowTableDataSet, DataSet, ParquetDataSet
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
from smallpond.logical.udf import (
    UDFAnyParameters,
    UDFListType,
    UDFMapType,
    UDFStructType,
    UDFType,
    udf,
)
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import query, rows

PER_HOST = "SELECT host, sum(size)::BIGINT AS s FROM t GROUP BY host"


def source(ctx: Context, urls: Path) -> DataSourceNode:
    return DataSourceNode(ctx, ParquetDataSet([str(urls)]))


def _per_host(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    made = tables[0].group_by("host").aggregate([("size", "sum")])
    return made.select(["host", "size_sum"])


def _per_host_frame(runtime_ctx: RuntimeContext, frames: list[pd.DataFrame]) -> pd.DataFrame:
    made = frames[0].groupby("host", as_index=False)["size"].sum(min_count=1)
    return made.astype({"size": "Int64"})


def _counted(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    return pa.table({"n": [tables[0].num_rows]})


def _counted_frame(runtime_ctx: RuntimeContext, frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame({"n": [len(frames[0])]})


def _stream(
    runtime_ctx: RuntimeContext, readers: list[pa.RecordBatchReader]
) -> Iterator[StreamOutput]:
    for i, batch in enumerate(readers[0]):
        yield StreamOutput(pa.table({"n": [batch.num_rows]}), [i], force_checkpoint=True)


def _scaled(
    runtime_ctx: RuntimeContext, tables: list[pa.Table], factor: int, *, name: str
) -> pa.Table:
    return pa.table({name: [factor * tables[0].num_rows]})


class Biggest(ArrowComputeNode):
    """The largest sizes of each partition."""

    def __init__(self, ctx: Context, deps: tuple[Node, ...], count: int, **kwargs: Any) -> None:
        super().__init__(ctx, deps, **kwargs)
        self.count = count

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:  # noqa: ARG002
        return input_tables[0].sort_by([("size", "descending")]).select(["size"])[: self.count]


class Lengths(PandasBatchNode):
    """Rows of each batch, by a method."""

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:  # noqa: ARG002
        return pd.DataFrame({"n": [len(input_dfs[0])]})


def test_every_kind(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    hosts = HashPartitionNode(ctx, (source(ctx, urls),), 2, ["host"], drop_partition_column=True)
    whole = source(ctx, urls)
    offset = 7

    class Local(ArrowStreamNode):
        """Known in this function alone, so that it travels as a whole."""

        def process(self, runtime_ctx: RuntimeContext, input_readers: Any) -> Iterator[pa.Table]:  # noqa: ARG002
            yield pa.table({"n": [offset + input_readers[0].read_all().num_rows]})

    plan = run(
        RootNode(
            ctx,
            [
                Local(ctx, (whole,), output_name="local"),
                ArrowComputeNode(ctx, (hosts,), process_func=_per_host, output_name="arrow"),
                PandasComputeNode(
                    ctx, (hosts,), process_func=_per_host_frame, output_name="pandas"
                ),
                ArrowBatchNode(
                    ctx, (whole,), process_func=_counted, streaming_batch_size=150,
                    output_name="batches",
                ),
                PandasBatchNode(
                    ctx, (whole,), process_func=_counted_frame, streaming_batch_size=150,
                    output_name="frames",
                ),
                ArrowStreamNode(
                    ctx, (whole,), process_func=_stream, streaming_batch_size=150,
                    output_name="stream",
                ),
                ArrowComputeNode(
                    ctx, (whole,), process_func=functools.partial(_scaled, factor=3, name="x"),
                    output_name="partial",
                ),
                Biggest(ctx, (whole,), 3, output_name="biggest"),
                Lengths(ctx, (whole,), streaming_batch_size=499, output_name="lengths"),
                CopyArrowTable(ctx, (whole,), output_name="copied"),
                StreamCopy(ctx, (whole,), output_name="copied_stream"),
                SqlEngineNode(ctx, (LogDataSet(ctx, (whole,)),), "SELECT 1", output_name="logged"),
            ],
        )
    )  # fmt: skip
    found = {name: rows(dataset) for name, dataset in plan.named_outputs.items()}
    biggest = "SELECT size FROM t WHERE size IS NOT NULL ORDER BY size DESC LIMIT 3"
    assert found == {
        "local": [(507,)],
        "arrow": query(PER_HOST, t=table),
        "pandas": query(PER_HOST, t=table),
        "batches": [(150,), (150,), (150,), (50,)],
        "frames": [(150,), (150,), (150,), (50,)],
        "stream": [(150,), (150,), (150,), (50,)],
        "partial": [(1500,)],
        "biggest": query(biggest, t=table),
        "lengths": [(1,), (499,)],
        "copied": rows(table),
        "copied_stream": rows(table),
        "logged": [(1,)],
    }


def _side_by_side(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    return pa.table({"left": [tables[0].num_rows], "right": [tables[1].num_rows]})


def test_inputs_of_different_length(run: Run, ctx: Context, urls: Path) -> None:
    long = DataSetPartitionNode(ctx, (source(ctx, urls),), 2, partition_by_rows=True)
    few = DataSourceNode(ctx, ArrowTableDataSet(pa.table({"k": list(range(130))})))
    short = DataSetPartitionNode(ctx, (few,), 2, partition_by_rows=True)
    plan = run(
        RootNode(
            ctx,
            [
                ArrowBatchNode(
                    ctx, (long, short), process_func=_side_by_side, streaming_batch_size=100,
                    output_name="batches",
                ),
                ArrowComputeNode(
                    ctx, (long, few), process_func=_side_by_side, output_name="broadcast"
                ),
            ],
        )
    )  # fmt: skip
    found = {name: rows(dataset) for name, dataset in plan.named_outputs.items()}
    assert found == {
        "batches": sorted([(100, 65), (100, 0), (50, 0)] * 2, key=repr),
        "broadcast": [(250, 130)] * 2,
    }


def _script(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    task = runtime_ctx.task
    part, count = task.get_partition_info("__data_partition__")
    assert count == 3
    table = inputs[0].to_arrow_table()
    assert inputs[0].num_rows == table.num_rows
    pq.write_table(
        pa.table(
            {
                "part": [part],
                "rows": [table.num_rows],
                "read": [sum(pq.read_metadata(p).num_rows > 0 for p in inputs[0].resolved_paths)],
                "cpus": [task.cpu_limit],
                "drawn": [task.python_random_gen.random() + task.numpy_random_gen.random()],
            }
        ),
        Path(output) / f"{task.output_filename}.parquet",
    )
    task.perf_metrics["rows"] = table.num_rows
    assert task.add_elapsed_time("secs") >= 0
    assert task.local_gpu_ranks == []
    assert task.runtime_output_abspath == output
    assert task.memory_limit > 0
    return True


def _with_sql(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    import duckdb  # noqa: PLC0415

    con = duckdb.connect()
    runtime_ctx.task.prepare_connection(con)
    names = runtime_ctx.task.create_input_views(con, inputs)
    con.execute(f"COPY (SELECT count(*) AS c FROM {names[0]}) TO '{output}/c.parquet'").fetchall()
    return True


def test_scripts(run: Run, ctx: Context, urls: Path) -> None:
    files = DataSetPartitionNode(ctx, (source(ctx, urls),), 3)
    from_files = PythonScriptNode(ctx, (files,), process_func=_script, output_name="files")
    computed = SqlEngineNode(ctx, (files,), "SELECT id FROM {0} WHERE id % 2 = 0")
    of_rows = PythonScriptNode(ctx, (computed,), process_func=_script, output_name="rows")
    # What a script has written is read like any other rows.
    read = SqlEngineNode(ctx, (of_rows,), "SELECT part + {__data_partition__} AS p FROM {0}")
    counted = PythonScriptNode(ctx, (read,), process_func=_with_sql, output_name="counted")
    plan = run(RootNode(ctx, (from_files, counted, read)), random_seed=5)
    first = plan.get_output("files")
    second = plan.get_output("rows")
    third = plan.get_output("counted")
    assert first is not None
    assert second is not None
    assert third is not None
    found = sorted(first.to_arrow_table().to_pylist(), key=lambda row: row["part"])
    assert [(row["rows"], row["read"]) for row in found] == [(100, 1), (250, 1), (150, 2)]
    assert len({row["drawn"] for row in found}) == 3
    halves = sorted(second.to_arrow_table().to_pylist(), key=lambda row: row["part"])
    assert [row["rows"] for row in halves] == [50, 125, 75]
    assert rows(third) == [(1,)] * 3


def test_a_script_without_inputs(run: Run, ctx: Context) -> None:
    nothing = DataSetPartitionNode(ctx, (DataSourceNode(ctx, None),), 3, partition_by_rows=True)
    node = PythonScriptNode(ctx, (nothing,), process_func=_written)
    paths = run(node).final_output.resolved_paths
    assert sorted(Path(path).read_text() for path in paths) == ["0", "1", "2"]


def _written(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    part = runtime_ctx.task.partition_infos_as_dict["__data_partition__"]
    (Path(output) / "text").write_text(str(part))
    return True


def test_functions_in_queries(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    @udf(params=[UDFType.BIGINT], return_type=UDFType.BIGINT)
    def twice(n: int) -> int:
        return 2 * n

    def halves(n: Any) -> Any:
        import pyarrow.compute as pc  # noqa: PLC0415

        return pc.divide(n, 2)

    names = [
        ctx.create_function("halves", halves, [UDFType.BIGINT], UDFType.BIGINT, True),
        ctx.create_function(
            "letters", lambda s: list(s[:2]), [UDFType.VARCHAR], UDFListType(UDFType.VARCHAR)
        ),
        ctx.create_function(
            "pair", lambda n: {"a": n, "b": str(n)}, [UDFType.BIGINT],
            UDFStructType({"a": UDFType.BIGINT, "b": UDFType.VARCHAR}),
        ),
        ctx.create_function(
            "counts", lambda s: {"key": [s], "value": [len(s)]}, [UDFType.VARCHAR],
            UDFMapType(UDFType.VARCHAR, UDFType.BIGINT),
        ),
        ctx.create_function("many", lambda *a: len(a), UDFAnyParameters(), UDFType.INTEGER),
    ]  # fmt: skip
    node = SqlEngineNode(
        ctx,
        (source(ctx, urls),),
        "SELECT id, twice(id) AS t, halves(id) AS h, letters(host) AS l, pair(id).b AS p, "
        "map_values(counts(host))[1] AS c, many(id, host, 1) AS m FROM {0} WHERE id < 50",
        udfs=[twice, *names],
    )
    expected = [
        (n, 2 * n, n // 2, list(host[:2]), str(n), len(host), 3)
        for n, host in zip(range(50), table["host"].to_pylist(), strict=False)
    ]
    assert rows(run(node).final_output) == sorted(expected, key=repr)


def test_modules_of_functions(run: Run, ctx: Context, tmp_path: Path) -> None:
    module = tmp_path / "more.py"
    module.write_text(
        "def register(con):\n"
        "    con.create_function('thrice', lambda n: 3 * n, ['BIGINT'], 'BIGINT')\n"
    )
    node = SqlEngineNode(ctx, (), "SELECT thrice(14) AS n", udf_module_paths=[str(module)])
    assert rows(run(node).final_output) == [(42,)]


# ---- faults and mistakes


def _faulty(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    task = runtime_ctx.task
    task.inject_fault()
    if task.retry_count == 0 and task.partition_infos_as_dict["__data_partition__"] == 3:
        raise InjectedFault("the first time")
    return tables[0]


def test_injected_faults(run: Run, ctx: Context, table: pa.Table) -> None:
    rows_in = DataSourceNode(ctx, ArrowTableDataSet(table))
    parts = DataSetPartitionNode(ctx, (rows_in,), 8, partition_by_rows=True)
    faulty = ArrowComputeNode(ctx, (parts,), process_func=_faulty)
    hosts = HashPartitionNode(ctx, (faulty,), 3, ["host"])
    summed = SqlEngineNode(ctx, (hosts,), "SELECT host, sum(size)::BIGINT FROM {0} GROUP BY host")
    plan = run(summed, fault_inject_prob=0.1)
    assert rows(plan.final_output) == query(PER_HOST, t=table)
    assert sum(numbers.retries for numbers in plan.logical_plan.numbers.values()) > 0


def _broken(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    return tables[0].column("no such column")


def _false(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    return False


def _number(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> Any:
    return 7


@pytest.mark.parametrize(
    ("kind", "function", "message"),
    [
        (ArrowComputeNode, _broken, r"ArrowComputeNode-1: _broken raised\n.*no such column"),
        (PythonScriptNode, _false, r"PythonScriptNode-1: _false did not return True"),
        (PandasComputeNode, _number, r"PandasComputeNode-1: _number must return .* got int"),
    ],
)
def test_functions_that_fail(
    run: Run, ctx: Context, urls: Path, kind: Any, function: Any, message: str
) -> None:
    with pytest.raises(SmallpondError, match=f"(?s){message}"):
        run(kind(ctx, (source(ctx, urls),), process_func=function))


def test_no_function(run: Run, ctx: Context, urls: Path) -> None:
    with pytest.raises(PlanError, match=r"ArrowStreamNode-1: process_func= or a subclass"):
        run(ArrowStreamNode(ctx, (source(ctx, urls),)))


def test_what_cannot_travel(run: Run, ctx: Context, urls: Path) -> None:
    lines = (urls / "urls-0.parquet").open("rb")
    with lines, pytest.raises(PlanError, match="Can't pickle task"):
        run(ArrowComputeNode(ctx, (source(ctx, urls),), process_func=lambda *_: lines.read()))


def test_an_unknown_function(ctx: Context) -> None:
    with pytest.raises(PlanError, match=r"SqlEngineNode-0: no function 'f'"):
        SqlEngineNode(ctx, (), "SELECT f(1)", udfs=["f"])


def test_a_node_travels_without_iterators() -> None:
    """Python 3.14 cannot pickle those of itertools any more."""
    ctx = Context()
    node = CopyArrowTable(ctx, (DataSourceNode(ctx, ArrowTableDataSet(pa.table({"a": [1]}))),))
    assert b"itertools" not in pickle.dumps(node.slim_copy())
