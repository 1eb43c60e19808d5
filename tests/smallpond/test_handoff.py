"""Hand-off files: what goes in comes out, and damage never goes unseen."""

import errno
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpond import handoff
from smallpond.errors import CorruptedDataError
from smallpond.handoff import (
    Part,
    PartWriter,
    Segment,
    iter_part,
    part_schema,
    read_part,
    slice_part,
    split_parts_by_rows,
)
from smallpond.places import remove


def write(url: str, table: pa.Table, num_pieces: int = 1, *, lossless: bool = False) -> Part:
    with PartWriter(url, table.schema, lossless=lossless) as writer:
        for i in range(num_pieces):
            begin, end = (table.num_rows * j // num_pieces for j in (i, i + 1))
            writer.append(0, table.slice(begin, end - begin))
        [part] = writer.close()
    return part


# ---- round trips

DUCKDB_VALUES = {
    "TINYINT": "-128",
    "UBIGINT": "18446744073709551615",
    "HUGEINT": "(-170141183460469231731687303715884105728)",
    "UHUGEINT": "340282366920938463463374607431768211455",
    "BIGNUM": "123456789012345678901234567890123456789012345678901234567890",
    "FLOAT": "1.5",
    "DOUBLE": "'nan'",
    "BOOLEAN": "true",
    "DECIMAL(4,1)": "-1.5",
    "DECIMAL(18,3)": "123456789012345.678",
    "DECIMAL(38,0)": "'-99999999999999999999999999999999999999'",
    "DECIMAL(38,38)": "0.5",
    "VARCHAR": "'ü' || chr(0) || '𝄞'",
    "BLOB": r"'\x00\xFF'",
    "BIT": "'10101'",
    "UUID": "'eeccb8c5-9943-b2bb-bb5e-222f4e14b687'",
    "JSON": """'{"a": [1, null]}'""",
    "INTERVAL": "INTERVAL '1 month -3 days 5 us'",
    "DATE": "'infinity'",
    "TIME": "'24:00:00'",
    "TIME_NS": "'10:00:00.123456789'",
    "TIME WITH TIME ZONE": "'10:00:00.5+02:30'",
    "TIMESTAMP": "'290000-01-01 (BC) 01:02:03.456789'",
    "TIMESTAMP_S": "'2020-01-01 01:02:03'",
    "TIMESTAMP_MS": "'1969-12-31 23:59:59.999'",
    "TIMESTAMP_NS": "'1969-12-31 23:59:59.999999999'",
    "TIMESTAMP WITH TIME ZONE": "'2020-01-01 01:02:03+00'",
    "INTEGER[]": "[1, NULL, 3]",
    "INTEGER[2]": "[1, NULL]",
    "HUGEINT[]": "[1, NULL]",
    "STRUCT(a INTEGER)[]": "[]",
    "STRUCT(x INTEGER, y VARCHAR)": "{'x': NULL, 'y': 'q'}",
    "MAP(VARCHAR, INTEGER)": "MAP {'a': 1, 'b': NULL}",
    "UNION(k INTEGER, s VARCHAR)": "'text'",
    "STRUCT(u UNION(k UUID, h HUGEINT), j JSON[])": "{'u': union_value(h := 7), 'j': ['{}']}",
    '"NULL"': "NULL",
}


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    settings_ = {"arrow_lossless_conversion": True, "arrow_large_buffer_size": True}
    connection = duckdb.connect(config=settings_)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@pytest.mark.parametrize("kind", DUCKDB_VALUES)
def test_types_of_duckdb_survive(kind: str, folder: str, con: duckdb.DuckDBPyConnection) -> None:
    one = f"CAST({DUCKDB_VALUES[kind]} AS {kind})"
    before = con.sql(f"SELECT unnest([{one}, NULL, {one}, NULL, {one}]) AS c").to_arrow_table()

    def shown(table: pa.Table) -> list[Any]:
        with_name = con.from_arrow(table)
        return with_name.select("c::VARCHAR, typeof(c), c IS NULL").fetchall()

    expected = shown(before)
    assert expected[0][1] == kind
    part = write(f"{folder}/a", before, 2, lossless=True)
    assert part.lossless
    assert shown(read_part(part)) == expected
    assert shown(read_part(slice_part(part, 1, 4))) == expected[1:4]
    assert shown(pa.Table.from_batches(iter_part(part, 4))) == expected


COLUMNS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.float64(): st.floats(allow_nan=False) | st.just(-0.0),
    pa.string(): st.text(max_size=9),
    pa.large_binary(): st.binary(max_size=9),
    pa.date32(): st.dates(),
    pa.list_(pa.string()): st.lists(st.text(max_size=3) | st.none(), max_size=3),
    pa.struct([("a", pa.int8())]): st.fixed_dictionaries({"a": st.integers(-128, 127)}),
    pa.map_(pa.string(), pa.int8()): st.just([("k", 1), ("l", None)]),
    pa.null(): st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables in several chunks, with no columns too."""
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), max_size=4))
    rows = draw(st.integers(0, 20))
    if not kinds:
        return pa.table({"x": pa.nulls(rows)}).select([])
    names = [f"c{i}" for i in range(len(kinds))]
    cells = [draw(st.lists(COLUMNS[k] | st.none(), min_size=rows, max_size=rows)) for k in kinds]
    arrays = [pa.array(values, kind) for values, kind in zip(cells, kinds, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, names)
    cut = draw(st.integers(0, rows))
    return pa.Table.from_batches([batch.slice(0, cut), batch.slice(cut)])


def rows_of(table: pa.Table) -> list[Any]:
    """The rows as Python values; as many empty ones as there are rows without columns."""
    # repr tells -0.0 from 0.0.
    return [repr(row) for row in table.to_pylist()] if table.num_columns else [""] * table.num_rows


@settings(max_examples=60)
@given(table=tables(), data=st.data())
def test_partitions_and_slices_of_any_table(
    table: pa.Table, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    num_partitions = data.draw(st.integers(1, 4))
    pieces = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, num_partitions - 1),
                st.integers(0, table.num_rows),
                st.integers(0, table.num_rows),
            ),
            max_size=6,
        )
    )
    url = str(tmp_path_factory.mktemp("parts") / "a")
    expected: list[list[Any]] = [[] for _ in range(num_partitions)]
    with PartWriter(url, table.schema, num_partitions, lossless=False) as writer:
        for partition_idx, begin, length in pieces:
            writer.append(partition_idx, table.slice(begin, length))
            expected[partition_idx] += rows_of(table.slice(begin, length))
        parts = writer.close()
    for part, rows in zip(parts, expected, strict=True):
        assert part.rows == len(rows)
        assert part_schema(part).equals(table.schema)
        assert read_part(part).schema.equals(table.schema)
        assert rows_of(read_part(part)) == rows
        begin = data.draw(st.integers(0, len(rows)))
        end = data.draw(st.integers(begin, len(rows)))
        slice_ = slice_part(part, begin, end)
        assert slice_.rows == end - begin
        assert rows_of(read_part(slice_)) == rows[begin:end]
        batch_rows = data.draw(st.integers(1, 5))
        batches = list(iter_part(slice_, batch_rows))
        sizes = [batch.num_rows for batch in batches]
        assert all(size == batch_rows for size in sizes[:-1])
        assert all(0 < size <= batch_rows for size in sizes)
        if table.num_columns:
            assert rows_of(pa.Table.from_batches(batches, table.schema)) == rows[begin:end]
    with pa.ipc.open_file(url) as file:
        assert file.read_all().num_rows == sum(map(len, expected))


def test_large_batches_are_cut_into_pieces(tmp_path: Path) -> None:
    rows = 3 * handoff.PIECE_BYTES // 8
    batch = pa.record_batch({"n": pa.array(range(rows))})
    with PartWriter(str(tmp_path / "a"), batch.schema, lossless=False) as writer:
        writer.append(0, batch)
        [part] = writer.close()
    assert len(part.segments) == 3
    few = slice_part(part, rows - 2, rows)
    assert len(few.segments) == 1
    assert read_part(few)["n"].to_pylist() == [rows - 2, rows - 1]
    assert read_part(part)["n"].combine_chunks().equals(batch["n"])


def test_small_batches_share_a_checksum(tmp_path: Path) -> None:
    part = write(str(tmp_path / "a"), pa.table({"n": range(100)}), 50)
    assert len(part.segments) == 1
    assert read_part(slice_part(part, 33, 35))["n"].to_pylist() == [33, 34]


DICTIONARY = pa.array(["a", None, "b", "a"]).dictionary_encode()
_CODES = pa.array([0, 1, 0, 0], pa.int8())
_NUMBERS = pa.array([1, 2, 3, 4])
_UNION = pa.UnionArray.from_sparse(_CODES, [DICTIONARY, _NUMBERS], ["e", "i"])
_MASK = pa.array([False, True, False, False])
WITH_DICTIONARIES = {
    "plain": DICTIONARY,
    "list": pa.ListArray.from_arrays([0, 2, 2, 4], DICTIONARY),
    "large_list": pa.LargeListArray.from_arrays([0, 2, 2, 4], DICTIONARY),
    "list_view": pa.ListViewArray.from_arrays([2, 0, 0], [2, 2, 0], DICTIONARY),
    "fixed list": pa.FixedSizeListArray.from_arrays(DICTIONARY, 2),
    "map": pa.MapArray.from_arrays([0, 1, 1, 2], DICTIONARY.take([0, 2]), DICTIONARY.take([1, 2])),
    "struct": pa.StructArray.from_arrays([DICTIONARY, _NUMBERS], ["e", "i"], mask=_MASK),
    "sparse union": _UNION,
    "dense union": pa.UnionArray.from_dense(
        _CODES, pa.array([0, 0, 2, 3], pa.int32()), [DICTIONARY, _NUMBERS], ["e", "i"]
    ),
    "struct of union": pa.StructArray.from_arrays([_UNION], ["u"]),
    "list of unions": pa.ListArray.from_arrays([0, 2, 4], _UNION),
}


@pytest.mark.parametrize("name", WITH_DICTIONARIES)
def test_dictionaries_become_plain_values(name: str, tmp_path: Path) -> None:
    array = WITH_DICTIONARIES[name]
    for i, piece in enumerate([array, array.slice(1), array.slice(1, 1)]):
        table = read_part(write(str(tmp_path / str(i)), pa.table({"c": piece})))
        assert "dictionary" not in str(table.schema)
        assert table["c"].to_pylist() == piece.to_pylist()
        assert table["c"].chunk(0).validate(full=True) is None


def test_metadata_stays(folder: str) -> None:
    field = pa.field("e", DICTIONARY.type, metadata={"of": "field"})
    schema = pa.schema([field], metadata={"of": "schema"})
    part = write(f"{folder}/a", pa.table([DICTIONARY], schema=schema))
    assert part_schema(part).metadata == {b"of": b"schema"}
    assert part_schema(part).field("e").metadata == {b"of": b"field"}


def test_columns_can_be_chosen(folder: str) -> None:
    part = write(f"{folder}/a", pa.table({"a": [1], "b": [2], "c": [3]}))
    assert read_part(part, columns=["c", "a"]).to_pylist() == [{"c": 3, "a": 1}]


def test_local_files_are_mapped_not_copied(tmp_path: Path) -> None:
    part = write(str(tmp_path / "a"), pa.table({"n": range(100_000)}))
    before = pa.total_allocated_bytes()
    table = read_part(part)
    assert pa.total_allocated_bytes() - before < 10_000
    assert table["n"][99_999].as_py() == 99_999


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with (
        PartWriter(str(tmp_path / "a"), pa.schema([("a", pa.int64())]), lossless=False) as writer,
        pytest.raises(TypeError, match=r"(?s)a: string.*instead of.*a: int64"),
    ):
        writer.append(0, pa.table({"a": ["x"]}))


def test_a_failed_attempt_leaves_no_file(folder: str) -> None:
    fs, path = fsspec.core.url_to_fs(f"{folder}/a")

    def attempt() -> None:
        with PartWriter(f"{folder}/a", pa.schema([("a", pa.int64())]), lossless=False) as writer:
            writer.append(0, pa.table({"a": [1]}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert not fs.exists(path)


@pytest.mark.parametrize("capacity", [0, 1000], ids=["in the header", "in the rows"])
def test_a_full_disk_leaves_no_file(
    capacity: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "a")
    write_data = handoff._Sink.write

    def write_or_fail(self: Any, data: Any) -> int:
        if self.tell() >= capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_data(self, data)

    monkeypatch.setattr(handoff._Sink, "write", write_or_fail)

    def attempt() -> None:
        table = pa.table({"n": range(1000)})
        with PartWriter(url, table.schema, lossless=False) as writer:
            writer.append(0, table)
            writer.append(0, table)

    with pytest.raises(OSError, match="No space left"):
        attempt()
    assert not Path(url).exists()


# ---- damage


def small_file(folder: Path) -> tuple[Path, list[Part], bytes]:
    table = pa.table({"n": [1, 2, 3], "s": ["x", None, "yy"]})
    path = folder / "a"
    with PartWriter(str(path), table.schema, 2, lossless=False) as writer:
        writer.append(0, table)
        writer.append(1, table.slice(1))
        parts = writer.close()
    return path, parts, path.read_bytes()


def test_every_flipped_byte_is_detected_or_not_read(tmp_path: Path) -> None:
    path, parts, data = small_file(tmp_path)
    tables_ = [read_part(part) for part in parts]
    read_by = [
        {i for s in (part.header, *part.segments) for i in range(s.offset, s.offset + s.length)}
        for part in parts
    ]
    footer = parts[1].segments[-1].offset + parts[1].segments[-1].length
    assert set(range(footer)) == read_by[0] | read_by[1]
    for place in range(len(data)):
        path.unlink()  # the tables above are mapped
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        for part, table, places in zip(parts, tables_, read_by, strict=True):
            if place in places:
                with pytest.raises(CorruptedDataError, match=rf"{path}: bytes .* CRC32"):
                    read_part(part)
            else:
                assert read_part(part).equals(table)


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path, parts, data = small_file(tmp_path)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        for part in parts:
            with pytest.raises(CorruptedDataError, match=f"{path}: .*{size} bytes.*{len(data)}"):
                read_part(part)


def test_a_longer_file_is_detected(tmp_path: Path) -> None:
    path, parts, data = small_file(tmp_path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CorruptedDataError, match="bytes"):
        part_schema(parts[0])


def test_a_missing_file_is_named(folder: str) -> None:
    part = write(f"{folder}/a", pa.table({"n": [1]}))
    remove(f"{folder}/a")
    for read in (read_part, part_schema, lambda part: next(iter_part(part, 1))):
        with pytest.raises(CorruptedDataError, match="/a: the file is missing"):
            read(part)


def test_damage_of_remote_files() -> None:
    url = f"memory://{uuid4().hex}/a"
    part = write(url, pa.table({"n": range(100)}))
    fs, path = fsspec.core.url_to_fs(url)
    data = fs.cat_file(path)
    end = part.segments[0].offset + part.segments[0].length
    fs.pipe_file(path, data[: end - 1])
    with pytest.raises(CorruptedDataError, match=r"/a: bytes .*: the file ends after"):
        read_part(part)
    fs.pipe_file(path, data[: end - 9] + b"\xff" + data[end - 8 :])
    with pytest.raises(CorruptedDataError, match="CRC32"):
        read_part(part)
    fs.rm(path)


def test_a_slice_reads_only_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    rows = 2 * handoff.PIECE_BYTES // 8
    part = write(str(path), pa.table({"n": range(rows)}))
    first = part.segments[0]
    data = bytearray(path.read_bytes())
    data[first.offset + first.length - 100] ^= 1
    path.write_bytes(data)
    assert read_part(slice_part(part, first.rows, rows))["n"][0].as_py() == first.rows
    with pytest.raises(CorruptedDataError):
        read_part(slice_part(part, first.rows - 1, rows))
    with pytest.raises(CorruptedDataError):
        list(iter_part(part, 1000))


# ---- splitting without reading


def fake_part(name: str, segment_rows: list[int]) -> Part:
    segments = tuple(Segment(i * 10, 10, rows, 0) for i, rows in enumerate(segment_rows))
    return Part(name, segments, sum(segment_rows), 10 * len(segments), lossless=False)


PARTS = st.lists(st.lists(st.integers(1, 6), max_size=4), max_size=5).map(
    lambda sizes: [fake_part(str(i), rows) for i, rows in enumerate(sizes)]
)


def row_places(part: Part) -> list[tuple[str, int, int]]:
    """File, segment and row of each row of a part."""
    rows = [(part.url, s.offset, row) for s in part.segments for row in range(s.rows)]
    end = len(rows) if part.end is None else part.end
    assert len(rows[part.begin : end]) == part.rows
    return rows[part.begin : end]


@given(PARTS, st.integers(1, 9))
def test_splitting_by_rows_is_even_and_keeps_all_rows(parts: list[Part], n: int) -> None:
    runs = split_parts_by_rows(parts, n)
    places = [[place for part in run for place in row_places(part)] for run in runs]
    assert len(runs) == n
    assert sum(places, []) == [place for part in parts for place in row_places(part)]  # noqa: RUF017
    assert max(map(len, places)) - min(map(len, places)) <= 1
    assert all(run for run in runs) or not parts
    assert all(part.rows or len(run) == 1 for run in runs for part in run)


@given(PARTS, st.data())
def test_a_slice_of_a_slice(parts: list[Part], data: st.DataObject) -> None:
    for part in parts:
        places = row_places(part)
        begin = data.draw(st.integers(0, part.rows))
        end = data.draw(st.integers(begin, part.rows))
        once = slice_part(part, begin, end)
        assert row_places(once) == places[begin:end]
        assert all(s.rows for s in once.segments)
        inner = data.draw(st.integers(0, once.rows))
        assert row_places(slice_part(once, inner, once.rows)) == places[begin + inner : end]


def test_a_slice_without_rows_keeps_the_columns(folder: str) -> None:
    part = write(f"{folder}/a", pa.table({"n": [1]}))
    assert read_part(slice_part(part, 1, 1)).schema.names == ["n"]
