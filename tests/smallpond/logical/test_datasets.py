"""Data sets by themselves: what they find, read and how they are divided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.errors import PlanError
from smallpond.logical.dataset import (
    ArrowTableDataSet,
    CsvDataSet,
    DataSet,
    FileSet,
    JsonDataSet,
    PandasDataSet,
    ParquetDataSet,
    PartitionedDataSet,
    SqlQueryDataSet,
)
from tests.smallpond.logical.oracle import query, rows


def test_paths(urls: Path) -> None:
    by_pattern = ParquetDataSet(["*.parquet"], root_dir=str(urls))
    by_folder = ParquetDataSet(str(urls))
    files = [str(urls / f"urls-{i}.parquet") for i in range(4)]
    assert by_pattern.resolved_paths == files
    assert by_folder.resolved_paths == files
    assert by_pattern.absolute_paths == [str(urls / "*.parquet")]
    assert by_pattern.num_files == 4
    by_pattern.reset([files[2]])
    assert by_pattern.resolved_paths == [files[2]]


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing-\*\.parquet"):
        _ = ParquetDataSet([str(tmp_path / "nothing-*.parquet")]).num_rows


def test_parquet_rows(urls: Path, table: pa.Table) -> None:
    dataset = ParquetDataSet([str(urls)])
    assert dataset.num_rows == 500
    assert not dataset.empty
    assert dataset.to_arrow_table().equals(table)
    assert dataset.to_batch_reader(33).read_all().equals(table)
    assert all(batch.num_rows <= 33 for batch in dataset.to_batch_reader(33))
    assert dataset.to_pandas().equals(table.to_pandas())
    con = duckdb.connect()
    fragment = dataset.sql_query_fragment(conn=con)
    assert con.execute(f"SELECT sum(id) FROM {fragment}").fetchall() == [(sum(range(500)),)]


def test_columns_and_generated_columns(urls: Path, table: pa.Table) -> None:
    dataset = ParquetDataSet([str(urls)], columns=["size", "id"])
    assert dataset.to_arrow_table().equals(table.select(["size", "id"]))
    assert dataset.to_batch_reader().read_all().equals(table.select(["size", "id"]))
    numbered = ParquetDataSet([str(urls)], generated_columns=["filename", "file_row_number"])
    made = numbered.to_arrow_table()
    assert set(made["filename"].to_pylist()) == set(numbered.resolved_paths)
    assert made["file_row_number"].to_pylist()[:101] == [*range(100), 0]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("method", ["partition_by_files", "partition_by_rows"])
def test_partitions_have_all_rows_once(
    urls: Path, table: pa.Table, method: str, shuffle: bool
) -> None:
    dataset = ParquetDataSet([str(urls)])
    for n in (1, 2, 3, 4, 5, 7, 99, 501):
        parts = getattr(dataset, method)(n, random_shuffle=shuffle)
        assert len(parts) == n
        tables = [part.to_arrow_table() for part in parts]
        assert [t.num_rows for t in tables] == [part.num_rows for part in parts]
        assert sorted(pa.concat_tables(tables)["id"].to_pylist()) == list(range(500))
        if method == "partition_by_rows":
            assert {part.num_rows for part in parts} <= {500 // n, -(-500 // n)}
        else:
            files = [path for part in parts for path in part.resolved_paths]
            assert sorted(files) == dataset.resolved_paths
        if not shuffle:
            assert pa.concat_tables(tables).equals(table)


def test_shuffled_files_are_in_another_order(urls: Path) -> None:
    [whole] = ParquetDataSet([str(urls)]).partition_by_files(1, random_shuffle=True)
    assert whole.resolved_paths != ParquetDataSet([str(urls)]).resolved_paths
    assert sorted(whole.resolved_paths) == ParquetDataSet([str(urls)]).resolved_paths


@pytest.mark.parametrize("share", [1, 3, 10, 1000])
def test_partition_by_size(urls: Path, table: pa.Table, share: int) -> None:
    dataset = ParquetDataSet([str(urls)])
    limit = -(-dataset.estimated_data_size // share)
    parts = dataset.partition_by_size(limit)
    assert pa.concat_tables([part.to_arrow_table() for part in parts]).equals(table)
    assert len(parts) <= share
    assert max(part.num_rows for part in parts) <= -(-500 // len(parts))


def test_a_partition_can_be_divided_again(urls: Path, table: pa.Table) -> None:
    outer = ParquetDataSet([str(urls)]).partition_by_rows(3)
    inner = [part for whole in outer for part in whole.partition_by_rows(4)]
    assert pa.concat_tables([part.to_arrow_table() for part in inner]).equals(table)
    assert pa.concat_tables([p.to_batch_reader(7).read_all() for p in inner]).equals(table)
    assert rows(DataSet.merge(inner)) == rows(table)
    con = duckdb.connect()
    texts = [part.sql_query_fragment(conn=con) for part in inner]
    assert sum(con.sql(f"FROM {text}").to_arrow_table().num_rows for text in texts) == 500


def test_create_from_and_remove_empty_files(tmp_path: Path, table: pa.Table) -> None:
    filled = ParquetDataSet.create_from(table, str(tmp_path), "filled")
    empty = ParquetDataSet.create_from(table.slice(0, 0), str(tmp_path), "empty")
    assert filled.to_arrow_table().equals(table)
    assert empty.empty
    both = DataSet.merge([empty, filled])
    assert isinstance(both, ParquetDataSet)
    both.remove_empty_files()
    assert both.resolved_paths == filled.resolved_paths


def test_csv_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1|x\n2|y\n")
    (tmp_path / "a.jsonl").write_text('{"n": 1, "s": "x"}\n{"n": 2, "s": "y"}\n')
    schema = {"n": "BIGINT", "s": "VARCHAR"}
    for dataset in (
        CsvDataSet([str(tmp_path / "a.csv")], schema, delim="|"),
        JsonDataSet([str(tmp_path / "a.jsonl")], schema),
    ):
        assert dataset.num_rows == 2
        assert rows(dataset) == [(1, "x"), (2, "y")]
        assert rows(DataSet.merge([dataset, dataset])) == [(1, "x")] * 2 + [(2, "y")] * 2
    narrow = CsvDataSet([str(tmp_path / "a.csv")], schema, delim="|", columns=["s"])
    assert rows(narrow) == [("x",), ("y",)]


def _built(conn: Any, _filesystem: Any) -> str:
    [(version,)] = conn.execute("SELECT version()").fetchall()
    return f"SELECT '{version}' AS version"


def test_tables_and_queries(table: pa.Table) -> None:
    con = duckdb.connect()
    datasets: list[tuple[Any, int]] = [
        (ArrowTableDataSet(table), 500),
        (PandasDataSet(table.to_pandas()), 500),
        (SqlQueryDataSet("SELECT range AS id FROM range(7)"), 7),
        (SqlQueryDataSet("", _built), 1),
    ]
    for dataset, count in datasets:
        assert dataset.num_rows == count
        assert not dataset.empty
        assert dataset.to_arrow_table().num_rows == count
        assert len(dataset.to_pandas()) == count
        assert dataset.to_batch_reader(100).read_all().num_rows == count
        fragment = dataset.sql_query_fragment(conn=con)
        assert con.execute(f"SELECT count(*) FROM {fragment}").fetchall() == [(count,)]
    parts = ArrowTableDataSet(table).partition_by_rows(7)
    assert pa.concat_tables([part.to_arrow_table() for part in parts]).equals(table)
    frames = PandasDataSet(table.to_pandas()).partition_by_rows(7)
    assert pd.concat([part.to_pandas() for part in frames]).equals(table.to_pandas())


def test_partitioned_datasets(urls: Path, table: pa.Table) -> None:
    parts = ParquetDataSet([str(urls)]).partition_by_rows(3)
    whole = PartitionedDataSet(parts)
    assert len(whole) == 3
    assert whole.num_rows == 500
    assert rows(whole) == rows(table)
    twice = DataSet.merge([whole, whole])
    assert isinstance(twice, PartitionedDataSet)
    assert [part.num_rows for part in twice.datasets] == [2 * part.num_rows for part in parts]


def test_file_sets(tmp_path: Path) -> None:
    for name in ("b.txt", "a.bin"):
        (tmp_path / name).write_text(name)
    dataset = FileSet([str(tmp_path)])
    assert [Path(path).name for path in dataset.resolved_paths] == ["a.bin", "b.txt"]
    assert [part.num_files for part in dataset.partition_by_files(3)] == [0, 1, 1]
    with pytest.raises(PlanError, match="not known to hold rows"):
        dataset.to_arrow_table()


@pytest.mark.parametrize("way", ["metadata", "folders", "column"])
def test_partitions_that_files_are_already(tmp_path: Path, way: str) -> None:
    for i, index in enumerate((2, 0, 2)):
        rows_of_one = pa.table({"part": [index] * 4, "n": [10 * i + k for k in range(4)]})
        folder = tmp_path / f"part={index}" if way == "folders" else tmp_path
        folder.mkdir(exist_ok=True)
        if way == "metadata":
            rows_of_one = rows_of_one.replace_schema_metadata({"SMALLPOND:part": str(index)})
        if way != "column":
            rows_of_one = rows_of_one.drop_columns(["part"])
        pq.write_table(rows_of_one, folder / f"{i}.parquet")
    dataset = ParquetDataSet([str(tmp_path)], recursive=way == "folders")
    parts = dataset.load_partitioned_datasets(4, "part", way == "folders")
    found = [sorted(p.to_arrow_table()["n"].to_pylist()) for p in parts]
    assert found == [[10, 11, 12, 13], [], [0, 1, 2, 3, 20, 21, 22, 23], []]
    with pytest.raises(PlanError, match="partition key 2 is out of range 0-1"):
        dataset.load_partitioned_datasets(2, "part")
    with pytest.raises(PlanError, match="does not say which partition"):
        dataset.load_partitioned_datasets(4, "other")


def _merge_of_kinds(folder: Path) -> None:
    DataSet.merge([ParquetDataSet([str(folder)]), FileSet([str(folder)])])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: ParquetDataSet([str(d)]).partition_by_rows(0), "at least 1, got 0"),
        (lambda d: ParquetDataSet([str(d)]).partition_by_files(-1), "at least 1, got -1"),
        (lambda d: ParquetDataSet([str(d)]).partition_by_size(0), "at least 1, got 0"),
        (_merge_of_kinds, "of one kind expected"),
        (lambda _: PartitionedDataSet([]), "at least one data set"),
        (lambda _: SqlQueryDataSet("SELECT 1").partition_by_files(2), "has no files"),
    ],
)
def test_mistakes(urls: Path, call: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        call(urls)


def test_oracle_tells_rows_apart(table: pa.Table) -> None:
    other = table.slice(1)
    assert rows(table) == query("SELECT * FROM t", t=table)
    assert rows(other) != query("SELECT * FROM t", t=table)
