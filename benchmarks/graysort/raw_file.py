"""Records in files: read whole and written whole at an offset, or an error that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.graysort.records import RECORD_BYTES, Rows
from benchmarks.graysort.tasks import CorruptedDataError


@contextmanager
def opened(path: str | Path, flags: int) -> Iterator[int]:
    """Yields a file descriptor; missing files are created by os.O_CREAT, for this user only."""
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_records(path: str | Path, first: int, num_records: int) -> Rows:
    """Returns a range of a file's records."""
    rows = np.empty((num_records, RECORD_BYTES), np.uint8)
    with opened(path, os.O_RDONLY) as descriptor:
        read_into(descriptor, rows, first, path)
    return rows


def read_into(descriptor: int, rows: Rows, first: int, path: str | Path) -> None:
    """Fills contiguous rows with a file's records from the first-th on."""
    view = rows.reshape(-1).data
    offset, done = first * RECORD_BYTES, 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise CorruptedDataError(
                f"{path}: {len(view)} bytes must follow offset {offset}, the file ends after {done}"
            )
        done += count


def write_rows(descriptor: int, rows: Rows, first: int, path: str | Path) -> None:
    """Writes contiguous rows as a file's records from the first-th on."""
    view = rows.reshape(-1).data
    offset, done = first * RECORD_BYTES, 0
    try:
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], offset + done)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror} (writing at byte {offset + done})", str(path)
        ) from error


def num_records_of(path: Path) -> int:
    """Returns how many records a file holds."""
    size = path.stat().st_size
    if size % RECORD_BYTES:
        raise CorruptedDataError(
            f"{path}: size must be a multiple of {RECORD_BYTES} bytes, got {size} (it is cut off, "
            "or holds something other than records)"
        )
    return size // RECORD_BYTES
