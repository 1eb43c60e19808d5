"""The input files: the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.case import SEED
from benchmarks.dataframes.job import MEASURES, NAMES, RECORDS, Job

TEXT_BYTES = 84  # with two int64, a record is 100 bytes
# Names are given to a part of the keys only, so that a join drops rows.
NAMED = 0.8

_ROW_GROUP = 122_880
_LETTERS = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8
)


def make(job: Job, folder: Path) -> None:
    """Writes the input of a job, as folders of Parquet files, below a folder."""
    if job.workload in {"sort", "every"}:
        _write(folder / RECORDS, _records(job))
    if job.workload != "sort":
        _write(folder / MEASURES, _measures(job))
    if job.workload in {"join", "every"}:
        _write(folder / NAMES, iter([_names(job)]))


def _measures(job: Job) -> Iterator[pa.Table]:
    """The values are multiples of 1/4: their sums are exact in any order."""
    random = np.random.default_rng(SEED)
    for begin, end in _slices(job):
        yield pa.table(
            {
                "id": np.arange(begin, end),
                "k": random.integers(0, max(1, job.groups), end - begin),
                "v": random.integers(0, 4000, end - begin) / 4,
            }
        )


def _names(job: Job) -> pa.Table:
    random = np.random.default_rng(SEED + 1)
    keys = random.permutation(job.groups)[: int(NAMED * job.groups)]
    return pa.table(
        {
            "k": keys,
            "name": pa.array([f"name {key:09d}" for key in keys.tolist()]),
            "weight": random.integers(0, 4000, len(keys)) / 4,
        }
    )


def _records(job: Job) -> Iterator[pa.Table]:
    random = np.random.default_rng(SEED + 2)
    for begin, end in _slices(job):
        num_rows = end - begin
        letters = _LETTERS[np.frombuffer(random.bytes(num_rows * TEXT_BYTES), np.uint8) & 63]
        offsets = np.arange(0, (num_rows + 1) * TEXT_BYTES, TEXT_BYTES, dtype=np.int32)
        text = pa.StringArray.from_buffers(
            num_rows, pa.py_buffer(offsets), pa.py_buffer(letters.tobytes())
        )
        keys = random.integers(-(2**63), 2**63 - 1, num_rows)
        yield pa.table({"id": np.arange(begin, end), "k": keys, "text": text})


def _slices(job: Job) -> Iterator[tuple[int, int]]:
    ends = [job.rows * (index + 1) // job.files for index in range(job.files)]
    return zip([0, *ends], ends, strict=False)


def _write(folder: Path, tables: Iterator[pa.Table]) -> None:
    folder.mkdir(parents=True)
    for index, table in enumerate(tables):
        path = folder / f"{index:05d}.parquet"
        pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="snappy")
