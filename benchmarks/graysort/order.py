"""The stable order of records by key, found with sorts of plain 64-bit numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.graysort.records import HighWords, LowWords, Rows, key_words

_KEY_BITS = 80
MAX_ROWS = 2**28  # a round still takes 8 bits of the key when all of them are in groups of two

Order = NDArray[np.int64]  # [num_records]


def stable_order(rows: Rows) -> Order:
    """Returns the order that sorts records by their 10-byte key; equal keys keep their order.

    A round packs the next bits of the key above the record's place into one number and sorts these
    numbers: that is several times faster than a sort that moves an index along. Records that are
    still equal go through the next round, with the number of their group on top. Random keys are
    in order after the first round but for a handful.
    """
    if len(rows) > MAX_ROWS:
        raise ValueError(f"stable_order: rows must be at most {MAX_ROWS}, got {len(rows)}")
    high, low = key_words(rows)
    order, tied = np.arange(len(rows)), np.arange(len(rows))
    groups = np.zeros(len(rows), np.uint64)
    known_bits = 0
    while len(tied) > 1 and known_bits < _KEY_BITS:
        members = order[tied]
        place_bits = (len(tied) - 1).bit_length()
        group_bits = int(groups[-1]).bit_length()
        taken = min(64 - place_bits - group_bits, _KEY_BITS - known_bits)
        packed = _key_bits(high[members], low[members], known_bits, taken)
        packed |= groups << np.uint64(taken)
        packed <<= np.uint64(place_bits)
        packed |= np.arange(len(tied), dtype=np.uint64)
        packed.sort()
        places = packed & np.uint64(2**place_bits - 1)
        order[tied] = members[places.view(np.int64)]
        packed >>= np.uint64(place_bits)
        known_bits += taken
        tied, groups = _still_tied(packed, tied)
    return order


def _key_bits(high: HighWords, low: LowWords, begin: int, count: int) -> NDArray[np.uint64]:
    """Returns bits ``begin`` to ``begin + count - 1`` of 80-bit keys, counted from the top."""
    end = begin + count
    if end <= 64:
        bits = high >> np.uint64(64 - end)
    else:
        bits = high << np.uint64(end - 64)
        bits |= low >> np.uint64(_KEY_BITS - end)
    bits &= np.uint64(2**count - 1)
    return bits


def _still_tied(packed: NDArray[np.uint64], tied: Order) -> tuple[Order, NDArray[np.uint64]]:
    """Returns the places of records with an equal neighbour, and the groups that these form."""
    differs = np.ones(len(packed) + 1, bool)
    np.not_equal(packed[1:], packed[:-1], out=differs[1:-1])
    among_equals = np.flatnonzero(~(differs[1:] & differs[:-1]))
    groups = np.cumsum(differs[among_equals], dtype=np.uint64)
    groups -= np.uint64(1)
    return tied[among_equals], groups
