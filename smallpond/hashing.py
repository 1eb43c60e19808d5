"""A hash of rows that never changes: the same in every process, version, engine and machine.

All arithmetic is on unsigned 64-bit integers, modulo 2^64; words are little-endian.

    mix(x)      x ^= x >> 33; x *= 0xff51afd7ed558ccd; x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53;
                x ^= x >> 33                              (the finalizer of MurmurHash3)
    PHI         0x9e3779b97f4a7c15                        (2^64 over the golden ratio)
    salt(k)     k * PHI
    sum(w)      mix(w[0] + 1 * PHI) + mix(w[1] + 2 * PHI) + ...

    null        mix(salt(1))
    number      mix(bits ^ salt(2)), bits of the nearest IEEE double; -0.0 counts as 0.0, and every
                NaN as 0x7ff8000000000000; false is 0 and true is 1
    time        mix(us ^ salt(3)), microseconds since 1970-01-01 UTC, or since midnight, or of a
                duration; rounded down; a month has 30 days, a day 24 hours; an infinite date or
                timestamp is +-(2^63 - 1)
    bytes       mix(sum(w) + length + salt(4)), w the bytes in words of eight, the last one filled
                with zeros, a single zero word if there are no bytes; strings are their UTF-8
    list        mix(sum(h) + length + salt(5)), h the hashes of the elements; arrays and maps are
                lists, a map's entries structs
    struct      of one field the hash of that, of none mix(salt(6)); else, with h of the fields in
                order: H = h[0], then H = mix(H * PHI + h[i]); so are several columns combined
    union       mix(h * PHI + tag), h the hash of the member

So values that are equal in SQL have equal hashes whatever their types, as long as both are numbers,
both texts or binaries, or both dates or timestamps. Where SQL casts before it compares (a text with
a number, FLOAT with INTEGER beyond 2^24), cast before hashing. Names of fields, widths and scales
do not count, nor do collations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smallpond.buffers import (
    Ints,
    fixed_values,
    gathered,
    is_bytes,
    is_null,
    last_mask,
    spans,
    union_places,
    words_at,
)
from smallpond.columns import int64_array

Hashes: TypeAlias = NDArray[np.uint64]

_MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)
_MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)
_PHI = np.uint64(0x9E3779B97F4A7C15)
_NAN_BITS = np.uint64(0x7FF8000000000000)

# So many rows or words at once, for the caches' sake.
_BLOCK = 1 << 14
# So many rows are worth a pass of their own over the next word of each.
_FEW_ROWS = 256
_MAX_WORDS = 1 << 16

_EXACT = 1 << 53  # integers up to here are doubles
_INFINITE_DATE = 2**31 - 1
_INFINITE_TIME = 2**63 - 1


@np.errstate(invalid="ignore")  # signaling NaNs are as good as others
def hash_columns(columns: Sequence[pa.Array | pa.ChunkedArray]) -> Hashes:
    """The hash of each row.

    Takes what DuckDB makes with ``arrow_lossless_conversion`` as well as any other Arrow arrays.

    Raises:
        ValueError: no columns.
        TypeError: a type that has no hash.
    """
    if not columns:
        msg = "hash_columns: at least one column is needed"
        raise ValueError(msg)
    return _combined([_column(column) for column in columns])


def partition_ids(hashes: Hashes, n: int) -> NDArray[np.uint32]:
    """A partition from 0 to n - 1 for each hash: its upper 32 bits times n over 2^32."""
    ids = hashes >> np.uint64(32)
    ids *= np.uint64(n)
    ids >>= np.uint64(32)
    return ids.astype(np.uint32)


def canonical_sql(column_sql: str, duckdb_type: str) -> str:
    """The expression to select, so that `hash_columns` makes equal values of it meet.

    The result must leave DuckDB with ``arrow_lossless_conversion``.
    """
    if duckdb_type == "BIGNUM":
        return f"TRY_CAST(CAST({column_sql} AS VARCHAR) AS DOUBLE)"
    return column_sql


# ---- arithmetic


def _salt(k: int) -> np.uint64:
    return np.uint64(k * int(_PHI) % 2**64)


def _mix(x: Hashes) -> Hashes:
    """Mixes in place."""
    for begin in range(0, len(x), _BLOCK):
        block = x[begin : begin + _BLOCK]
        block ^= block >> _SHIFT
        block *= _MULTIPLIER_1
        block ^= block >> _SHIFT
        block *= _MULTIPLIER_2
        block ^= block >> _SHIFT
    return x


def _constant(salt: int, rows: int) -> Hashes:
    return np.full(rows, _mix(np.array([_salt(salt)], np.uint64))[0], np.uint64)


def _combined(hashes: Sequence[Hashes]) -> Hashes:
    total = hashes[0]
    for further in hashes[1:]:
        total = _mix(total * _PHI + further)
    return total


def _numbers(doubles: NDArray[np.float64]) -> Hashes:
    """The hash of numbers; the array is lost."""
    doubles += 0.0  # -0.0 becomes 0.0
    bits = doubles.view(np.uint64)
    bits[np.isnan(doubles)] = _NAN_BITS
    bits ^= _salt(2)
    return _mix(bits)


def _times(microseconds: Ints) -> Hashes:
    return _mix(microseconds.view(np.uint64) ^ _salt(3))


def _sums(words: Hashes, counts: Ints) -> Hashes:
    """Of each run of words the sum that the module describes."""
    ends = np.cumsum(counts)
    places = np.arange(1, len(words) + 1) - np.repeat(ends - counts, counts)
    running = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(_mix(words + places.view(np.uint64) * _PHI), out=running[1:])
    sums: Hashes = running[ends] - running[ends - counts]
    return sums


# ---- Arrow


def _column(column: pa.Array | pa.ChunkedArray) -> Hashes:
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([_array(c) for c in column.chunks] or [np.empty(0, np.uint64)])
    return _array(column)


def _array(array: pa.Array) -> Hashes:
    hashes = _hasher(array.type)(array)
    if array.null_count:
        hashes[is_null(array)] = _constant(1, 1)[0]
    return hashes


def _hasher(kind: pa.DataType) -> Callable[[pa.Array], Hashes]:
    """What hashes arrays of a type; rows that are NULL may come out in any way."""
    for fits, hasher in _HASHERS:
        if fits(kind):
            return hasher
    msg = f"hash_columns: values of type {kind} have no hash (cast them to a plain type)"
    raise TypeError(msg)


def _hash_null(array: pa.Array) -> Hashes:
    return _constant(1, len(array))


def _hash_bool(array: pa.Array) -> Hashes:
    return _numbers(fixed_values(array.cast(pa.int8()), np.int8).astype(np.float64))


def _hash_number(array: pa.Array) -> Hashes:
    return _numbers(fixed_values(array, array.type.to_pandas_dtype()).astype(np.float64))


def _hash_decimal(array: pa.Array) -> Hashes:
    if not pa.types.is_decimal128(array.type):
        # The nearest double by way of text; the direct cast may miss it.
        return _hash_number(array.cast(pa.string()).cast(pa.float64()))
    words = fixed_values(array, "<i8", 2).reshape(-1, 2)
    low, scale = words[:, 0], array.type.scale
    # One division of exact operands rounds once.
    simple = (words[:, 1] == low >> 63) & (np.abs(low) <= _EXACT) & (low != -(2**63))
    doubles = low / 10.0**scale
    if not 0 <= scale <= 22:  # 10^22 is the greatest power of ten that is a double
        simple[:] = False
    rest = np.flatnonzero(~simple)
    if len(rest):
        texts = array.take(int64_array(rest)).cast(pa.string())
        doubles[rest] = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return _numbers(doubles)


def _hash_hugeint(array: pa.Array, *, signed: bool) -> Hashes:
    low, high = fixed_values(array, np.uint64, 2).reshape(-1, 2).T
    doubles = low.astype(np.float64)
    wide = high != 0
    if signed:
        negative = (high == np.uint64(2**64 - 1)) & (low >= np.uint64(2**63))
        doubles[negative] = low[negative].view(np.int64)
        wide &= ~negative
    for i in np.flatnonzero(wide):
        value = (int(high[i]) << 64) + int(low[i])
        doubles[i] = float(value - 2**128 if signed and value >= 2**127 else value)
    return _numbers(doubles)


_UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _hash_time(array: pa.Array) -> Hashes:
    kind = array.type
    dtype = np.int32 if kind.bit_width == 32 else np.int64
    raw = fixed_values(array, dtype).astype(np.int64)
    if pa.types.is_date32(kind):
        return _times(_finite(raw, raw * 86_400_000_000, _INFINITE_DATE))
    per_second = 1_000 if pa.types.is_date64(kind) else _UNITS_PER_SECOND[kind.unit]
    us = raw // 1_000 if per_second > 1_000_000 else raw * (1_000_000 // per_second)
    return _times(_finite(raw, us, _INFINITE_TIME))


def _finite(raw: Ints, us: Ints, infinity: int) -> Ints:
    us[raw == infinity] = _INFINITE_TIME
    us[raw == -infinity] = -_INFINITE_TIME
    return us


_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("ns", "<i8")])


def _hash_interval(array: pa.Array) -> Hashes:
    raw = fixed_values(array, _INTERVAL)
    days = raw["months"].astype(np.int64) * 30 + raw["days"]
    return _times(days * 86_400_000_000 + raw["ns"] // 1_000)


def _hash_dictionary(array: pa.Array) -> Hashes:
    values = _array(array.dictionary)
    indices = fixed_values(array.indices.fill_null(0).cast(pa.int64()), np.int64)
    return values[indices] if len(values) else _constant(1, len(array))


def _hash_extension(array: pa.Array) -> Hashes:
    kind = array.type
    if isinstance(kind, pa.OpaqueType) and kind.type_name in ("hugeint", "uhugeint"):
        return _hash_hugeint(array.storage, signed=kind.type_name == "hugeint")
    if isinstance(kind, pa.Bool8Type):
        return _hash_bool(array.storage.cast(pa.bool_()))
    return _array(array.storage)


# ---- bytes


def _hash_bytes(array: pa.Array) -> Hashes:
    data, starts, lengths = spans(array)
    words = words_at(data)
    sums = np.empty(len(starts), np.uint64)
    for begin in range(0, len(starts), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        sums[rows] = _span_sums(words, starts[rows], lengths[rows])
    sums += lengths.view(np.uint64)
    sums += _salt(4)
    return _mix(sums)


def _span_sums(words: Hashes, starts: Ints, lengths: Ints) -> Hashes:
    """One word of all rows at a time, as long as many rows have so many; then row by row."""
    sums = _mix(gathered(words, starts, lengths) + _PHI)
    counts = (lengths + 7) // 8
    most = int(counts.max(initial=1))
    place = 1
    rows = np.flatnonzero(counts > place)
    while len(rows) > min(_FEW_ROWS, most - place):
        word = gathered(words, starts[rows] + 8 * place, lengths[rows] - 8 * place)
        word += np.uint64((place + 1) * int(_PHI) % 2**64)
        sums[rows] += _mix(word)
        place += 1
        rows = rows[counts[rows] > place]
    for row in rows:
        rest = _tail_sum(words, int(starts[row]), int(lengths[row]), place)
        sums[row] = (int(sums[row]) + rest) % 2**64
    return sums


def _tail_sum(words: Hashes, start: int, length: int, place: int) -> int:
    """What the words from a place on add to the sum of one row."""
    total = 0
    while 8 * place < length:
        count = min(_MAX_WORDS, -(-(length - 8 * place) // 8))
        begin = start + 8 * place
        taken = words[begin : begin + 8 * count : 8].copy()
        if 8 * (place + count) > length:
            taken[-1] &= last_mask(length - 8 * (place + count - 1))
        taken += np.arange(place + 1, place + count + 1).view(np.uint64) * _PHI
        total += int(_mix(taken).sum())
        place += count
    return total


# ---- nested


def _hash_list(array: pa.Array) -> Hashes:
    if not len(array):
        return np.empty(0, np.uint64)
    offsets = fixed_values(array.offsets.cast(pa.int64()), np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return _lists(_array(values), np.diff(offsets))


def _hash_fixed_list(array: pa.Array) -> Hashes:
    size = array.type.list_size
    values = array.values.slice(array.offset * size, len(array) * size)
    return _lists(_array(values), np.full(len(array), size))


def _hash_list_view(array: pa.Array) -> Hashes:
    sizes = fixed_values(pc.list_value_length(array).fill_null(0).cast(pa.int64()), np.int64)
    return _lists(_array(array.flatten()), sizes)


def _lists(elements: Hashes, counts: Ints) -> Hashes:
    return _mix(_sums(elements, counts) + counts.view(np.uint64) + _salt(5))


def _hash_struct(array: pa.Array) -> Hashes:
    if not array.type.num_fields:
        return _constant(6, len(array))
    return _combined([_array(array.field(i)) for i in range(array.type.num_fields)])


def _hash_union(array: pa.Array) -> Hashes:
    codes, offsets = union_places(array)
    members = np.zeros(len(array), np.uint64)
    for i, code in enumerate(array.type.type_codes):
        rows = np.flatnonzero(codes == code)
        member = array.field(i).take(int64_array(rows if offsets is None else offsets[rows]))
        members[rows] = _array(member)
    return _mix(members * _PHI + codes.astype(np.uint64))


_HASHERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], Hashes]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _hash_extension),
    (pa.types.is_null, _hash_null),
    (pa.types.is_boolean, _hash_bool),
    (pa.types.is_integer, _hash_number),
    (pa.types.is_floating, _hash_number),
    (pa.types.is_decimal, _hash_decimal),
    (pa.types.is_interval, _hash_interval),
    (pa.types.is_temporal, _hash_time),
    (is_bytes, _hash_bytes),
    (pa.types.is_dictionary, _hash_dictionary),
    (pa.types.is_list, _hash_list),
    (pa.types.is_large_list, _hash_list),
    (pa.types.is_map, _hash_list),
    (pa.types.is_fixed_size_list, _hash_fixed_list),
    (pa.types.is_list_view, _hash_list_view),
    (pa.types.is_large_list_view, _hash_list_view),
    (pa.types.is_struct, _hash_struct),
    (pa.types.is_union, _hash_union),
)
