"""Where the partitions of a sort begin.

A split point is a record's key and its position in the input, 18 bytes that compare as the two do.
No two records have the same, so that partitions are of equal size whatever the keys are: even if
all of them are equal.
"""

from __future__ import annotations

import bisect
import random

import numpy as np
from numpy.typing import NDArray

from benchmarks.graysort.order import Order
from benchmarks.graysort.records import KEY_BYTES, Rows, key_words

_POSITION_BYTES = 8
SPLIT_BYTES = KEY_BYTES + _POSITION_BYTES


def sample_positions(num_records: int, num_samples: int, seed: int) -> list[int]:
    """Returns a random position from each of ``num_samples`` equal stretches of the input."""
    if num_records <= num_samples:
        return list(range(num_records))
    chosen = random.Random(seed)
    bounds = [idx * num_records // num_samples for idx in range(num_samples + 1)]
    return [chosen.randrange(*bounds[idx : idx + 2]) for idx in range(num_samples)]


def split_point(key: bytes, position: int) -> bytes:
    return key + position.to_bytes(_POSITION_BYTES, "big")


def choose_splits(samples: list[bytes], num_partitions: int) -> list[bytes]:
    """Returns ``num_partitions - 1`` quantiles of the samples, which need not be sorted."""
    ranked = sorted(samples)
    if not ranked:
        return []
    return [ranked[idx * len(ranked) // num_partitions] for idx in range(1, num_partitions)]


def partition_ends(
    rows: Rows, order: Order, first_position: int, splits: list[bytes]
) -> NDArray[np.int64]:
    """Returns where each partition ends in sorted records.

    Args:
        rows: [num_records, 100], a stretch of the input.
        order: sorts the rows, equal keys by position.
        first_position: of the stretch in the input.
        splits: sorted; a record equal to one belongs to the partition after it.

    Returns:
        [num_partitions] numbers of records, in all partitions up to and with each.
    """
    ends = np.full(len(splits) + 1, len(rows), np.int64)
    if not splits:
        return ends
    high = key_words(rows)[0][order]
    wanted = np.frombuffer(b"".join(split[:8] for split in splits), ">u8").astype(np.uint64)

    def point(place: int) -> bytes:
        row_idx = int(order[place])
        return split_point(rows[row_idx, :KEY_BYTES].tobytes(), first_position + row_idx)

    # Numbers find the few records that share 8 bytes with the split; only these are looked at.
    lows, highs = np.searchsorted(high, wanted), np.searchsorted(high, wanted, side="right")
    for idx, (split, low, end) in enumerate(zip(splits, lows, highs, strict=True)):
        ends[idx] = bisect.bisect_left(range(int(end)), split, lo=int(low), key=point)
    return ends
