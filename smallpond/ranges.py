"""Which range of a global order a row is in, in DuckDB's sense of order.

A key becomes integers that compare like it, one after the other: whether it is NULL, then the
number, or the bytes of a text eight at a time and its length. A row is compared with all boundaries
at once, integer by integer, until it is certain between which of them it lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smallpond.buffers import Ints, fixed_values, gathered, is_bytes, is_null, spans, words_at

Array: TypeAlias = pa.Array | pa.ChunkedArray
Words: TypeAlias = NDArray[Any]  # integers of one type


@np.errstate(invalid="ignore")  # signaling NaNs are as good as others
def range_ids(
    boundaries: pa.Table,
    columns: Sequence[Array],
    descending: Sequence[bool],
    nulls_first: Sequence[bool],
) -> NDArray[np.uint32]:
    """How many boundaries are not after each row.

    Args:
        boundaries: rows of keys in the order, one column for each key.
        columns: the keys of the rows to place.
        descending: for each key, whether greater values come first.
        nulls_first: for each key, whether NULL comes before or after all else.

    Raises:
        TypeError: a type without a known order.
    """
    search = _Search(len(columns[0]), boundaries.num_rows)
    for bound_column, column, down, first in zip(
        boundaries.columns, columns, descending, nulls_first, strict=True
    ):
        rows, bounds = _of_one_type(_joined(column), _joined(bound_column))
        for row_words, bound_words in _null_words(rows, bounds, nulls_first=first):
            search.refine(row_words, bound_words)
        for row_words, bound_words in _value_words(rows, bounds):
            if search.settled:
                break
            search.refine(*((~row_words, ~bound_words) if down else (row_words, bound_words)))
    return search.high.astype(np.uint32)


class _Search:
    """For each row the boundaries, from ``low`` up to ``high``, that equal it so far."""

    def __init__(self, num_rows: int, num_bounds: int) -> None:
        self._low = np.zeros(num_rows, np.int64)
        self.high = np.full(num_rows, num_bounds, np.int64)
        self._bounds_low = np.zeros(num_bounds, np.int64)  # the first equal one of each boundary

    @property
    def settled(self) -> bool:
        return bool((self._low == self.high).all())

    def refine(self, row_words: Words, bound_words: Words) -> None:
        """Compares by one more integer."""
        tied = np.flatnonzero(self._low < self.high)
        rows, bounds = row_words[tied], bound_words
        if self._bounds_low.any() or len(tied) < len(self._low):
            # Equal so far comes before the new integer: one number in the order of both.
            distinct = np.unique(bounds)
            width = 2 * len(distinct) + 1
            rows = self._low[tied] * width + _ranks(distinct, rows)
            bounds = self._bounds_low * width + _ranks(distinct, bounds)
        self._low[tied], self.high[tied] = _equal_range(bounds, rows)
        self._bounds_low = np.searchsorted(bounds, bounds)


def _equal_range(bounds: Words, words: Words) -> tuple[Ints, Ints]:
    """Where the boundaries that equal each word begin and end."""
    low: Ints = np.searchsorted(bounds, words).astype(np.int64)
    high = low.copy()
    equal = _are_at(bounds, low, words)
    high[equal] = np.searchsorted(bounds, words[equal], side="right")
    return low, high


def _ranks(distinct: Words, words: Words) -> Ints:
    """2i for a word before the i-th of the distinct ones, 2i + 1 for that itself."""
    places: Ints = np.searchsorted(distinct, words).astype(np.int64)
    return 2 * places + _are_at(distinct, places, words)


def _are_at(ordered: Words, places: Ints, words: Words) -> NDArray[np.bool_]:
    """Whether a word is what stands at its place; beyond the end stands nothing."""
    if not len(ordered):
        return np.zeros(len(words), np.bool_)
    there: NDArray[np.bool_] = places < len(ordered)
    there &= ordered[np.minimum(places, len(ordered) - 1)] == words
    return there


def _joined(column: Array) -> pa.Array:
    """One array of a plain type."""
    if isinstance(column, pa.ChunkedArray):
        empty = pa.nulls(0, column.type)
        return pa.concat_arrays([_joined(chunk) for chunk in (empty, *column.chunks)])
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _joined(column.dictionary_decode())
    if isinstance(kind, pa.Bool8Type):
        return column.storage.cast(pa.bool_())
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.OpaqueType):
        return _joined(column.storage)
    return column


def _of_one_type(rows: pa.Array, bounds: pa.Array) -> tuple[pa.Array, pa.Array]:
    if rows.type.equals(bounds.type):
        return rows, bounds
    if pa.types.is_null(rows.type):
        return rows.cast(bounds.type), bounds
    return rows, bounds.cast(rows.type)


def _null_words(
    rows: pa.Array, bounds: pa.Array, *, nulls_first: bool
) -> Iterator[tuple[Words, Words]]:
    if rows.null_count or bounds.null_count:
        flags = (is_null(rows), is_null(bounds))
        yield (~flags[0], ~flags[1]) if nulls_first else flags


def _value_words(rows: pa.Array, bounds: pa.Array) -> Iterator[tuple[Words, Words]]:
    if is_bytes(rows.type):
        pairs = _byte_words(rows, bounds)
    else:
        pairs = zip(_fixed_words(rows), _fixed_words(bounds), strict=True)
    for row_words, bound_words in pairs:
        yield _without_nulls(rows, row_words), _without_nulls(bounds, bound_words)


def _without_nulls(array: pa.Array, words: Words) -> Words:
    return np.where(is_null(array), words.dtype.type(0), words) if array.null_count else words


def _byte_words(rows: pa.Array, bounds: pa.Array) -> Iterator[tuple[Words, Words]]:
    """Eight bytes at a time, as far as the longest boundary goes; then the lengths.

    Behind the end of a text come zeros, so that only its length tells it from one that ends in
    zeros itself; a row that goes on behind all boundaries that it equals is longer than they are.
    """
    row_data, row_starts, row_lengths = spans(rows)
    bound_data, bound_starts, bound_lengths = spans(bounds)
    row_words, bound_words = words_at(row_data), words_at(bound_data)
    for place in range(0, int(bound_lengths.max(initial=0)), 8):
        yield (
            _word_at(row_words, row_starts, row_lengths, place),
            _word_at(bound_words, bound_starts, bound_lengths, place),
        )
    yield row_lengths, bound_lengths


def _word_at(words: Words, starts: Ints, lengths: Ints, place: int) -> Words:
    """The eight bytes from a place on in each text, as a number that compares like them."""
    begins = np.where(lengths > place, starts + place, 0)
    return gathered(words, begins, np.maximum(lengths - place, 0)).byteswap()


def _fixed_words(array: pa.Array) -> list[Words]:
    kind = array.type
    if pa.types.is_null(kind):
        return []
    if pa.types.is_boolean(kind):
        return [fixed_values(array.cast(pa.int8()), np.int8)]
    if pa.types.is_floating(kind):
        return [_ordered_bits(fixed_values(array.cast(pa.float64()), np.float64) + 0.0)]
    if pa.types.is_integer(kind):
        return [
            fixed_values(
                array, f"{'i' if pa.types.is_signed_integer(kind) else 'u'}{kind.byte_width}"
            )
        ]
    if pa.types.is_decimal(kind):
        return _wide_words(array, kind.byte_width, signed=True)
    if isinstance(kind, pa.OpaqueType) and kind.type_name in ("hugeint", "uhugeint"):
        return _wide_words(array.storage, 16, signed=kind.type_name == "hugeint")
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return [fixed_values(array, np.int32 if kind.bit_width == 32 else np.int64)]
    msg = f"range_ids: values of type {kind} have no known order (cast them to a plain type)"
    raise TypeError(msg)


def _ordered_bits(doubles: NDArray[np.float64]) -> Words:
    """Integers in the order of the doubles, with all NaN as one above all others."""
    bits = doubles.view(np.int64)
    ordered: Words = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)
    ordered[np.isnan(doubles)] = 2**63 - 1
    return ordered


def _wide_words(array: pa.Array, width: int, *, signed: bool) -> list[Words]:
    """Integers of any width: their highest word first, which alone has the sign."""
    if width < 8:
        return [fixed_values(array, f"<i{width}")]
    count = width // 8
    words = fixed_values(array, "<u8", count).reshape(-1, count)
    highest = words[:, -1].view(np.int64) if signed else words[:, -1]
    return [highest, *(words[:, i] for i in range(count - 2, -1, -1))]
