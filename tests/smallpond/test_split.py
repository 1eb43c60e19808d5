"""Rows over partitions: by given numbers, and by ranges of DuckDB's order."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpond.errors import PlanError
from smallpond.handoff import PartWriter, read_part
from smallpond.split import range_ids, split_batches

Ids = Callable[[pa.RecordBatch], np.ndarray[Any, Any]]


def split(
    folder: Path, table: pa.Table, n: int, ids: Ids, *, batch_rows: int = 10, **options: Any
) -> list[pa.Table]:
    drop = options.get("drop", ())
    schema = pa.schema([field for field in table.schema if field.name not in drop])
    with PartWriter(str(folder / "split"), schema, n, lossless=False) as writer:
        split_batches(table.to_batches(batch_rows), ids, n, writer, **options)
        return [read_part(part) for part in writer.close()]


def key_column(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    keys: np.ndarray[Any, Any] = batch["key"].to_numpy(zero_copy_only=False)
    return keys


@settings(max_examples=60)
@given(
    keys=st.lists(st.integers(0, 6), max_size=60),
    batch_rows=st.integers(1, 20),
    buffer_bytes=st.sampled_from([0, 100, 1 << 20]),
    dtype=st.sampled_from([np.int64, np.uint32, np.float64, object]),
)
def test_rows_reach_their_partition_in_order(
    keys: list[int],
    batch_rows: int,
    buffer_bytes: int,
    dtype: type,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    texts = [f"row {i}" if i % 3 else None for i in range(len(keys))]
    table = pa.table({"row": range(len(keys)), "text": texts, "key": pa.array(keys, pa.int8())})
    expected = defaultdict(list)
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        expected[key].append({"row": row, "text": text})
    got = split(
        tmp_path_factory.mktemp("split"),
        table,
        7,
        lambda batch: key_column(batch).astype(dtype),
        batch_rows=batch_rows,
        buffer_bytes=buffer_bytes,
        drop=["key"],
    )
    assert [part.to_pylist() for part in got] == [expected[i] for i in range(7)]


def test_nested_and_extension_types_are_split(tmp_path: Path) -> None:
    settings_ = {"arrow_lossless_conversion": True}
    query = """
        SELECT i % 3 AS key, i::HUGEINT AS h, [i, NULL] AS l, {'u': uuid(), 'b': i::BIT} AS s,
            union_value(k := i)::UNION(k BIGINT, t VARCHAR) AS u, MAP {i: i % 2 = 0} AS m,
            NULL AS n, to_days(i::INT) AS d
        FROM range(50) t(i)
    """
    with duckdb.connect(config=settings_) as con:
        table = con.sql(query).to_arrow_table()
        parts = split(tmp_path, table, 3, key_column)
        for key, part in enumerate(parts):
            shown = [con.from_arrow(t).order("h").fetchall() for t in (part, table)]
            assert shown[0] == [row for row in shown[1] if row[0] == key]


def test_more_partitions_than_16_bits(tmp_path: Path) -> None:
    batch = pa.record_batch({"key": np.arange(500) * 7919 % 70_000})
    with PartWriter(str(tmp_path / "a"), batch.schema, 70_000, lossless=False) as writer:
        split_batches([batch], key_column, 70_000, writer)
        parts = writer.close()
    occupied = {i: read_part(part)["key"].to_pylist() for i, part in enumerate(parts) if part.rows}
    assert occupied == {key: [key] for key in batch["key"].to_pylist()}


def test_rows_without_columns(tmp_path: Path) -> None:
    table = pa.table({"key": [0, 1, 1, 0, 1]})
    parts = split(tmp_path, table, 3, key_column, batch_rows=2, drop=["key"])
    assert [part.num_rows for part in parts] == [2, 3, 0]


@pytest.mark.parametrize(("key", "shown"), [(10, "10"), (-1, "-1"), (None, "NULL")])
def test_a_key_out_of_range(key: int | None, shown: str, tmp_path: Path) -> None:
    table = pa.table({"key": [0, 9, key, 9]})
    with pytest.raises(PlanError, match=f"^partition key {shown} is out of range 0-9$"):
        split(tmp_path, table, 10, key_column)
    assert not list(tmp_path.iterdir())


# ---- ranges

INTEGERS = st.integers(-3, 3)
KEYS: dict[str, st.SearchStrategy[str]] = {
    "TINYINT": st.sampled_from(["-128", "127", "0", "1"]),
    "INTEGER": INTEGERS.map(str),
    "UBIGINT": st.sampled_from(["0", "1", "9223372036854775808", "18446744073709551615"]),
    "HUGEINT": st.sampled_from(
        ["(-170141183460469231731687303715884105728)", "-1", "0", "18446744073709551616", "7"]
    ),
    "UHUGEINT": st.sampled_from(["0", "18446744073709551616", "7", f"{2**128 - 1}"]),
    "DECIMAL(4,1)": st.sampled_from(["-1.5", "0", "99.9"]),
    "DECIMAL(38,3)": st.sampled_from(["-1.5", "0", "'12345678901234567890.125'", "'-1e30'"]),
    "FLOAT": st.sampled_from(["'-inf'", "-1.5", "'-0.0'", "0.0", "'inf'", "'nan'"]),
    "DOUBLE": st.sampled_from(
        ["'-inf'", "-1e300", "'-0.0'", "0.0", "5e-324", "'inf'", "'nan'", "-('nan'::DOUBLE)"]
    ),
    "BOOLEAN": st.sampled_from(["true", "false"]),
    "VARCHAR": st.sampled_from(
        [
            *("''", "'a'", "'ab'", "'a' || chr(0)", "chr(0)", "'abcdefgh'", "'abcdefghi'", "'ü'"),
            *("'abcdefgh' || chr(0)", "'abcdefghabcdefgi'", "'abcdefghabcdefgh'", "'𝄞'"),
        ]
    ),
    "BLOB": st.sampled_from(["''", r"'\x00'", r"'\xFF'", "'a'", r"'\x00\x00'"]),
    "DATE": st.sampled_from(["'1969-12-31'", "'2024-02-29'", "'infinity'", "'-infinity'"]),
    "TIMESTAMP": st.sampled_from(["'1969-12-31 01:00:00'", "'2024-02-29'", "'infinity'"]),
    "TIMESTAMP_NS": st.sampled_from(["'1969-12-31 01:00:00.000000001'", "'2024-02-29'"]),
    "TIMESTAMPTZ": st.sampled_from(["'1969-12-31 01:00:00+00'", "'2024-02-29 00:00:00+00'"]),
    "TIME": st.sampled_from(["'00:00:00'", "'23:59:59.999999'"]),
    "UUID": st.sampled_from(["'00000000-0000-0000-0000-000000000001'", f"'{'f' * 32}'", "uuid()"]),
    "JSON": st.sampled_from(["'{}'", "'[1]'"]),
}


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    settings_ = {"arrow_lossless_conversion": True, "arrow_large_buffer_size": True}
    connection = duckdb.connect(config=settings_)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def ranked(con: duckdb.DuckDBPyConnection, rows: list[list[str]], order: str) -> pa.Table:
    """The rows as DuckDB sorts them, with their rank."""
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    names = ", ".join(f"k{i}" for i in range(len(rows[0])))
    query = f"SELECT *, rank() OVER (ORDER BY {order}) AS rank FROM (VALUES {values}) t({names})"
    return con.sql(f"{query} ORDER BY rank").to_arrow_table()


@pytest.mark.parametrize("first", KEYS)
@settings(max_examples=30)
@given(data=st.data())
def test_ranges_against_duckdb(
    first: str, data: st.DataObject, con: duckdb.DuckDBPyConnection
) -> None:
    kinds = [first, *data.draw(st.lists(st.sampled_from(list(KEYS)), max_size=2))]
    flags = st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds))
    descending, nulls_first = data.draw(flags), data.draw(flags)
    cells = [(KEYS[kind] | st.just("NULL")).map(lambda v, k=kind: f"({v})::{k}") for kind in kinds]
    rows = data.draw(st.lists(st.tuples(*cells).map(list), min_size=1, max_size=15))
    order = ", ".join(
        f"k{i} {'DESC' if down else 'ASC'} NULLS {'FIRST' if nulls else 'LAST'}"
        for i, (down, nulls) in enumerate(zip(descending, nulls_first, strict=True))
    )
    table = ranked(con, rows, order)
    places = st.integers(0, len(rows) - 1)
    cuts = sorted(data.draw(st.lists(places, max_size=6)))
    ranks = table["rank"].to_numpy()
    table = table.drop_columns("rank")
    got = range_ids(table.take(pa.array(cuts, pa.int64())), table.columns, descending, nulls_first)
    assert got.dtype == np.uint32
    assert got.tolist() == [int((ranks[cuts] <= rank).sum()) for rank in ranks]


def test_ranges_of_other_arrow_types() -> None:
    # The boundaries come through a file, where dictionaries are plain; rows may come in chunks.
    boundaries = pa.table({"k": ["b", "d"]})
    expected = [0, 1, 1, 2, 2]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        column = pa.chunked_array([pa.array(["a", "b"], kind), pa.array(["c", "d", "e"], kind)])
        assert range_ids(boundaries, [column], [False], [False]).tolist() == expected
    encoded = pa.array(["a", "b", "c", "d", "e"]).dictionary_encode()
    assert range_ids(boundaries, [encoded], [False], [False]).tolist() == expected
    batch = pa.record_batch({"k": pa.nulls(2)})
    assert range_ids(boundaries, batch.columns, [False], [False]).tolist() == [2, 2]
    assert range_ids(boundaries, batch.columns, [False], [True]).tolist() == [0, 0]


def test_no_boundaries_and_no_rows() -> None:
    table = pa.table({"k": [1, 2]})
    assert range_ids(table.slice(0, 0), table.columns, [False], [False]).tolist() == [0, 0]
    empty = table.slice(0, 0).columns
    assert range_ids(table, empty, [False], [False]).tolist() == []


@pytest.mark.parametrize("kind", ["INTERVAL", "TIMETZ", "BIT", "INTEGER[]"])
def test_a_type_without_order_is_named(kind: str, con: duckdb.DuckDBPyConnection) -> None:
    table = con.sql(f"SELECT NULL::{kind} AS k").to_arrow_table()
    with pytest.raises(TypeError, match="no known order"):
        range_ids(table, table.columns, [False], [False])
