"""Whether a file is a sorted permutation of another one, from short summaries of their parts.

A summary tells how many records a stretch has, how many of them are smaller than the one before,
how many keys repeat the one before, and the sum of all records' CRC-32, which no order changes.
Summaries of neighbouring stretches add up to that of both, the boundary between them included.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.graysort.raw_file import num_records_of, read_records
from benchmarks.graysort.records import KEY_BYTES, RECORD_BYTES, Rows, key_words
from benchmarks.graysort.tasks import Item, task

if TYPE_CHECKING:  # workers need no bars
    from benchmarks.graysort.phases import Phases

_BLOCK_RECORDS = 16_384
_TASK_RECORDS = 500_000


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a stretch of records.

    Attributes:
        num_records: how many there are.
        num_unordered: records with a key smaller than that of the record before.
        num_duplicates: records with the key of the record before.
        checksum: sum of the records' CRC-32, modulo 2^128.
        first_key, last_key: empty if there are no records.
    """

    num_records: int = 0
    num_unordered: int = 0
    num_duplicates: int = 0
    checksum: int = 0
    first_key: bytes = b""
    last_key: bytes = b""

    def followed_by(self, other: Summary) -> Summary:
        """Returns the summary of this stretch and the one after it."""
        if not self.num_records:
            return other
        if not other.num_records:
            return self
        return Summary(
            self.num_records + other.num_records,
            self.num_unordered + other.num_unordered + (other.first_key < self.last_key),
            self.num_duplicates + other.num_duplicates + (other.first_key == self.last_key),
            (self.checksum + other.checksum) % 2**128,
            self.first_key,
            other.last_key,
        )


def summarise(rows: Rows) -> Summary:
    """Returns the summary of records in memory."""
    if not len(rows):
        return Summary()
    high, low = key_words(rows)
    same_high = high[1:] == high[:-1]
    smaller = (high[1:] < high[:-1]) | (same_high & (low[1:] < low[:-1]))
    return Summary(
        len(rows),
        int(smaller.sum()),
        int((same_high & (low[1:] == low[:-1])).sum()),
        checksum(rows),
        rows[0, :KEY_BYTES].tobytes(),
        rows[-1, :KEY_BYTES].tobytes(),
    )


def checksum(rows: Rows) -> int:
    """Returns the sum of the records' CRC-32.

    A call per record is as fast here as lookups in tables of whole columns, which numpy does at
    1.5 ns each and 100 are needed.
    """
    return sum(starmap(zlib.crc32, struct.iter_unpack(f"{RECORD_BYTES}s", rows.tobytes())))


def merge(summaries: Sequence[Summary]) -> Summary:
    """Returns the summary of stretches that follow each other."""
    whole = Summary()
    for summary in summaries:
        whole = whole.followed_by(summary)
    return whole


def summarise_file(path: Path, phases: Phases) -> Summary:
    """Returns the summary of a whole file."""
    num_records = num_records_of(path)
    items = [
        {
            "path": str(path),
            "first": first,
            "num_records": min(_TASK_RECORDS, num_records - first),
        }
        for first in range(0, num_records, _TASK_RECORDS)
    ]
    results = phases.run("validate", summarise_part, items, num_records * RECORD_BYTES)
    return merge([from_item(result) for result in results])


@task
def summarise_part(item: Item) -> Item:
    """Summarises a stretch of a file."""
    end = item["first"] + item["num_records"]
    whole = Summary()
    for first in range(item["first"], end, _BLOCK_RECORDS):
        rows = read_records(item["path"], first, min(_BLOCK_RECORDS, end - first))
        whole = whole.followed_by(summarise(rows))
    num_bytes = item["num_records"] * RECORD_BYTES
    return as_item(whole) | {"bytes_read": num_bytes, "bytes_written": 0}


def as_item(summary: Summary) -> Item:
    """Returns a summary as plain values; the checksum as text, which has room for 128 bits."""
    return asdict(summary) | {"checksum": f"{summary.checksum:x}"}


def from_item(item: Item) -> Summary:
    fields = {name: item[name] for name in Summary.__slots__}
    return Summary(**fields | {"checksum": int(item["checksum"], 16)})


def complaint(found: Summary, expected: Summary) -> str | None:
    """Returns what is wrong with a file that should be sorted and hold certain records.

    Args:
        found: of the file.
        expected: of the input; only number and checksum count.
    """
    if found.num_records != expected.num_records:
        return f"{found.num_records} records, the input has {expected.num_records}"
    if found.num_unordered:
        return f"{found.num_unordered} records are smaller than the one before"
    if found.checksum != expected.checksum:
        return f"checksum {found.checksum:x}, the input's is {expected.checksum:x}"
    return None
