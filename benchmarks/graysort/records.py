"""The public record format of the sort benchmarks: 100 bytes, the first ten of which are the key.

Record i is made of the (i + 1)-th value x of the sequence x' = a x + c mod 2^128 that begins at 0:

    bytes  0- 9   the key: the top 80 bits of x
    bytes 10-11   00 11
    bytes 12-43   i as 32 hexadecimal digits
    bytes 44-47   88 99 AA BB
    bytes 48-95   the low 48 bits of x as 12 hexadecimal digits, each of them four times
    bytes 96-99   CC DD EE FF

Any range of records can be made by itself: k steps of the sequence are one step of another.

The skewed records are this project's own definition. With t leading zeros in bits 16-47 of x, a
record with t = 0 (half of them) keeps its key. The others have the key of record t, whole if t is
odd (a quarter of all records share one key) and its first 8 bytes if t is even.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RECORD_BYTES = 100
KEY_BYTES = 10
MAX_RECORDS = 2**63  # record numbers and file offsets are 64-bit

Rows = NDArray[np.uint8]  # [num_records, 100]
HighWords = NDArray[np.uint64]  # [num_records], bytes 0-7 of each key
LowWords = NDArray[np.uint16]  # [num_records], bytes 8-9
Words = NDArray[np.uint64]

_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_INCREMENT = 0x4A696D47726179524950202020202001
_WORD, _HALF = 2**64 - 1, np.uint64(2**32 - 1)
_BLOCK_RECORDS = 16_384  # its words stay in the second-level cache

_LAYOUT = np.dtype(
    [
        ("key_high", ">u8"),
        ("key_low", ">u2"),
        ("first_mark", "V2"),
        ("number_high", "V16"),
        ("number", "<u2", (8,)),
        ("second_mark", "V4"),
        ("filler", "<u8", (6,)),
        ("third_mark", "V4"),
    ]
)
_TEMPLATE = np.frombuffer(
    bytes(10) + b"\x00\x11" + b"0" * 32 + b"\x88\x99\xaa\xbb" + bytes(48) + b"\xcc\xdd\xee\xff",
    dtype=np.uint8,
)
# A byte -> its two hexadecimal digits, and the same with each digit four times.
_DIGITS = np.array([int.from_bytes(b"%02X" % byte, "little") for byte in range(256)], np.uint16)
_FILLERS = np.array(
    [
        int.from_bytes(b"".join(bytes([digit]) * 4 for digit in b"%02X" % byte), "little")
        for byte in range(256)
    ],
    np.uint64,
)


def generate(first: int, num_records: int, *, skewed: bool = False) -> Rows:
    """Returns records ``first`` to ``first + num_records - 1`` as [num_records, 100] uint8."""
    if first < 0 or num_records < 0 or first + num_records > MAX_RECORDS:
        raise ValueError(
            f"generate: record numbers must lie within 0 and 2^63, got {num_records} from {first}"
        )
    rows = np.empty((num_records, RECORD_BYTES), np.uint8)
    for begin in range(0, num_records, _BLOCK_RECORDS):
        _fill(rows[begin : begin + _BLOCK_RECORDS], first + begin, skewed=skewed)
    return rows


def key_words(rows: Rows) -> tuple[HighWords, LowWords]:
    """Returns the first 8 and the last 2 bytes of each key as numbers that compare as they do."""
    fields = rows.view(_LAYOUT)[:, 0]
    return fields["key_high"].astype(np.uint64), fields["key_low"].astype(np.uint16)


def text_keys(rows: Rows) -> Rows:
    """Returns the same records with printable keys and a line feed at the end, for text tools.

    The order of the keys changes, their number and that of duplicates nearly not.
    """
    lines = rows.copy()
    lines[:, :KEY_BYTES] = (rows[:, :KEY_BYTES].astype(np.uint16) * 95 >> 8) + 32
    body = lines[:, KEY_BYTES:]
    body[(body < 32) | (body > 126)] = ord(".")
    lines[:, -1] = ord("\n")
    return lines


def _fill(rows: Rows, first: int, *, skewed: bool) -> None:
    num_records = len(rows)
    high, low = _sequence(first + 1, num_records)
    key_low = low >> np.uint64(48)
    rows[:] = _TEMPLATE
    fields = rows.view(_LAYOUT)[:, 0]
    low_48 = low.astype(">u8").view(np.uint8).reshape(num_records, 8)[:, 2:]
    fields["filler"] = _FILLERS[low_48]
    number = np.arange(first, first + num_records, dtype=">u8")
    fields["number"] = _DIGITS[number.view(np.uint8).reshape(num_records, 8)]
    if skewed:
        high, key_low = _skew(high, key_low, low)
    fields["key_high"], fields["key_low"] = high, key_low


def _skew(key_high: Words, key_low: Words, low: Words) -> tuple[Words, Words]:
    # The exponent of a number in [2^(e-1), 2^e) is e; of 0 it is 0.
    exponent = np.frexp(((low >> np.uint64(16)) & _HALF).astype(np.float64))[1]
    num_zeros = 32 - exponent
    shared_high, shared_low = _sequence(1, 33)
    own = num_zeros == 0
    own_low = num_zeros % 2 == 0
    return (
        np.where(own, key_high, shared_high[num_zeros]),
        np.where(own_low, key_low, shared_low[num_zeros] >> np.uint64(48)),
    )


def _sequence(first: int, count: int) -> tuple[Words, Words]:
    """Returns the high and low halves of ``count`` values of the sequence from the first-th on."""
    high, low = np.empty(count, np.uint64), np.empty(count, np.uint64)
    _, start = _steps(first)
    if count:
        high[0], low[0] = start >> 64, start & _WORD
    # What is there makes as many again: all of it moved on by the number of values there are.
    for known, more in _doublings(count):
        multiplier, increment = _steps(known)
        target = slice(known, known + more)
        high[target], low[target] = _affine(high[:more], low[:more], multiplier, increment)
    return high, low


def _doublings(count: int) -> Iterator[tuple[int, int]]:
    known = 1
    while known < count:
        more = min(known, count - known)
        yield known, more
        known += more


def _steps(count: int) -> tuple[int, int]:
    """Returns the multiplier and the increment of ``count`` steps taken at once."""
    multiplier, increment = 1, 0
    step_multiplier, step_increment = _MULTIPLIER, _INCREMENT
    while count:
        if count & 1:
            multiplier = multiplier * step_multiplier % 2**128
            increment = (increment * step_multiplier + step_increment) % 2**128
        step_increment = (step_increment * step_multiplier + step_increment) % 2**128
        step_multiplier = step_multiplier * step_multiplier % 2**128
        count >>= 1
    return multiplier, increment


def _affine(high: Words, low: Words, multiplier: int, increment: int) -> tuple[Words, Words]:
    """Returns multiplier * x + increment mod 2^128 of x in two words each."""
    shift = np.uint64(32)
    factor_high, factor_low = np.uint64(multiplier >> 64), np.uint64(multiplier & _WORD)
    factor_1, factor_0 = factor_low >> shift, factor_low & _HALF
    low_1, low_0 = low >> shift, low & _HALF
    cross_a, cross_b = low_0 * factor_1, low_1 * factor_0
    middle = (low_0 * factor_0 >> shift) + (cross_a & _HALF) + (cross_b & _HALF)
    carried = low_1 * factor_1 + (cross_a >> shift) + (cross_b >> shift) + (middle >> shift)
    product_high = carried + high * factor_low + low * factor_high
    term_low = np.uint64(increment & _WORD)
    result_low = low * factor_low + term_low
    carry = (result_low < term_low).astype(np.uint64)
    return product_high + np.uint64(increment >> 64) + carry, result_low
