"""The hash of rows: what it is, that it is spread well, and that what is equal in SQL meets."""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpond.hashing import canonical_sql, hash_columns, partition_ids
from tests.oracles.stable_hash import Member, Microseconds, hash_row, hash_value

# These never change: files on disk are laid out by them.
KNOWN_ANSWERS = [
    (None, pa.int64(), 0x9CA066F1A4AB2EEA),
    (0, pa.int64(), 0xD30B054265133DD7),
    (1, pa.int64(), 0xF6ACB99BE4641D04),
    (-1, pa.int8(), 0x1141ED926A9F7CAE),
    (2**53 + 1, pa.int64(), 0x855DA2053B18EFDE),
    (2**64 - 1, pa.uint64(), 0xF4C6064330F3EFA1),
    (1.5, pa.float64(), 0x227DF33DC2A73416),
    (float("nan"), pa.float64(), 0xCB6CF5A656762F9C),
    (float("-inf"), pa.float32(), 0xC5B7DE165B4B6B55),
    (Decimal("-0.10"), pa.decimal128(9, 2), 0x133AEEC3F2ABCBB7),
    (True, pa.bool_(), 0xF6ACB99BE4641D04),
    ("", pa.string(), 0x53B6650A28002CFC),
    ("a", pa.string(), 0x57669B6324DE0330),
    ("user_1234", pa.large_string(), 0x3BD046F283A0A240),
    ("über acht Bytes hinaus", pa.string_view(), 0x948E064EFD518040),
    (b"\x00", pa.binary(), 0xDB9F43955578C98C),
    (b"\x00\x00", pa.binary(2), 0xF5F4CC1D60FC1152),
    (date(2024, 2, 29), pa.date32(), 0x2D8F19B291697B88),
    (
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        pa.timestamp("us", "UTC"),
        0xBE926D03150A5FA7,
    ),
    (time(12, 34, 56, 789), pa.time64("us"), 0x5EB1C492E6C40ABF),
    (timedelta(days=-1), pa.duration("ms"), 0x6E8A828B81EB8E3B),
    ([], pa.list_(pa.int64()), 0x2295674CA6A1E887),
    ([1, None, 3], pa.list_(pa.int64()), 0x9FA8F5EE3386807A),
    ({"a": 1, "b": "x"}, pa.struct([("a", pa.int64()), ("b", pa.string())]), 0xF7FF3684FBA346F8),
]


def hashed(array: pa.Array | pa.ChunkedArray) -> list[int]:
    return hash_columns([array]).tolist()


@pytest.mark.parametrize(("value", "kind", "known"), KNOWN_ANSWERS, ids=str)
def test_known_answers(value: Any, kind: pa.DataType, known: int) -> None:
    assert hash_value(value) == known
    assert hashed(pa.array([value], kind)) == [known]


def test_known_answers_of_rows() -> None:
    columns = [pa.array([7]), pa.array(["x"]), pa.array([None], pa.int8())]
    assert hash_row([7, "x", None]) == 0xCAD78DED577CF5A9
    assert hash_columns(columns).tolist() == [0xCAD78DED577CF5A9]


INT64 = st.integers(-(2**63), 2**63 - 1)
DECIMALS = st.decimals(-(10**18), 10**18, places=3)
TIMES = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 (of any zone)
MEMBERS = st.tuples(INT64 | st.none(), st.text() | st.none())
STRUCTS = MEMBERS.map(lambda ab: dict(zip("ab", ab, strict=True)))
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), INT64),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float64": (pa.float64(), st.floats()),
    "float32": (pa.float32(), st.floats(width=32)),
    "float16": (pa.float16(), st.floats(width=16)),
    "bool": (pa.bool_(), st.booleans()),
    "decimal32": (pa.decimal32(6, 3), st.decimals(-999, 999, places=3)),
    "decimal128": (pa.decimal128(38, 3), DECIMALS),
    "narrow decimal": (pa.decimal128(9, 3), st.decimals(-99999, 99999, places=3)),
    "fine decimal": (
        pa.decimal128(38, 30),
        st.integers(-(10**15), 10**15).map(lambda i: Decimal(i).scaleb(-30)),
    ),
    "decimal256": (pa.decimal256(60, 3), DECIMALS),
    "millions": (
        pa.decimal128(15, -6),
        st.integers(-(10**15) + 1, 10**15 - 1).map(lambda i: Decimal(i).scaleb(6)),
    ),
    "string": (pa.string(), st.text()),
    "large_string": (pa.large_string(), st.text()),
    "string_view": (pa.string_view(), st.text()),
    "binary": (pa.binary(), st.binary()),
    "binary_view": (pa.binary_view(), st.binary()),
    "fixed": (pa.binary(11), st.binary(min_size=11, max_size=11)),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "", "longer"])),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), TIMES),
    "timestamp_ns": (pa.timestamp("ns"), TIMES),
    "timestamp_s": (pa.timestamp("s"), TIMES.map(lambda t: t.replace(microsecond=0))),
    "time": (pa.time64("us"), st.times()),
    "duration": (pa.duration("us"), st.timedeltas(timedelta(-9999), timedelta(9999))),
    "list": (pa.list_(pa.int64()), st.lists(INT64 | st.none(), max_size=4)),
    "large_list": (pa.large_list(pa.string()), st.lists(st.text() | st.none(), max_size=4)),
    "fixed list": (pa.list_(pa.int64(), 2), st.lists(INT64 | st.none(), min_size=2, max_size=2)),
    "list_view": (pa.list_view(pa.int64()), st.lists(INT64 | st.none(), max_size=4)),
    "struct": (pa.struct([("a", pa.int64()), ("b", pa.string())]), STRUCTS),
    "lists of structs": (
        pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])),
        st.lists(STRUCTS | st.none(), max_size=3),
    ),
    "null": (pa.null(), st.none()),
}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_type_against_the_oracle(name: str, data: st.DataObject) -> None:
    kind, values = KINDS[name]
    column = data.draw(st.lists(values | st.none(), max_size=12))
    begin = data.draw(st.integers(0, len(column)))
    end = data.draw(st.integers(begin, len(column)))
    array = pa.array(column, kind)
    expected = [hash_value(value) for value in column]
    assert hashed(array) == expected
    assert hashed(array.slice(begin, end - begin)) == expected[begin:end]
    assert hashed(pa.chunked_array([array, array.slice(begin)])) == expected + expected[begin:]


def test_long_decimals_are_rounded_once() -> None:
    # A quarter of them would be another double if its digits were rounded before the division.
    values = [Decimal(10**17 + 7919**4 * i).scaleb(-3) for i in range(200)]
    assert hashed(pa.array(values, pa.decimal128(18, 3))) == [hash_value(v) for v in values]


def test_every_nan_is_the_same() -> None:
    bits = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0x7FFFFFFFFFFFFFFF]
    nans = np.array(bits, np.uint64).view(np.float64)
    assert set(hashed(pa.array(nans))) == {hash_value(float("nan"))}


@given(rows=st.lists(st.tuples(INT64 | st.none(), st.text() | st.none(), st.dates())))
def test_rows_against_the_oracle(rows: list[tuple[Any, ...]]) -> None:
    kinds = (pa.int64(), pa.string(), pa.date32())
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    assert hash_columns(columns).tolist() == [hash_row(row) for row in rows]


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_unions(mode: str) -> None:
    codes = pa.array([0, 1, 0, 1], pa.int8())
    texts = pa.array(["a", None, "c", "d"])
    if mode == "sparse":
        array = pa.UnionArray.from_sparse(codes, [pa.array([1, 2, 3, 4]), texts])
    else:
        places = pa.array([0, 1, 2, 3], pa.int32())
        array = pa.UnionArray.from_dense(codes, places, [pa.array([1, 2, 3, 4]), texts])
    expected = [hash_value(Member(*m)) for m in [(0, 1), (1, None), (0, 3), (1, "d")]]
    assert hashed(array) == expected
    assert hashed(array.slice(1, 2)) == expected[1:3]


def test_long_and_short_texts_in_one_column() -> None:
    # Few long ones take another way than many of the same length; the longest is read in pieces.
    short = ["x" * (i % 40) for i in range(700)]
    texts = [
        *short,
        "y" * 5000,
        "z" * 600_001,
        "w" * 524_288,
        *(["many of 33 bytes" * 2 + "!"] * 300),
    ]
    known = {text: hash_value(text) for text in set(texts)}
    assert hashed(pa.array(texts)) == [known[text] for text in texts]


def test_more_rows_than_a_block() -> None:
    numbers = np.arange(40_000) * 3 - 7
    texts = [f"user_{number}" for number in numbers]
    got = hash_columns([pa.array(numbers), pa.array(texts)])
    for i in (0, 16383, 16384, 32768, 39_999):
        assert got[i] == hash_row([int(numbers[i]), texts[i]])


# ---- what is equal in SQL meets

NUMBERS = [
    *("BIGNUM", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE"),
    *("DECIMAL(4,1)", "DECIMAL(9,2)", "DECIMAL(18,5)", "DECIMAL(38,7)"),
]
UNSIGNED = ["UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "BOOLEAN"]
MEETING = {
    "numbers": [("0", NUMBERS + UNSIGNED), ("1", NUMBERS + UNSIGNED), ("-1", NUMBERS)],
    "fractions": [("0.5", ["FLOAT", "DOUBLE", "DECIMAL(4,1)", "DECIMAL(38,20)"])],
    "tenths": [("'12.3'", ["DOUBLE", "DECIMAL(4,1)", "DECIMAL(18,3)", "DECIMAL(38,20)"])],
    "long decimals": [
        ("'1234567890123456789.1'", ["DECIMAL(20,1)", "DECIMAL(30,5)", "DECIMAL(38,18)"]),
        ("'-98765432109876543.21'", ["DECIMAL(19,2)", "DECIMAL(38,4)", "DECIMAL(38,20)"]),
    ],
    "large integers": [
        ("9007199254740993", ["BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DECIMAL(38,0)"]),
        ("(-1152921504606847105)", ["BIGNUM", "BIGINT", "HUGEINT", "DECIMAL(38,2)"]),
        ("18446744073709551615", ["UBIGINT", "HUGEINT", "UHUGEINT", "DECIMAL(38,2)"]),
        ("170141183460469231731687303715884105727", ["HUGEINT", "UHUGEINT"]),
        ("'-1e38'", ["HUGEINT", "DOUBLE"]),
    ],
    "zeros and NaN": [
        ("'-0.0'", ["DOUBLE", "FLOAT", "INTEGER"]),
        ("'nan'", ["DOUBLE", "FLOAT"]),
        ("'inf'", ["DOUBLE", "FLOAT"]),
    ],
    "texts": [("'abc'", ["VARCHAR", "BLOB", "ENUM('x', 'abc')"]), ("'[1]'", ["VARCHAR", "JSON"])],
    "times": [
        ("'2024-02-29'", ["DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"]),
        ("'1901-01-01 00:00:00'", ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS"]),
        ("'infinity'", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"]),
        ("'-infinity'", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"]),
        ("'12:34:56.5'", ["TIME", "TIME_NS"]),
    ],
    "nested": [
        ("[1, NULL]", ["INTEGER[]", "DOUBLE[]", "HUGEINT[]", "INTEGER[2]"]),
        ("{'a': 1, 'b': 'x'}", ["STRUCT(a INT, b VARCHAR)", "STRUCT(a HUGEINT, b VARCHAR)"]),
        ("MAP {'k': 1}", ["MAP(VARCHAR, TINYINT)", "MAP(VARCHAR, DECIMAL(9,2))"]),
    ],
}


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    settings_ = {"arrow_lossless_conversion": True, "arrow_large_buffer_size": True}
    connection = duckdb.connect(config=settings_)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def sql_hash(con: duckdb.DuckDBPyConnection, value: str, kind: str) -> int:
    key = canonical_sql("v", kind)
    table = con.sql(f"SELECT {key} AS k FROM (SELECT CAST({value} AS {kind}) AS v)")
    return hashed(table.to_arrow_table().column(0))[0]


@pytest.mark.parametrize("group", MEETING)
def test_equal_values_of_different_types_meet(group: str, con: duckdb.DuckDBPyConnection) -> None:
    for value, kinds in MEETING[group]:
        for a, b in itertools.pairwise(kinds):
            [(equal,)] = con.sql(f"SELECT CAST({value} AS {a}) = CAST({value} AS {b})").fetchall()
            assert equal, f"{value} as {a} and {b}: the test itself is wrong"
        assert len({sql_hash(con, value, kind) for kind in kinds}) == 1, value


def test_equal_intervals_meet(con: duckdb.DuckDBPyConnection) -> None:
    equal = ["'1 month 1 day'", "'31 days'", "'30 days 24 hours'", "'2 months -29 days'"]
    assert len({sql_hash(con, value, "INTERVAL") for value in equal}) == 1
    hashes = {sql_hash(con, value, "INTERVAL") for value in ["'1 us'", "'-1 us'", "'200000 years'"]}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["'101'", "'0101'", "'1'"], "BIT"),
        (["'10:00:00+00'", "'12:00:00+02'"], "TIMETZ"),
        (
            ["'eeccb8c5-9943-b2bb-bb5e-222f4e14b687'", "'eeccb8c5-9943-b2bb-bb5e-222f4e14b688'"],
            "UUID",
        ),
        (["1", "340282366920938463463374607431768211455"], "UHUGEINT"),
        (["{'a': 1, 'b': 2}", "{'a': 2, 'b': 1}"], "STRUCT(a INT, b INT)"),
        (["[1, 2]", "[2, 1]", "[1, 2, NULL]", "[]"], "INT[]"),
        (["[[1], [2]]", "[[1, 2]]", "[[], [1, 2]]"], "INT[][]"),
        (["union_value(a := 1)", "union_value(b := 1)"], "UNION(a INT, b INT)"),
        (["''", "'\\x00'", "'\\x00\\x00'"], "BLOB"),
    ],
)
def test_different_values_part(
    values: list[str], kind: str, con: duckdb.DuckDBPyConnection
) -> None:
    assert len({sql_hash(con, value, kind) for value in values}) == len(values)


def test_times_are_rounded_down_to_microseconds() -> None:
    array = pa.array([-1, 999, 1000], pa.timestamp("ns"))
    assert hashed(array) == [hash_value(Microseconds(us)) for us in (-1, 0, 1)]


def test_far_dates_wrap_around() -> None:
    days = 2**31 - 2
    array = pa.array([days], pa.int32()).cast(pa.date32())
    assert hashed(array) == [hash_value(Microseconds(days * 86_400_000_000))]


# ---- spread


def chi_square(ids: np.ndarray[Any, Any], n: int) -> float:
    """Deviation from an even spread, in standard deviations of what chance makes."""
    expected = len(ids) / n
    statistic = ((np.bincount(ids, minlength=n) - expected) ** 2 / expected).sum()
    return float((statistic - (n - 1)) / np.sqrt(2 * (n - 1)))


ROWS = 20_000
SEQUENCES: dict[str, Sequence[Any]] = {
    "numbers from 0": range(ROWS),
    "multiples of 1024": range(0, ROWS * 1024, 1024),
    "multiples of 2^40": range(0, ROWS << 40, 1 << 40),
    "tenths": [i / 10 for i in range(ROWS)],
    "users": [f"user_{i}" for i in range(ROWS)],
    "padded texts": [f"{i:016d}" for i in range(ROWS)],
    "days": [date.fromordinal(700_000 + i) for i in range(ROWS)],
    "pairs": [[i // 100, i % 100] for i in range(ROWS)],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_partitions_are_even(name: str) -> None:
    hashes = hash_columns([pa.array(SEQUENCES[name])])
    assert len(np.unique(hashes)) == ROWS
    for n in (2, 3, 4, 7, 16, 64):
        assert abs(chi_square(partition_ids(hashes, n), n)) < 5


def test_swapped_columns_differ() -> None:
    a, b = pa.array(range(1000)), pa.array(range(1, 1001))
    assert not (hash_columns([a, b]) == hash_columns([b, a])).any()
    same = hash_columns([a, a])
    assert len(np.unique(same)) == 1000  # equal columns do not cancel out


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 2**32 - 1))
def test_partition_ids_follow_the_upper_bits(hashes: list[int], n: int) -> None:
    ids = partition_ids(np.array(hashes, np.uint64), n)
    assert ids.dtype == np.uint32
    assert ids.tolist() == [(h >> 32) * n >> 32 for h in hashes]


# ---- errors


def test_no_columns() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        hash_columns([])


def test_a_type_without_hash_is_named() -> None:
    array = pa.RunEndEncodedArray.from_arrays([1], [7])
    with pytest.raises(TypeError, match=r"run_end_encoded<.*have no hash"):
        hash_columns([array])
