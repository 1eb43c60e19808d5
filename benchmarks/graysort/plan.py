"""How a sort of so many records is cut into tasks that fit a memory limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.graysort.order import MAX_ROWS
from benchmarks.graysort.records import RECORD_BYTES
from benchmarks.graysort.tasks import GraySortError

# What a worker needs before its first record: the interpreter and the libraries, of which those
# of DuckDB and Arrow are most.
PROCESS_BYTES = 176 * 2**20
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
# About the most parts of runs that partitions gather; the driver keeps 12 bytes for each.
MAX_PARTS = 2**22


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

    @property
    def num_bytes(self) -> int:
        return self.num_records * RECORD_BYTES

    def chunks(self) -> list[tuple[int, int]]:
        """(first record, number of records) of each partition task."""
        return [
            (first, min(self.chunk_records, self.num_records - first))
            for first in range(0, self.num_records, self.chunk_records)
        ]


def make_plan(num_records: int, memory_bytes: int, num_workers: int) -> Plan:
    """Returns sizes with which all workers together stay within ``memory_bytes``."""
    # With tasks of capacity c there are n / c runs and n / (c / headroom) partitions.
    least_capacity = max(
        _HEADROOM * _LEAST_RECORDS,
        math.ceil(num_records / math.isqrt(MAX_PARTS // _HEADROOM)) + _HEADROOM,
    )
    if least_capacity > MAX_ROWS:
        raise GraySortError(
            f"--bytes: two passes sort at most about {MAX_ROWS * num_records // least_capacity} "
            f"records, got {num_records}"
        )
    least = num_workers * (PROCESS_BYTES + least_capacity * BYTES_PER_RECORD)
    if memory_bytes < least:
        raise GraySortError(
            f"--memory-limit: memory must be at least {math.ceil(least / 1e6)} MB for "
            f"{num_workers} workers and {num_records} records in two passes, got "
            f"{memory_bytes / 1e6:.0f} MB (raise it, or lower --workers)"
        )
    in_memory = (memory_bytes // num_workers - PROCESS_BYTES) // BYTES_PER_RECORD
    capacity = min(in_memory, MAX_ROWS)
    slice_records = max(_SLICE_RECORDS, num_records // MAX_PARTS)
    preferred = max(_PREFERRED_RECORDS, math.isqrt(num_records * slice_records))
    partition_records = min(preferred, capacity // _HEADROOM)
    chunk_records = max(_PREFERRED_RECORDS, num_records * slice_records // partition_records)
    return Plan(
        num_records=num_records,
        chunk_records=min(chunk_records, capacity),
        num_partitions=max(1, math.ceil(num_records / partition_records)),
        capacity_records=capacity,
    )
