"""Tables that hypothesis draws: of every type, with what is awkward in each preferred."""

from __future__ import annotations

import datetime as dt
import decimal
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

MAX_ROWS = 12


@dataclass(frozen=True)
class Kind:
    """A type of column.

    Attributes:
        arrow: the type of the table's column.
        values: what stands in it beside NULL.
        sql: the type that the column is cast to, for types that only DuckDB has.
    """

    arrow: pa.DataType
    values: st.SearchStrategy[Any]
    sql: str | None = None


def _integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    small = st.integers(max(low, -2), 3)
    return small | st.sampled_from([low, high, high - 1]) | st.integers(low, high)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    limit = 10**precision - 1
    whole = st.integers(-3, 3).map(lambda i: i * 10**scale) | st.integers(-limit, limit)
    with decimal.localcontext(prec=60):
        return whole.map(lambda i: decimal.Decimal(i).scaleb(-scale, decimal.Context(prec=60)))


def _floats(width: int) -> st.SearchStrategy[float]:
    special = [0.0, -0.0, 1.0, 1.5, float("nan"), float("inf"), float("-inf"), 2.0**24, 1e-30]
    return st.sampled_from(special) | st.floats(width=width)


_TEXTS = st.sampled_from(
    [
        *("", "a", "A", "b", "it's", 'say "x"', "{0}", "%", "é", "日本", "\U0001f600", "a\nb"),
        *("NULL", "1", "1.0"),
    ]
)
TEXTS = _TEXTS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_BYTES = st.sampled_from([b"", b"\x00", b"\x00a", b"a", b"\xff\xfe"]) | st.binary(max_size=20)
_DAYS = st.sampled_from([dt.date(1970, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31)]) | st.dates(
    dt.date(1700, 1, 1), dt.date(2200, 1, 1)
)
_MOMENTS = st.integers(-(2**33), 2**33)  # seconds around 1970: three centuries either way
_TIMES = st.times().map(lambda t: t.replace(microsecond=t.microsecond))


def _moments(unit: str, zone: str | None = None) -> Kind:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    exact = st.integers(0, per_second - 1)
    whole = st.builds(lambda s, rest: s * per_second + rest, _MOMENTS, exact | st.just(0))
    return Kind(pa.timestamp(unit, zone), whole)


KINDS: dict[str, Kind] = {
    "int8": Kind(pa.int8(), _integers(8)),
    "int16": Kind(pa.int16(), _integers(16)),
    "int32": Kind(pa.int32(), _integers(32)),
    "int64": Kind(pa.int64(), _integers(64)),
    "uint8": Kind(pa.uint8(), _integers(8, signed=False)),
    "uint32": Kind(pa.uint32(), _integers(32, signed=False)),
    "uint64": Kind(pa.uint64(), _integers(64, signed=False)),
    "hugeint": Kind(pa.string(), _integers(126).map(str), "HUGEINT"),
    "float": Kind(pa.float32(), _floats(32)),
    "double": Kind(pa.float64(), _floats(64)),
    "decimal4": Kind(pa.decimal128(4, 1), _decimals(4, 1)),
    "decimal18": Kind(pa.decimal128(18, 6), _decimals(18, 6)),
    "decimal38": Kind(pa.decimal128(38, 10), _decimals(38, 10)),
    "bool": Kind(pa.bool_(), st.booleans()),
    "string": Kind(pa.string(), TEXTS),
    "large_string": Kind(pa.large_string(), TEXTS),
    "blob": Kind(pa.binary(), _BYTES),
    "date": Kind(pa.date32(), _DAYS),
    "time": Kind(pa.time64("us"), _TIMES),
    "timestamp_s": _moments("s"),
    "timestamp_ms": _moments("ms"),
    "timestamp_us": _moments("us"),
    "timestamp_ns": _moments("ns"),
    "timestamptz": _moments("us", "Europe/Berlin"),
    "interval": Kind(
        pa.month_day_nano_interval(),
        st.tuples(
            st.integers(-40, 40),
            st.integers(-100, 100),
            st.integers(-(10**9), 10**9).map(lambda us: us * 1000),
        ),
    ),
    "uuid": Kind(pa.string(), st.uuids().map(str), "UUID"),
    "enum": Kind(pa.string(), st.sampled_from(["z", "a", "é"]), "ENUM('z', 'a', 'é')"),
    "dictionary": Kind(pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["z", "a", "é"])),
    "list": Kind(pa.list_(pa.int64()), st.lists(st.none() | _integers(8), max_size=3)),
    "texts": Kind(pa.list_(pa.string()), st.lists(st.none() | _TEXTS, max_size=3)),
    "decimals": Kind(
        pa.list_(pa.decimal128(9, 2)), st.lists(st.none() | _decimals(9, 2), max_size=3)
    ),
    "struct": Kind(
        pa.struct([("x", pa.int32()), ("y", pa.string())]),
        st.fixed_dictionaries({"x": st.none() | _integers(8), "y": st.none() | _TEXTS}),
    ),
    "map": Kind(
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.sampled_from(["a", "b", "é"]), st.none() | _integers(8), max_size=3).map(
            lambda entries: list(entries.items())
        ),
    ),
    "null": Kind(pa.null(), st.none()),
}
# Those that SQL can compare with less and greater, as sort and min take them.
ORDERED = [name for name in KINDS if name not in ("map", "null", "interval")]
HASHABLE = list(KINDS)


@dataclass(frozen=True)
class Drawn:
    """A table, and the select list that makes its columns what they are meant to be."""

    table: pa.Table
    select: str


def _cast(name: str, kind: Kind) -> str:
    return name if kind.sql is None else f"CAST({name} AS {kind.sql}) AS {name}"


def columns(kind: Kind, num_rows: int) -> st.SearchStrategy[pa.Array]:
    """A column; in one of four all is NULL, in one of four few values appear often."""
    one = st.none() | kind.values
    some = st.lists(one, min_size=num_rows, max_size=num_rows)
    few = st.lists(one, min_size=1, max_size=2).flatmap(
        lambda pool: st.lists(st.sampled_from(pool), min_size=num_rows, max_size=num_rows)
    )
    nothing = st.just([None] * num_rows)
    values = st.sampled_from(range(4)).flatmap(lambda i: [some, some, few, nothing][i])
    return values.map(lambda items: pa.array(items, kind.arrow))


@st.composite
def tables(draw: st.DrawFn, kinds: dict[str, str] | None = None, max_rows: int = MAX_ROWS) -> Drawn:
    """A table with columns of these names and kinds, and a column ``n`` that numbers its rows."""
    num_rows = draw(st.integers(0, max_rows))
    made = {"n": pa.array(range(num_rows), pa.int64())}
    select = ["n"]
    for name, kind in (kinds or {}).items():
        made[name] = draw(columns(KINDS[kind], num_rows))
        select.append(_cast(name, KINDS[kind]))
    return Drawn(pa.table(made), ", ".join(select))
