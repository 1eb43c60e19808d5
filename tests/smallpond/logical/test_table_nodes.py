"""Queries and what else works on tables, against DuckDB on the whole data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from smallpond.engine import run as engine
from smallpond.errors import OutOfMemory, PlanError, SmallpondError
from smallpond.logical.dataset import (
    ArrowTableDataSet,
    JsonDataSet,
    PandasDataSet,
    ParquetDataSet,
    SqlQueryDataSet,
)
from smallpond.logical.node import (
    ArrowComputeNode,
    ConsolidateNode,
    Context,
    DataSetPartitionNode,
    DataSourceNode,
    EvenlyDistributedPartitionNode,
    HashPartitionNode,
    LimitNode,
    Node,
    ProjectionNode,
    RepeatPartitionNode,
    RootNode,
    SqlEngineNode,
)
from smallpond.task import Attempt
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import query, rows


def source(ctx: Context, urls: Path) -> DataSourceNode:
    return DataSourceNode(ctx, ParquetDataSet([str(urls)]))


def by_rows(ctx: Context, urls: Path, n: int) -> Node:
    return EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), n, partition_by_rows=True)


def test_a_chain_of_queries(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    hosts = HashPartitionNode(ctx, (source(ctx, urls),), 3, ["host"])
    filtered = SqlEngineNode(ctx, (hosts,), "SELECT host, size FROM {0} WHERE size > 100")
    summed = SqlEngineNode(
        ctx,
        (filtered,),
        "SELECT host, sum(size)::BIGINT AS s, count(*) AS c FROM {0} GROUP BY host",
    )
    first = ConsolidateNode(ctx, summed, [])
    node = SqlEngineNode(ctx, (first,), "SELECT * FROM {0} ORDER BY s DESC, host LIMIT 5")
    text = (
        "SELECT host, sum(size)::BIGINT AS s, count(*) AS c FROM t WHERE size > 100 "
        "GROUP BY host ORDER BY s DESC, host LIMIT 5"
    )
    assert rows(run(node).final_output) == query(text, t=table)


def test_a_join_of_partitions(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    sides = [
        HashPartitionNode(ctx, (source(ctx, urls),), 4, ["host"], drop_partition_column=True)
        for _ in range(2)
    ]
    node = SqlEngineNode(
        ctx, sides, "SELECT a.id, count(*) AS c FROM {0} a JOIN {1} b USING (host) GROUP BY a.id"
    )
    text = "SELECT a.id, count(*) FROM t a JOIN t b USING (host) GROUP BY a.id"
    assert rows(run(node).final_output) == query(text, t=table)


def test_all_placeholders(run: Run, ctx: Context, urls: Path) -> None:
    repeated = RepeatPartitionNode(ctx, (source(ctx, urls),), 2, "copy")
    parts = EvenlyDistributedPartitionNode(ctx, (repeated,), 3, nested=True, partition_by_rows=True)
    node = SqlEngineNode(
        ctx,
        (parts,),
        "SELECT {copy} AS copy, {__data_partition__} AS part, {batch_index} AS batch, "
        "{query_index} AS query, {rand_seed} AS seed, {cpu_limit} AS cpus, "
        "{memory_limit} AS memory, '{output_filename}' AS name, {{'x': count(*)}} AS s FROM {0}",
    )
    found = run(node).final_output.to_arrow_table().to_pylist()
    assert sorted((row["copy"], row["part"]) for row in found) == [
        (copy, part) for copy in range(2) for part in range(3)
    ]
    assert {(row["batch"], row["query"], row["cpus"]) for row in found} == {(0, 0, 1)}
    assert all(row["memory"] > 1 << 20 for row in found)
    assert len({row["seed"] for row in found}) == 6
    assert len({row["name"] for row in found}) == 6
    assert sum(row["s"]["x"] for row in found) == 1000


def test_several_statements(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    node = SqlEngineNode(
        ctx,
        (by_rows(ctx, urls, 3),),
        [
            "CREATE TABLE big AS SELECT * FROM {0} WHERE size > 500",
            "SET VARIABLE part = {__data_partition__}",
            "SELECT id, getvariable('part') AS part, {query_index} AS q FROM big",
            "SELECT id, getvariable('part') AS part, {query_index} AS q FROM {0} WHERE size < 5;",
        ],
    )
    text = (
        "SELECT id, p, 2 FROM t, range(3) r(p) WHERE size > 500 AND id * 3 // 500 = p UNION ALL "
        "SELECT id, p, 3 FROM t, range(3) r(p) WHERE size < 5 AND id * 3 // 500 = p"
    )
    # Which partition a row is in: the bounds are those of equal numbers of rows.
    bounds = [500 * i // 3 for i in range(4)]
    text = text.replace("id * 3 // 500", f"(id >= {bounds[1]})::INT + (id >= {bounds[2]})::INT")
    assert rows(run(node).final_output) == query(text, t=table)


def test_statements_see_all_columns(run: Run, ctx: Context, urls: Path) -> None:
    hosts = HashPartitionNode(ctx, (source(ctx, urls),), 2, ["host"])
    node = SqlEngineNode(
        ctx,
        (hosts,),
        ["CREATE TEMP TABLE few AS SELECT * FROM {0} WHERE size >= 0", "SELECT count(id) FROM few"],
    )
    assert sum(count for (count,) in rows(run(node).final_output)) == 500 - len(range(0, 500, 11))


def test_what_statements_set_does_not_stay(run: Run, ctx: Context) -> None:
    first = SqlEngineNode(
        ctx, (), ["CREATE TABLE mine AS SELECT 1 AS a", "SELECT * FROM mine"], output_name="first"
    )
    second = SqlEngineNode(
        ctx, (first,), "SELECT count(*) AS c FROM duckdb_tables(), {0} WHERE table_name = 'mine'"
    )
    assert rows(run(second).final_output) == [(0,)]


def lacking_memory(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """Queries of `SqlEngineNode` lack memory until they run in so many passes."""
    real = engine.run

    def needy(attempt: Attempt, instance: Any) -> Any:
        if attempt.passes < passes and "SqlEngineNode" in attempt.task.name:
            raise OutOfMemory("not enough")
        return real(attempt, instance)

    monkeypatch.setattr(engine, "run", needy)


@pytest.mark.parametrize("passes", [1, 4, 16])
def test_batched_processing(
    run: Run, ctx: Context, urls: Path, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    lacking_memory(monkeypatch, passes)
    parts = by_rows(ctx, urls, 2)
    counted = SqlEngineNode(
        ctx, (parts,), "SELECT list(id) AS ids, {batch_index} AS batch, '{{x}}' AS x FROM {0}",
        batched_processing=True, per_thread_output=False, materialize_in_memory=True,
    )  # fmt: skip
    above = SqlEngineNode(
        ctx, (counted,), "SELECT *, {__data_partition__} AS part FROM {0} WHERE len(ids) > 0"
    )
    found = run(above).final_output.to_arrow_table().to_pylist()
    assert sorted(i for row in found for i in row["ids"]) == list(range(500))
    batches = [(row["part"], row["batch"]) for row in found]
    assert sorted(batches) == [(part, batch) for part in range(2) for batch in range(passes)]
    assert {row["x"] for row in found} == {"{x}"}


@pytest.mark.parametrize("case", ["not said", "two inputs", "statements"])
def test_what_does_not_come_in_batches(
    run: Run, ctx: Context, urls: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    lacking_memory(monkeypatch, 4)
    inputs, query_text = (
        [by_rows(ctx, urls, 2)],
        "SELECT count(*) AS c, {batch_index} AS b FROM {0}",
    )
    if case == "two inputs":
        inputs.append(source(ctx, urls))
        query_text += ", (SELECT * FROM {1} LIMIT 1)"
    queries = [query_text]
    if case == "statements":
        queries = ["CREATE TEMP TABLE t AS FROM {0}", query_text.replace("{0}", "t")]
    node = SqlEngineNode(ctx, inputs, queries, batched_processing=case != "not said")
    assert rows(run(node).final_output) == [(250, 0), (250, 0)]


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("limit", [0, 3, 130, 9999])
def test_limit(run: Run, ctx: Context, urls: Path, n: int, limit: int) -> None:
    parts = DataSetPartitionNode(ctx, (source(ctx, urls),), n, partition_by_rows=True)
    few = LimitNode(ctx, parts, limit)
    node = SqlEngineNode(ctx, (few,), "SELECT id + 1 AS id FROM {0}")
    found = run(node).final_output.to_arrow_table()["id"].to_pylist()
    assert sorted(found) == list(range(1, min(limit, 500) + 1))


def test_projection(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    whole = source(ctx, urls)
    parts = DataSetPartitionNode(ctx, (source(ctx, urls),), 3)
    computed = SqlEngineNode(ctx, (parts,), "SELECT *, 1 AS one FROM {0}")

    def named(name: str, node: Node) -> Node:
        return SqlEngineNode(ctx, (node,), "SELECT * FROM {0}", output_name=name)

    plan = run(
        RootNode(
            ctx,
            [
                named("columns", ProjectionNode(ctx, whole, ["size", "id"])),
                named("computed", ProjectionNode(ctx, computed, ["one", "id"])),
                named("generated", ProjectionNode(ctx, whole, ["id"], ["filename"])),
                named(
                    "of_files",
                    ProjectionNode(ctx, parts, ["id"], ["filename", "file_row_number"]),
                ),
            ],
        )
    )
    found = {name: dataset.to_arrow_table() for name, dataset in plan.named_outputs.items()}
    assert rows(found["columns"]) == rows(table.select(["size", "id"]))
    assert found["computed"].column_names == ["one", "id"]
    assert sorted(found["computed"]["id"].to_pylist()) == list(range(500))
    files = [*[0] * 100, *[1] * 250, 2, *[3] * 149]
    names = [str(urls / f"urls-{i}.parquet") for i in files]
    assert rows(found["generated"]) == sorted(zip(range(500), names, strict=True), key=repr)
    numbers = [*range(100), *range(250), 0, *range(149)]
    expected = sorted(zip(range(500), names, numbers, strict=True), key=repr)
    assert rows(found["of_files"]) == expected


def test_generated_columns_need_files(run: Run, ctx: Context, urls: Path) -> None:
    computed = SqlEngineNode(ctx, (source(ctx, urls),), "SELECT * FROM {0}")
    node = ProjectionNode(ctx, computed, None, ["filename"])
    with pytest.raises(PlanError, match=r"ProjectionNode-2: .* those of SqlEngineNode-1 are"):
        run(node)


def test_every_data_set_as_a_source(
    run: Run, ctx: Context, tmp_path: Path, table: pa.Table
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id": {i}}}\n' for i in range(500)))
    datasets = {
        "arrow": ArrowTableDataSet(table),
        "pandas": PandasDataSet(table.to_pandas()),
        "json": JsonDataSet([str(path)], {"id": "BIGINT"}),
        "query": SqlQueryDataSet("SELECT range AS id FROM range(500)"),
    }
    nodes = []
    for name, dataset in datasets.items():
        parts = DataSetPartitionNode(
            ctx, (DataSourceNode(ctx, dataset),), 3, partition_by_rows=True
        )
        text = "SELECT sum(id)::BIGINT AS s, count(*) AS c FROM {0}"
        nodes.append(SqlEngineNode(ctx, (parts,), text, output_name=name))
    plan = run(RootNode(ctx, nodes))
    for name in datasets:
        found = rows(plan.named_outputs[name])
        assert len(found) == 3
        assert (sum(s for s, _ in found), sum(c for _, c in found)) == (sum(range(500)), 500)


def test_a_node_read_twice_is_computed_once(run: Run, ctx: Context, urls: Path) -> None:
    drawn = SqlEngineNode(ctx, (source(ctx, urls),), "SELECT id, random() AS r FROM {0}")
    left, right = (SqlEngineNode(ctx, (drawn,), "SELECT * FROM {0}") for _ in range(2))
    node = SqlEngineNode(
        ctx, (left, right), "SELECT count(*) AS c FROM {0} a JOIN {1} b USING (id, r)"
    )
    assert rows(run(node).final_output) == [(500,)]


def test_class_defaults(
    run: Run, ctx: Context, urls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlEngineNode, "default_cpu_limit", 2)
    monkeypatch.setattr(SqlEngineNode, "default_memory_limit", 1 << 30)
    monkeypatch.setattr(HashPartitionNode, "default_data_partition_column", "bucket")
    hosts = HashPartitionNode(ctx, (source(ctx, urls),), 2, ["host"])
    node = SqlEngineNode(
        ctx,
        (hosts,),
        "SELECT {bucket} AS b, {cpu_limit} AS c, {memory_limit} AS m, bucket FROM {0}",
    )
    found = set(rows(run(node).final_output))
    assert found == {(0, 2, 1 << 30, 0), (1, 2, 1 << 30, 1)}


# ---- mistakes


@pytest.mark.parametrize(
    ("query_text", "message"),
    [
        ("SELEC 1", r"SqlEngineNode-0: .*syntax error(?s:.*)SELEC 1"),
        ("SELECT 1; SELECT 2", "one statement expected, got 2"),
        (["CREATE TABLE t AS SELECT 1"], "at least one SELECT expected"),
        (["SELECT 1", "SET threads = 1"], "must come first"),
        ([], "at least one SELECT expected"),
    ],
)
def test_statements_that_make_no_sense(ctx: Context, query_text: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        SqlEngineNode(ctx, (), query_text)


def test_a_query_that_does_not_fit(run: Run, ctx: Context, urls: Path) -> None:
    node = SqlEngineNode(ctx, (by_rows(ctx, urls, 2),), "SELECT nothing FROM {0}")
    with pytest.raises(SmallpondError, match=r'SqlEngineNode-2: .*"nothing"(?s:.*)SELECT nothing'):
        run(node)


def test_a_statement_that_does_not_fit(run: Run, ctx: Context) -> None:
    node = SqlEngineNode(ctx, (), ["CREATE TABLE t AS SELECT nothing", "SELECT 1"])
    with pytest.raises(SmallpondError, match=r'SqlEngineNode-0: .*"nothing"(?s:.*)CREATE TABLE'):
        run(node)


def test_arguments(ctx: Context, urls: Path) -> None:
    with pytest.raises(PlanError, match=r"SqlEngineNode-0: unknown keyword 'cpus'"):
        SqlEngineNode(ctx, (), "SELECT 1", cpus=2)
    with pytest.raises(PlanError, match=r"LimitNode-3: limit must not be negative"):
        LimitNode(ctx, SqlEngineNode(ctx, (source(ctx, urls),), "SELECT 1"), -1)
    with pytest.raises(PlanError, match=r"belongs to another Context"):
        SqlEngineNode(Context(), (source(ctx, urls),), "SELECT 1")
    with pytest.raises(PlanError, match=r"input_deps takes nodes"):
        ArrowComputeNode(ctx, ("x",))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"a data set expected"):
        DataSourceNode(ctx, "x")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"memory_limit must be positive, got -5"):
        SqlEngineNode(ctx, (), "SELECT 1", memory_limit=-5)
    with pytest.raises(PlanError, match=r"output_name: a letter or digit"):
        SqlEngineNode(ctx, (), "SELECT 1", output_name="../x")
