"""Makes the files to be sorted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.graysort.raw_file import opened, read_records, write_rows
from benchmarks.graysort.records import RECORD_BYTES, generate, text_keys
from benchmarks.graysort.tasks import Item, task
from benchmarks.graysort.validate import Summary, as_item, from_item, merge, summarise

if TYPE_CHECKING:  # workers need no bars
    from benchmarks.graysort.phases import Phases

_BLOCK_RECORDS = 16_384
_TASK_RECORDS = 250_000

# Published for records that are not skewed: number of records -> checksum.
KNOWN_CHECKSUMS = {1_000: 0x1F9FFE645EC, 10_000_000: 0x4C49607AC53602}


def write_input(path: Path, num_records: int, phases: Phases, *, skewed: bool) -> Summary:
    """Writes generated records to a file; returns their summary."""
    path.touch()
    items = [item | {"skewed": skewed} for item in _stretches(path, num_records)]
    results = phases.run("generate", write_part, items, num_records * RECORD_BYTES)
    return merge([from_item(result) for result in results])


def write_text_input(source: Path, path: Path, num_records: int, phases: Phases) -> Summary:
    """Writes records as lines of text to a file; returns the summary of these."""
    path.touch()
    items = [item | {"source": str(source)} for item in _stretches(path, num_records)]
    results = phases.run("as text", write_text_part, items, num_records * RECORD_BYTES)
    return merge([from_item(result) for result in results])


def _stretches(path: Path, num_records: int) -> list[Item]:
    return [
        {"path": str(path), "first": first, "num_records": min(_TASK_RECORDS, num_records - first)}
        for first in range(0, num_records, _TASK_RECORDS)
    ]


@task
def write_part(item: Item) -> Item:
    """Generates a stretch of the input."""
    whole = Summary()
    with opened(item["path"], os.O_WRONLY) as descriptor:
        for first, count in _blocks(item):
            rows = generate(first, count, skewed=item["skewed"])
            write_rows(descriptor, rows, first, item["path"])
            whole = whole.followed_by(summarise(rows))
    num_bytes = item["num_records"] * RECORD_BYTES
    return as_item(whole) | {"bytes_read": 0, "bytes_written": num_bytes}


@task
def write_text_part(item: Item) -> Item:
    """Turns a stretch of the input into lines."""
    whole = Summary()
    with opened(item["path"], os.O_WRONLY) as descriptor:
        for first, count in _blocks(item):
            rows = text_keys(read_records(item["source"], first, count))
            write_rows(descriptor, rows, first, item["path"])
            whole = whole.followed_by(summarise(rows))
    num_bytes = item["num_records"] * RECORD_BYTES
    return as_item(whole) | {"bytes_read": num_bytes, "bytes_written": num_bytes}


def _blocks(item: Item) -> list[tuple[int, int]]:
    end = item["first"] + item["num_records"]
    return [
        (first, min(_BLOCK_RECORDS, end - first))
        for first in range(item["first"], end, _BLOCK_RECORDS)
    ]
