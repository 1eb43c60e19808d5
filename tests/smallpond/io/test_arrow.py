"""Ranges of rows in Parquet files, and values in files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond import common
from smallpond.errors import PlanError
from smallpond.io import arrow, filesystem


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "n": list(range(100)),
            "s": [str(i) for i in range(100)],
            "l": [["x"] * (i % 3) for i in range(100)],
        }
    )


@pytest.fixture
def path(tmp_path: Path, table: pa.Table) -> str:
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    return str(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 100), (0, 0), (29, 31), (30, 60), (95, 100), (1, 99)]
)
@pytest.mark.parametrize("columns", [None, ["s", "n"]])
def test_ranges(
    path: str, table: pa.Table, begin: int, end: int, columns: list[str] | None
) -> None:
    part = arrow.row_range(path, begin, end)
    assert (part.num_rows, part.file_num_rows) == (end - begin, 100)
    expected = table.slice(begin, end - begin)
    expected = expected if columns is None else expected.select(columns)
    assert arrow.load_from_parquet_files([part], columns).equals(expected)
    for size in (7, 1000):
        reader = arrow.build_batch_reader_from_files([part], columns=columns, batch_size=size)
        batches = list(reader)
        assert all(0 < batch.num_rows <= size for batch in batches)
        assert pa.Table.from_batches(batches, expected.schema).equals(expected)


def test_ranges_are_divided_evenly(path: str) -> None:
    parts = [arrow.row_range(path, 10, 20), arrow.row_range(path, 50, 73)]
    divided = arrow.RowRange.partition_by_rows(parts, 4)
    assert [sum(p.num_rows for p in group) for group in divided] == [8, 8, 8, 9]
    found = [i for group in divided for p in group for i in range(p.begin, p.end)]
    assert found == [*range(10, 20), *range(50, 73)]
    assert parts[0].take(3) == arrow.row_range(path, 10, 13)
    assert parts[0].take(99) == parts[0]


def test_small_batches_for_wide_rows(path: str) -> None:
    size = arrow.row_range(path).data_size
    reader = arrow.build_batch_reader_from_files([path], max_batch_byte_size=size // 10)
    assert max(batch.num_rows for batch in reader) <= 11


def test_files_of_different_types(tmp_path: Path, path: str) -> None:
    pq.write_table(pa.table({"n": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(PlanError, match="the files' types differ"):
        arrow.load_from_parquet_files([path, str(tmp_path / "b.parquet")], ["n"])
    with pytest.raises(PlanError, match="at least one file"):
        arrow.load_from_parquet_files([])


def test_dumped_tables(tmp_path: Path, table: pa.Table) -> None:
    assert arrow.dump_to_parquet_files(table, str(tmp_path), "t", row_group_bytes=1000)
    files = sorted(str(p) for p in tmp_path.glob("t-*.parquet"))
    assert len(files) > 1
    assert arrow.load_from_parquet_files(files).equals(table)


def test_large_types(table: pa.Table) -> None:
    large = arrow.cast_columns_to_large_string(table)
    assert large.schema.types == [pa.int64(), pa.large_string(), pa.large_list(pa.large_string())]
    assert large.to_pylist() == table.to_pylist()
    nested = pa.struct([("a", pa.string()), ("b", pa.map_(pa.string(), pa.binary()))])
    assert arrow.convert_type_to_large(nested) == pa.struct(
        [("a", pa.large_string()), ("b", pa.map_(pa.large_string(), pa.large_binary()))]
    )
    assert arrow.filter_schema(table.schema, ["n", "s"], ["s"]).names == ["n"]


def test_values_in_files(tmp_path: Path) -> None:
    path = str(tmp_path / "value")
    value = {"n": list(range(1000)), "f": lambda x: x + 1}
    assert filesystem.dump(value, path, atomic_write=True) < 4000
    loaded = filesystem.load(path)
    assert loaded["n"] == value["n"]
    assert loaded["f"](1) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["value"]
    filesystem.remove_path(path)
    filesystem.remove_path(path)
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    filesystem.remove_path(str(tmp_path / "folder"))
    assert not list(tmp_path.iterdir())
    assert tmp_path.is_relative_to(filesystem.find_mount_point(str(tmp_path)))


def test_names_of_the_original() -> None:
    items = list(range(7))
    assert common.split_into_rows(items, 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert common.split_into_cols(items, 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert common.get_nth_partition(items, 2, 3) == [4, 5, 6]
    assert [common.next_power_of_two(n) for n in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 16]
    assert [common.round_up(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert [common.clamp_value(n, 2, 5) for n in (1, 3, 9)] == [2, 3, 5]
    assert (common.first_value_in_dict({"a": 1}), common.first_value_in_dict({})) == (1, None)
    assert issubclass(common.InjectedFault, common.SmallpondError)
