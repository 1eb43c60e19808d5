"""Computed rows for torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from smallpond.handoff import Part, iter_part, slice_part
from smallpond.plan import BATCH_ROWS, Computed


def dataset(computed: Computed, batch_size: int | None) -> IterableDataset[Any]:
    """An IterableDataset over the parts of a computed plan."""
    parts = tuple(part for _, parts in computed.partitions for part in parts)
    return _Rows(parts, batch_size)


class _Rows(IterableDataset[Any]):
    """Each worker of each rank yields an equal run of the rows (up to one)."""

    def __init__(self, parts: tuple[Part, ...], batch_size: int | None) -> None:
        super().__init__()
        self._parts = parts
        self._batch_size = batch_size

    def __len__(self) -> int:
        rows = sum(part.rows for part in self._parts)
        return rows if self._batch_size is None else -(-rows // self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        rank, ranks = _rank()
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        share, shares = rank * workers + worker, ranks * workers
        total = sum(part.rows for part in self._parts)
        begin, end = total * share // shares, total * (share + 1) // shares
        position = 0
        for part in self._parts:
            first, last = max(begin, position), min(end, position + part.rows)
            if first < last:
                yield from self._of(slice_part(part, first - position, last - position))
            position += part.rows

    def _of(self, part: Part) -> Iterator[Any]:
        for batch in iter_part(part, self._batch_size or BATCH_ROWS):
            if self._batch_size is None:
                yield from batch.to_pylist()
            else:
                yield {name: _tensor(batch.column(name)) for name in batch.schema.names}


def _rank() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _tensor(column: pa.Array) -> Any:
    """A tensor where the values are numbers, else a list."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy())
    return column.to_pylist()
