"""Spreads rows over partitions: into one file, in their order, by numbers given with each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smallpond.columns import int64_array
from smallpond.errors import PlanError
from smallpond.ranges import range_ids

__all__ = ["range_ids", "split_batches"]

BUFFER_BYTES = 64 << 20


class Appender(Protocol):
    """What rows go to, such as a `PartWriter`."""

    def append(self, partition_idx: int, data: pa.RecordBatch | pa.Table) -> None:
        """Adds rows to a partition."""
        ...


def split_batches(
    reader: Iterable[pa.RecordBatch],
    ids: Callable[[pa.RecordBatch], NDArray[Any]],
    n: int,
    writer: Appender,
    *,
    drop: Sequence[str] = (),
    buffer_bytes: int = BUFFER_BYTES,
) -> None:
    """Appends every row to its partition; the rows of each partition keep the order they came in.

    Args:
        reader: the rows.
        ids: gives the partition of each row of a batch; NaN and None mean NULL.
        n: how many partitions there are.
        writer: what the rows go to, without the columns in ``drop``.
        drop: columns that only ``ids`` needs.
        buffer_bytes: so much is collected before it is put in order and written.

    Raises:
        PlanError: a partition number is NULL or not in 0 .. n - 1.
    """
    held: list[pa.RecordBatch] = []
    held_ids: list[NDArray[Any]] = []
    held_bytes = 0
    for batch in reader:
        if not batch.num_rows:
            continue
        held_ids.append(_checked(ids(batch), n))
        held.append(batch.drop_columns(list(drop)) if drop else batch)
        held_bytes += held[-1].nbytes
        if held_bytes >= buffer_bytes:
            _flush(held, held_ids, n, writer)
            held, held_ids, held_bytes = [], [], 0
    if held:
        _flush(held, held_ids, n, writer)


def _checked(ids: NDArray[Any], n: int) -> NDArray[Any]:
    """The ids in the narrowest type that holds n, which sorts fastest."""
    outside = ~((ids >= 0) & (ids < n))
    if outside.any():
        wrong = ids[outside][0]
        shown = "NULL" if np.isnan(wrong) else int(wrong)
        raise PlanError(f"partition key {shown} is out of range 0-{n - 1}")
    return ids.astype(np.min_scalar_type(max(0, n - 1)))


def _flush(
    batches: list[pa.RecordBatch], ids: list[NDArray[Any]], n: int, writer: Appender
) -> None:
    keys = np.concatenate(ids)
    counts = np.bincount(keys, minlength=n)
    occupied = np.flatnonzero(counts)
    if len(occupied) == 1:
        for batch in batches:
            writer.append(int(occupied[0]), batch)
        return
    # A stable sort of 8 or 16 bits is a radix sort.
    order = int64_array(np.argsort(keys, kind="stable"))
    rows = _joined(batches).take(order)
    begin = 0
    for partition_idx in occupied:
        count = int(counts[partition_idx])
        writer.append(int(partition_idx), rows.slice(begin, count))
        begin += count


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch | pa.Table:
    """One batch of all rows; a table where 32-bit offsets do not suffice for that."""
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).combine_chunks()
    whole = table.to_batches()
    return whole[0] if len(whole) == 1 else table
