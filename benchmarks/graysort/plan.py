"""How a sort of so many records is cut into tasks that fit a memory limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.graysort.tasks import GraySortError

# What a worker needs before its first record: the interpreter, numpy, file buffers.
PROCESS_BYTES = 64 * 2**20
# The record, and at most 84 bytes of numbers while its place is sought; allocators round up.
BYTES_PER_RECORD = 200
# 25 MB: below 32 MB the allocator keeps memory for the next task instead of returning it to the
# system, whose zeroed pages cost more than the sort itself.
_PREFERRED_RECORDS = 250_000
# Shorter slices of runs would make a slow disk seek: 256 kB each.
_SLICE_RECORDS = 2_621
SAMPLES_PER_PARTITION = 128
# The largest partition is within twice the mean but with a probability under 1e-16: with 128
# samples each, a partition's share is Gamma(128) distributed.
_HEADROOM = 2
_LEAST_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a sort.

    Attributes:
        num_records: of the input.
        chunk_records: how many of them a partition task reads, sorts and writes as one run.
        num_partitions: how many ranges of keys there are, each sorted by one task.
        capacity_records: the most that a task can hold.
    """

    num_records: int
    chunk_records: int
    num_partitions: int
    capacity_records: int

    @property
    def num_chunks(self) -> int:
        return math.ceil(self.num_records / self.chunk_records)

    def chunks(self) -> list[tuple[int, int]]:
        """(first record, number of records) of each partition task."""
        return [
            (first, min(self.chunk_records, self.num_records - first))
            for first in range(0, self.num_records, self.chunk_records)
        ]


def make_plan(num_records: int, memory_bytes: int, num_workers: int) -> Plan:
    """Returns sizes with which all workers together stay within ``memory_bytes``."""
    least = num_workers * (PROCESS_BYTES + _LEAST_RECORDS * _HEADROOM * BYTES_PER_RECORD)
    if memory_bytes < least:
        raise GraySortError(
            f"--memory-limit: memory must be at least {least / 1e6:.0f} MB for {num_workers} "
            f"workers, got {memory_bytes / 1e6:.0f} MB (raise it, or lower --workers)"
        )
    capacity = (memory_bytes // num_workers - PROCESS_BYTES) // BYTES_PER_RECORD
    preferred = max(_PREFERRED_RECORDS, math.isqrt(num_records * _SLICE_RECORDS))
    partition_records = min(preferred, capacity // _HEADROOM)
    return Plan(
        num_records=num_records,
        chunk_records=min(preferred, capacity),
        num_partitions=max(1, math.ceil(num_records / partition_records)),
        capacity_records=capacity,
    )
