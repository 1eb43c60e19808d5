"""Partitions: every row in exactly one of them, and in the right one."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from smallpond.errors import PlanError, SmallpondError
from smallpond.execution.task import RuntimeContext
from smallpond.logical.dataset import (
    ArrowTableDataSet,
    CsvDataSet,
    DataSet,
    FileSet,
    ParquetDataSet,
    PartitionedDataSet,
)
from smallpond.logical.node import (
    ConsolidateNode,
    Context,
    DataSetPartitionNode,
    DataSourceNode,
    EvenlyDistributedPartitionNode,
    HashPartitionNode,
    LoadPartitionedDataSetNode,
    LogicalPlan,
    Node,
    PythonScriptNode,
    RangePartitionNode,
    RepeatPartitionNode,
    RootNode,
    ShuffleNode,
    SqlEngineNode,
    UnionNode,
    UserDefinedPartitionNode,
    UserPartitionedDataSourceNode,
)
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import query, rows

WHERE = "SELECT *, {__data_partition__} AS part FROM {0}"


def source(ctx: Context, urls: Path) -> DataSourceNode:
    return DataSourceNode(ctx, ParquetDataSet([str(urls)]))


def placed(run: Run, node: Node, dimension: str = "__data_partition__") -> dict[int, list[int]]:
    """The ids in each partition."""
    text = "SELECT id, {" + dimension + "} AS part FROM {0}"
    plan = run(SqlEngineNode(node.context, (node,), text))
    table = plan.final_output.to_arrow_table()
    found: dict[int, list[int]] = {}
    for row in table.to_pylist():
        found.setdefault(row["part"], []).append(row["id"])
    return {part: sorted(ids) for part, ids in sorted(found.items())}


def all_ids(parts: dict[int, list[int]]) -> list[int]:
    return sorted(i for ids in parts.values() for i in ids)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_by_files(run: Run, ctx: Context, urls: Path, n: int) -> None:
    node = EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), n)
    parts = placed(run, node)
    assert all_ids(parts) == list(range(500))
    files = [range(100), range(100, 350), range(350, 351), range(351, 500)]
    for ids in parts.values():
        assert set(ids) == {i for file in files if set(file) & set(ids) for i in file}


@pytest.mark.parametrize("n", [1, 3, 7, 50])
def test_by_rows(run: Run, ctx: Context, urls: Path, n: int) -> None:
    node = EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), n, partition_by_rows=True)
    parts = placed(run, node)
    assert all_ids(parts) == list(range(500))
    assert [len(ids) for ids in parts.values()] == [
        500 * (i + 1) // n - 500 * i // n for i in range(n)
    ]
    assert parts[n - 1][-1] == 499


@pytest.mark.parametrize("by_rows", [False, True])
def test_shuffled_files(run: Run, ctx: Context, urls: Path, by_rows: bool) -> None:
    node = EvenlyDistributedPartitionNode(
        ctx, (source(ctx, urls),), 2, partition_by_rows=by_rows, random_shuffle=True
    )
    parts = placed(run, node)
    assert all_ids(parts) == list(range(500))
    assert parts[0] != list(range(len(parts[0])))


@pytest.mark.parametrize("engine_type", ["duckdb", "arrow"])
def test_by_hash(run: Run, ctx: Context, urls: Path, table: pa.Table, engine_type: Any) -> None:
    node = HashPartitionNode(
        ctx, (source(ctx, urls),), 5, hash_columns=["host"], engine_type=engine_type
    )
    kept = run(SqlEngineNode(ctx, (node,), WHERE)).final_output.to_arrow_table()
    assert kept["__data_partition__"].equals(kept["part"].cast(pa.int64()))
    assert rows(kept.drop_columns(["part", "__data_partition__"])) == rows(table)
    pairs = kept.select(["host", "part"]).to_pylist()
    assert len({(p["host"], p["part"]) for p in pairs}) == len({p["host"] for p in pairs})
    assert len({p["part"] for p in pairs}) > 2


def test_the_number_can_be_dropped_or_renamed(run: Run, ctx: Context, urls: Path) -> None:
    dropped = HashPartitionNode(
        ctx, (source(ctx, urls),), 3, hash_columns=["id"], drop_partition_column=True
    )
    assert run(dropped).final_output.to_arrow_table().column_names == ["id", "host", "size"]
    other = Context()
    renamed = HashPartitionNode(other, (source(other, urls),), 3, ["id"], "bucket")
    text = "SELECT DISTINCT bucket = {bucket} AS same FROM {0}"
    assert rows(run(SqlEngineNode(other, (renamed,), text)).final_output) == [(True,)] * 3


def test_by_two_columns_with_nulls(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    node = HashPartitionNode(ctx, (source(ctx, urls),), 4, hash_columns=["host", "size"])
    text = "SELECT host, size, count(*) FROM {0} GROUP BY ALL"
    found = rows(run(SqlEngineNode(ctx, (node,), text)).final_output)
    assert found == query("SELECT host, size, count(*) FROM t GROUP BY ALL", t=table)


def test_at_random(run: Run, ctx: Context, urls: Path) -> None:
    node = HashPartitionNode(ctx, (source(ctx, urls),), 3, random_shuffle=True)
    parts = placed(run, node)
    assert all_ids(parts) == list(range(500))
    assert all(100 < len(ids) < 250 for ids in parts.values())
    again = Context()
    same = HashPartitionNode(again, (source(again, urls),), 3, random_shuffle=True)
    assert placed(run, same, "__data_partition__") == parts


@pytest.mark.parametrize("engine_type", ["duckdb", "arrow"])
def test_by_column(run: Run, ctx: Context, urls: Path, engine_type: Any) -> None:
    numbered = SqlEngineNode(ctx, (source(ctx, urls),), "SELECT *, id % 7 AS bucket FROM {0}")
    node = ShuffleNode(ctx, (numbered,), 7, "bucket", engine_type=engine_type)
    assert placed(run, node, "bucket") == {i: list(range(i, 500, 7)) for i in range(7)}


def test_by_expression(run: Run, ctx: Context, urls: Path) -> None:
    node = ShuffleNode(ctx, (source(ctx, urls),), 10, "id % 10")
    assert placed(run, node) == {i: list(range(i, 500, 10)) for i in range(10)}


def test_a_key_out_of_range(run: Run, ctx: Context, urls: Path) -> None:
    node = ShuffleNode(ctx, (source(ctx, urls),), 10, "id % 11")
    with pytest.raises(
        SmallpondError, match=r"ShuffleNode-1.*partition key 10 is out of range 0-9"
    ):
        run(node)


@pytest.mark.parametrize(
    ("column", "points"),
    [("id", [100, 101, 450]), ("host", ["host12.org", "host3.org"]), ("size", [10.5]), ("id", [])],
)
def test_by_range(
    run: Run, ctx: Context, urls: Path, table: pa.Table, column: str, points: list[Any]
) -> None:
    node = RangePartitionNode(ctx, (source(ctx, urls),), points, by=column)
    expected: dict[int, list[int]] = {}
    for row in table.to_pylist():
        key = row[column]
        part = len(points) if key is None else sum(point <= key for point in points)
        expected.setdefault(part, []).append(row["id"])
    assert node.num_partitions == len(points) + 1
    assert placed(run, node) == dict(sorted(expected.items()))


POINTS = {
    "days": ("DATE '2026-01-01' + id::INT", date(2026, 3, 1)),
    "times": ("TIMESTAMP '2026-01-01' + INTERVAL 1 HOUR * id", datetime(2026, 1, 3, 4)),  # noqa: DTZ001
    "decimals": ("id::DECIMAL(9, 2) / 10", Decimal("5.2")),
    "texts": ("'it''s ' || id % 10", "it's 3"),
    "bytes": ("('\\xFF' || chr((48 + id % 10)::INT))::BLOB", b"\xff3"),
    "booleans": ("id % 3 = 0", True),
}


@pytest.mark.parametrize("kind", POINTS)
def test_by_range_of_an_expression(
    run: Run, ctx: Context, urls: Path, table: pa.Table, kind: str
) -> None:
    by, point = POINTS[kind]
    node = RangePartitionNode(ctx, (source(ctx, urls),), [point], by=by)
    con = duckdb.connect()
    con.register("t", table)
    above = con.execute(f"SELECT id FROM t WHERE ({by}) >= $1 ORDER BY id", [point]).fetchall()
    assert 100 < len(above) < 460
    assert placed(run, node)[1] == [i for (i,) in above]


def test_the_column_can_be_dropped(run: Run, ctx: Context, urls: Path) -> None:
    numbered = SqlEngineNode(ctx, (source(ctx, urls),), 'SELECT *, id % 3 AS "order" FROM {0}')
    node = HashPartitionNode(
        ctx, (numbered,), 3, None, "order", shuffle_only=True, drop_partition_column=True
    )
    text = "SELECT *, {order} AS part FROM {0}"
    found = run(SqlEngineNode(ctx, (node,), text)).final_output.to_arrow_table()
    assert found.column_names == ["id", "host", "size", "part"]
    assert all(row["id"] % 3 == row["part"] for row in found.to_pylist())
    assert found.num_rows == 500


def test_nested(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    hosts = HashPartitionNode(ctx, (source(ctx, urls),), 3, ["host"], dimension="hosts")
    both = EvenlyDistributedPartitionNode(
        ctx, (hosts,), 2, dimension="halves", nested=True, partition_by_rows=True
    )
    assert both.num_partitions == 6
    counted = SqlEngineNode(
        ctx, (both,), "SELECT {hosts} AS h, {halves} AS i, count(*) AS c FROM {0}"
    )
    # The inner dimension goes, the outer one stays.
    outer = ConsolidateNode(ctx, counted, ["hosts"])
    summed = SqlEngineNode(ctx, (outer,), "SELECT {hosts} AS h, sum(c)::BIGINT AS c FROM {0}")
    # An input of fewer dimensions meets each partition that agrees in those.
    joined = SqlEngineNode(
        ctx, (both, summed), "SELECT id, h, c FROM {0}, {1}", output_name="joined"
    )
    plan = run(RootNode(ctx, (counted, joined)))
    found = plan.get_output("joined")
    assert found is not None
    pairs = found.to_arrow_table()
    assert sorted(pairs["id"].to_pylist()) == list(range(500))
    sizes = {row["h"]: row["c"] for row in pairs.to_pylist()}
    assert sum(sizes.values()) == 500
    per_host = pairs.group_by("h").aggregate([("id", "count")]).to_pylist()
    assert {row["h"]: row["id_count"] for row in per_host} == sizes


def test_a_broadcast_input_is_computed_once(run: Run, ctx: Context, urls: Path) -> None:
    parts = EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), 5, partition_by_rows=True)
    one = SqlEngineNode(ctx, (source(ctx, urls),), "SELECT max(id) AS m, random() AS r FROM {0}")
    node = SqlEngineNode(ctx, (parts, one), "SELECT count(*) AS c, any_value(r) AS r FROM {0}, {1}")
    plan = run(node)
    found = plan.final_output.to_arrow_table()
    assert found["c"].to_pylist() == [100] * 5
    assert len(set(found["r"].to_pylist())) == 1
    assert plan.logical_plan.numbers[one.label].tasks == 1


def test_repeated(run: Run, ctx: Context, urls: Path) -> None:
    node = RepeatPartitionNode(ctx, (source(ctx, urls),), 3, "copies")
    assert placed(run, node, "copies") == {i: list(range(500)) for i in range(3)}


class ByParity(UserDefinedPartitionNode):
    """Even files and odd files; a partition of its own for rows of the first one."""

    def partition(self, runtime_ctx: RuntimeContext, dataset: DataSet) -> list[DataSet]:
        assert runtime_ctx.task.partition_infos_as_dict == {}
        assert isinstance(dataset, ParquetDataSet)
        files = dataset.partition_by_files(dataset.num_files)
        first = files[0].partition_by_rows(2)
        tables = ArrowTableDataSet(files[2].to_arrow_table())
        return [DataSet.merge([first[0], files[1]]), first[1], DataSet.merge([tables]), files[3]]


def test_user_defined(run: Run, ctx: Context, urls: Path) -> None:
    node = ByParity(ctx, (source(ctx, urls),), 4, dimension="mine")
    assert placed(run, node, "mine") == {
        0: [*range(50), *range(100, 350)],
        1: list(range(50, 100)),
        2: [350],
        3: list(range(351, 500)),
    }


class TooFew(UserDefinedPartitionNode):
    """Forgets a partition."""

    def partition(self, runtime_ctx: RuntimeContext, dataset: DataSet) -> list[DataSet]:  # noqa: ARG002
        return [dataset]


def test_user_defined_of_computed_rows(run: Run, ctx: Context, urls: Path) -> None:
    computed = SqlEngineNode(ctx, (source(ctx, urls),), "SELECT id FROM {0} WHERE id < 20")
    with pytest.raises(SmallpondError, match=r"must return 2 data sets, .* got 1"):
        run(TooFew(ctx, (computed,), 2))
    other = Context()
    alone = SqlEngineNode(other, (source(other, urls),), "SELECT id FROM {0} WHERE id < 20")
    assert placed(run, TooFew(other, (alone,), 1)) == {0: list(range(20))}


def test_user_partitioned_source(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    parts = [
        ParquetDataSet([str(urls / "urls-3.parquet")]),
        ArrowTableDataSet(table.slice(0, 5)),
    ]
    node = UserPartitionedDataSourceNode(ctx, parts)
    assert placed(run, node) == {0: list(range(351, 500)), 1: list(range(5))}
    other = Context()
    same = DataSourceNode(other, PartitionedDataSet(parts))
    assert placed(run, same) == {0: list(range(351, 500)), 1: list(range(5))}


@pytest.mark.parametrize("hive", [False, True])
def test_named_partitions_can_be_loaded(
    run: Run, ctx: Context, urls: Path, tmp_path: Path, hive: bool
) -> None:
    node = HashPartitionNode(
        ctx, (source(ctx, urls),), 4, ["host"], "bucket", hive_partitioning=hive,
        output_path=str(tmp_path / "kept"),
    )  # fmt: skip
    parts = placed(run, node, "bucket")
    assert all_ids(parts) == list(range(500))
    other = Context()
    files = ParquetDataSet([str(tmp_path / "kept")], recursive=hive)
    loaded = LoadPartitionedDataSetNode(
        other, (DataSourceNode(other, files),), 4, data_partition_column="bucket",
        hive_partitioning=hive,
    )  # fmt: skip
    assert placed(run, loaded, "bucket") == parts


def test_loading_meets_hashing(run: Run, ctx: Context, urls: Path, tmp_path: Path) -> None:
    for i in range(3):
        pq.write_table(pa.table({"k": [i, i], "v": [i, 10 * i]}), tmp_path / f"{i}.parquet")
    files = DataSourceNode(ctx, ParquetDataSet([str(tmp_path)]))
    loaded = DataSetPartitionNode(ctx, (files,), 3, data_partition_column="k")
    shuffled = ShuffleNode(ctx, (source(ctx, urls),), 3, "id % 3", dimension="k")
    node = SqlEngineNode(ctx, (loaded, shuffled), "SELECT v, count(*) FROM {0}, {1} GROUP BY v")
    expected = [(0, 334), (1, 167), (10, 167), (2, 166), (20, 166)]
    assert rows(run(node).final_output) == sorted(expected, key=repr)


def test_partitions_of_other_formats(run: Run, ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{i}\n" for i in range(30)))
    csv = DataSourceNode(ctx, CsvDataSet([str(tmp_path / "a.csv")], {"id": "BIGINT"}))
    node = DataSetPartitionNode(ctx, (csv,), 4, partition_by_rows=True)
    parts = placed(run, node)
    assert all_ids(parts) == list(range(30))
    assert {len(ids) for ids in parts.values()} == {7, 8}


def _names(runtime_ctx: RuntimeContext, inputs: list[DataSet], output: str) -> bool:
    name = Path(output) / f"{runtime_ctx.task.partition_infos_as_dict['__data_partition__']}.txt"
    assert inputs[0].empty == (not inputs[0].resolved_paths)
    name.write_text(" ".join(Path(path).name for path in inputs[0].resolved_paths))
    return True


def test_files_of_any_kind(run: Run, ctx: Context, tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.bin").write_bytes(bytes(i))
    files = DataSourceNode(ctx, FileSet([str(tmp_path / "*.bin")]))
    parts = DataSetPartitionNode(ctx, (files,), 2)
    named = PythonScriptNode(ctx, (parts,), process_func=_names, output_name="named")
    # Files that a script has made are divided like others.
    again = EvenlyDistributedPartitionNode(ctx, (named,), 3)
    last = PythonScriptNode(ctx, (again,), process_func=_names)
    plan = run(last)
    first = plan.get_output("named")
    assert first is not None
    assert [Path(p).read_text() for p in first.resolved_paths] == [
        "0.bin 1.bin",
        "2.bin 3.bin 4.bin",
    ]
    assert sorted(Path(p).read_text() for p in plan.final_output.resolved_paths) == [
        "", "0.txt", "1.txt",
    ]  # fmt: skip


def test_union(run: Run, ctx: Context, urls: Path, table: pa.Table) -> None:
    parts = [
        EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), 3, partition_by_rows=True)
        for _ in range(2)
    ]
    plain = source(ctx, urls)
    matched = SqlEngineNode(
        ctx, (UnionNode(ctx, parts),), "SELECT count(*) AS c FROM {0}", output_name="matched"
    )
    # Of inputs that do not match, each row still comes once.
    mixed = SqlEngineNode(
        ctx, (UnionNode(ctx, (parts[0], plain)),), "SELECT count(*) AS c FROM {0}",
        output_name="mixed",
    )  # fmt: skip
    files = UnionNode(ctx, (plain, source(ctx, urls)))
    halves = SqlEngineNode(
        ctx, (EvenlyDistributedPartitionNode(ctx, (files,), 2),), "SELECT sum(id)::BIGINT FROM {0}",
        output_name="halves",
    )  # fmt: skip
    plan = run(RootNode(ctx, (matched, mixed, halves)))
    found = {name: rows(dataset) for name, dataset in plan.named_outputs.items()}
    total = pc.sum(table["id"]).as_py()
    assert found == {
        "matched": [(332,), (334,), (334,)],
        "mixed": [(1000,)],
        "halves": [(total,), (total,)],
    }


# ---- mistakes


def test_no_partitions(ctx: Context, urls: Path) -> None:
    with pytest.raises(
        PlanError, match=r"HashPartitionNode-1: npartitions must be at least 1, got 0"
    ):
        HashPartitionNode(ctx, (source(ctx, urls),), 0, ["id"])


def test_partitions_that_do_not_match(ctx: Context, urls: Path) -> None:
    sides = [EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), n) for n in (2, 3)]
    node = SqlEngineNode(ctx, sides, "SELECT 1 FROM {0}, {1}")
    with pytest.raises(PlanError, match=r"SqlEngineNode-4: .* 2 and 3 partitions .*do not match"):
        LogicalPlan(ctx, node)


def test_a_dimension_twice(ctx: Context, urls: Path) -> None:
    outer = EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), 2)
    inner = EvenlyDistributedPartitionNode(ctx, (outer,), 2, nested=True)
    with pytest.raises(PlanError, match="needs a dimension= of its own"):
        LogicalPlan(ctx, inner)


def test_an_unknown_dimension(ctx: Context, urls: Path) -> None:
    outer = EvenlyDistributedPartitionNode(ctx, (source(ctx, urls),), 2, dimension="a")
    with pytest.raises(PlanError, match=r"ConsolidateNode-2: no dimension 'b' .*\['a'\]"):
        ConsolidateNode(ctx, outer, ["b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c, s: HashPartitionNode(c, s, 2), "hash_columns must name"),
        (lambda c, s: HashPartitionNode(c, s, 2, ["a"], engine_type="x"), "'duckdb' or 'arrow'"),
        (lambda c, s: RangePartitionNode(c, s, [2, 1], by="id"), "must ascend"),
        (lambda c, s: RangePartitionNode(c, s, [1.5, math.nan], by="id"), "must ascend"),
        (lambda c, s: RangePartitionNode(c, s, [1, "a"], by="id"), "must be of one type"),
        (lambda c, s: RangePartitionNode(c, s, [None], by="id"), "of type NoneType is not supp"),
        (lambda c, s: RepeatPartitionNode(c, s, 2, "a b"), "must be an identifier"),
    ],
)
def test_arguments(ctx: Context, urls: Path, make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make(ctx, (source(ctx, urls),))
