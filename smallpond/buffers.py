"""The memory of Arrow arrays as numpy arrays, without a copy where there is a way."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

_WORD_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)


def is_null(array: pa.Array) -> NDArray[np.bool_]:
    """Which rows are NULL."""
    nulls = array.is_null()
    bits = np.frombuffer(nulls.buffers()[1], np.uint8)
    end = nulls.offset + len(nulls)
    return np.unpackbits(bits, count=end, bitorder="little")[nulls.offset :].view(np.bool_)


def fixed_values(array: pa.Array, dtype: Any, per_row: int = 1) -> NDArray[Any]:
    """The values of an array of fixed width, read-only; anything where it is NULL."""
    values = np.frombuffer(array.buffers()[1] or b"", dtype)
    return values[array.offset * per_row : (array.offset + len(array)) * per_row]


def union_places(array: pa.Array) -> tuple[NDArray[np.int8], NDArray[np.int32] | None]:
    """The type code of each row of a union, and, if it is dense, the row of the member.

    The array's own attributes disregard that it may be a slice.
    """
    codes = fixed_values(array, np.int8)
    if array.type.mode == "sparse":
        return codes, None
    offsets = np.frombuffer(array.buffers()[2] or b"", np.int32)
    return codes, offsets[array.offset : array.offset + len(array)]


def is_bytes(kind: pa.DataType) -> bool:
    """Whether `spans` takes arrays of a type."""
    return any(
        fits(kind)
        for fits in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
    )


def spans(array: pa.Array) -> tuple[NDArray[np.uint8], Ints, Ints]:
    """The bytes of texts or binaries, and where each begins and how long it is."""
    kind = array.type
    if pa.types.is_string_view(kind):
        return spans(array.cast(pa.large_string()))
    if pa.types.is_binary_view(kind):
        return spans(array.cast(pa.large_binary()))
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        held = fixed_values(array, np.uint8, width) if width else np.empty(0, np.uint8)
        return held, np.arange(len(array)) * width, np.full(len(array), width, np.int64)
    if not len(array):
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    _, offsets_buffer, data = array.buffers()
    raw = np.frombuffer(offsets_buffer, np.int64 if large else np.int32)
    offsets: Ints = raw[array.offset : array.offset + len(array) + 1].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    held = np.frombuffer(data.slice(first, last - first) if data is not None else b"", np.uint8)
    return held, offsets[:-1] - first, np.diff(offsets)


def words_at(data: NDArray[np.uint8]) -> Words:
    """The eight bytes from every place on, as a little-endian word; zeros follow the data."""
    padded = np.zeros(len(data) + 8, np.uint8)
    padded[: len(data)] = data
    return np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))


def gathered(words: Words, places: Ints, lengths: Ints) -> Words:
    """The words at these places, with zeros for bytes beyond the length."""
    found: Words = words[places]
    found &= _WORD_MASKS[np.minimum(lengths, 8)]
    return found


def last_mask(length: int) -> np.uint64:
    """What is left of a word of which so many bytes count."""
    mask: np.uint64 = _WORD_MASKS[length]
    return mask
