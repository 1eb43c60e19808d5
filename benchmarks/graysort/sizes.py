"""Sizes as people write them, and whether a disk has room for them."""

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path

from benchmarks.graysort.records import MAX_RECORDS, RECORD_BYTES
from benchmarks.graysort.tasks import GraySortError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(option: str, text: str) -> int:
    """Returns the bytes of a size such as 10G, 500MB, 1.5GiB or 1000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not found or (found[3] and not found[2]):
        raise GraySortError(
            f"{option}: size must be a number and K, M, G or T (powers of 1000) or Ki, Mi, Gi or "
            f"Ti (of 1024), got {text!r} (write 10G)"
        )
    unit: int = (1024 if found[3] else 1000) ** _POWERS[found[2].upper()]
    return int(Fraction(found[1]) * unit)


def parse_records(option: str, text: str) -> int:
    """Returns how many records a size holds."""
    num_bytes = parse_bytes(option, text)
    if num_bytes % RECORD_BYTES:
        near = num_bytes // RECORD_BYTES * RECORD_BYTES
        raise GraySortError(
            f"{option}: size must be a multiple of {RECORD_BYTES} bytes, a record's size, got "
            f"{num_bytes} (take {near})"
        )
    num_records = num_bytes // RECORD_BYTES
    if not 1 <= num_records < MAX_RECORDS:
        raise GraySortError(f"{option}: size must be 1 to 2^63 - 1 records, got {num_records}")
    return num_records


def check_space(folder: Path, num_bytes: int, times: int, what: str) -> None:
    """Refuses before the work what the disk has no room for."""
    free, needed = shutil.disk_usage(folder).free, num_bytes * times
    if free < needed:
        raise GraySortError(
            f"--data-root: {folder} must have {in_units(needed)} free ({times} x "
            f"{in_units(num_bytes)}: {what}), it has {in_units(free)} (lower --bytes, or take "
            "another disk)"
        )


def in_units(num_bytes: float) -> str:
    """Returns a size for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
