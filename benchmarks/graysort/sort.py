"""The sort: raw file to raw file, in two passes over data of any size, within a memory limit.

    sample     a few keys of the input tell where partitions of equal size begin
    partition  a task reads a stretch of the input, sorts it, and writes it as one run; it returns
               where each partition ends in the run, and checksums
    sort       a task gathers one partition from all the runs, sorts it, and writes it to its place
               in the output, which the sizes of the partitions before it give

Sorting in the first pass costs little more than grouping by partition would, and lets the second
gather records from a few ascending sequences instead of from all over memory. The sort is stable:
its output does not depend on the memory limit or the number of workers.
"""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.graysort.order import Order, stable_order
from benchmarks.graysort.plan import SAMPLES_PER_PARTITION, Plan
from benchmarks.graysort.raw_file import opened, read_into, read_records, write_rows
from benchmarks.graysort.records import KEY_BYTES, RECORD_BYTES, Rows
from benchmarks.graysort.splits import (
    SPLIT_BYTES,
    choose_splits,
    partition_ends,
    sample_positions,
    split_point,
)
from benchmarks.graysort.tasks import CorruptedDataError, GraySortError, Item, task

if TYPE_CHECKING:  # workers need no bars
    from benchmarks.graysort.phases import Phases

_BLOCK_RECORDS = 4_096  # gathered in the second-level cache and written from there
_SAMPLES_PER_TASK = 8_192
_SEED = 0


def sort_file(source: Path, target: Path, runs: Path, plan: Plan, phases: Phases) -> None:
    """Sorts a file of records into another one, which appears whole or not at all.

    Args:
        source: the input, which stays as it is.
        target: the output.
        runs: a folder that does not exist yet; it is removed at the end.
        plan: sizes.
        phases: runs the tasks.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    runs.mkdir()
    try:
        unfinished.touch()
        if plan.num_records:
            splits = _sample(source, plan, phases)
            ends, checksums = _partition(source, runs, plan, splits, phases)
            _sort(runs, unfinished, plan, ends, checksums, phases)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(runs, ignore_errors=True)


def _sample(source: Path, plan: Plan, phases: Phases) -> list[bytes]:
    num_samples = SAMPLES_PER_PARTITION * plan.num_partitions
    positions = np.array(sample_positions(plan.num_records, num_samples, _SEED), np.int64)
    items = [
        {
            "source": str(source),
            "positions": positions[begin : begin + _SAMPLES_PER_TASK].tobytes(),
        }
        for begin in range(0, len(positions), _SAMPLES_PER_TASK)
    ]
    results = phases.run("sample", sample_keys, items, KEY_BYTES * len(positions))
    return choose_splits(
        [point for result in results for point in _cut(result["points"])], plan.num_partitions
    )


def _partition(
    source: Path, runs: Path, plan: Plan, splits: list[bytes], phases: Phases
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Returns [num_runs, num_partitions] ends of the partitions in each run, and checksums."""
    joined = b"".join(splits)
    items = [
        {
            "source": str(source),
            "first": first,
            "num_records": num_records,
            "run": str(run_path(runs, run_idx)),
            "splits": joined,
        }
        for run_idx, (first, num_records) in enumerate(plan.chunks())
    ]
    results = phases.run("partition", write_run, items, plan.num_bytes)
    return (
        np.stack([np.frombuffer(result["ends"], np.int64) for result in results]),
        np.stack([np.frombuffer(result["checksums"], np.uint32) for result in results]),
    )


def _sort(
    runs: Path,
    target: Path,
    plan: Plan,
    ends: NDArray[np.int64],
    checksums: NDArray[np.uint32],
    phases: Phases,
) -> None:
    begins = np.concatenate([np.zeros((len(ends), 1), np.int64), ends[:, :-1]], axis=1)
    sizes = (ends - begins).sum(axis=0)
    if sizes.max() > plan.capacity_records:
        raise GraySortError(
            f"sort: a partition must fit into {plan.capacity_records} records, got {sizes.max()} "
            "(raise --memory-limit)"
        )
    firsts = np.cumsum(sizes) - sizes
    items = [
        {
            "runs": str(runs),
            "begins": begins[:, idx].tobytes(),
            "ends": ends[:, idx].tobytes(),
            "checksums": checksums[:, idx].tobytes(),
            "partition": idx,
            "target": str(target),
            "first": int(firsts[idx]),
        }
        for idx in range(plan.num_partitions)
    ]
    phases.run("sort", sort_partition, items, plan.num_bytes)


def run_path(runs: str | Path, run_idx: int) -> Path:
    return Path(runs) / f"run-{run_idx:06d}"


@task
def sample_keys(item: Item) -> Item:
    """Reads keys at positions of the input; returns them with the positions, as split points."""
    positions = np.frombuffer(item["positions"], np.int64).tolist()
    with opened(item["source"], os.O_RDONLY) as descriptor:
        points = [
            split_point(os.pread(descriptor, KEY_BYTES, position * RECORD_BYTES), position)
            for position in positions
        ]
    return {
        "points": b"".join(points),
        "bytes_read": KEY_BYTES * len(points),
        "bytes_written": 0,
    }


@task
def write_run(item: Item) -> Item:
    """Sorts a stretch of the input into a run."""
    rows = read_records(item["source"], item["first"], item["num_records"])
    order = stable_order(rows)
    ends = partition_ends(rows, order, item["first"], _cut(item["splits"]))
    checksums = np.zeros(len(ends), np.uint32)
    # Another attempt at this task may be writing the same run.
    unfinished = f"{item['run']}.{os.getpid()}"
    with opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        begin = 0
        for idx, end in enumerate(ends.tolist()):
            checksums[idx] = _write_sorted(descriptor, rows, order[begin:end], begin, unfinished)
            begin = end
    Path(unfinished).rename(item["run"])
    return {
        "ends": ends.tobytes(),
        "checksums": checksums.tobytes(),
        "bytes_read": rows.nbytes,
        "bytes_written": rows.nbytes,
    }


@task
def sort_partition(item: Item) -> Item:
    """Gathers a partition from the runs, sorts it, and writes it to its place in the output."""
    begins = np.frombuffer(item["begins"], np.int64)
    ends = np.frombuffer(item["ends"], np.int64)
    checksums = np.frombuffer(item["checksums"], np.uint32)
    rows = np.empty((int((ends - begins).sum()), RECORD_BYTES), np.uint8)
    filled = 0
    for run_idx in np.flatnonzero(ends > begins).tolist():
        begin, end = int(begins[run_idx]), int(ends[run_idx])
        part = rows[filled : filled + end - begin]
        path = run_path(item["runs"], run_idx)
        with opened(path, os.O_RDONLY) as descriptor:
            read_into(descriptor, part, begin, path)
        found, expected = zlib.crc32(part.data), int(checksums[run_idx])
        if found != expected:
            raise CorruptedDataError(
                f"{path}: records {begin} to {end - 1}, of partition {item['partition']}, must "
                f"have checksum {expected:08x}, got {found:08x} (the file changed after it was "
                "written; run again, and check the disk)"
            )
        filled += end - begin
    with opened(item["target"], os.O_WRONLY) as descriptor:
        _write_sorted(descriptor, rows, stable_order(rows), item["first"], item["target"])
    return {"bytes_read": rows.nbytes, "bytes_written": rows.nbytes}


def _write_sorted(descriptor: int, rows: Rows, order: Order, first: int, path: str) -> int:
    """Writes rows in order as a file's records from the first-th on; returns their CRC-32."""
    checksum = 0
    buffer = np.empty((min(len(order), _BLOCK_RECORDS), RECORD_BYTES), np.uint8)
    for begin in range(0, len(order), _BLOCK_RECORDS):
        chosen = order[begin : begin + _BLOCK_RECORDS]
        block = buffer[: len(chosen)]
        # The default mode would gather into a buffer of its own, to leave `out` alone on errors.
        np.take(rows, chosen, axis=0, out=block, mode="clip")
        checksum = zlib.crc32(block.data, checksum)
        write_rows(descriptor, block, first + begin, path)
    return checksum


def _cut(points: bytes) -> list[bytes]:
    return [points[at : at + SPLIT_BYTES] for at in range(0, len(points), SPLIT_BYTES)]
