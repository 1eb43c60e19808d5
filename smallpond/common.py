"""Names that programs written for the original import from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from smallpond.errors import InjectedFault, NonzeroExitCode, OutOfMemory, SmallpondError
from smallpond.plan import BATCH_ROWS

__all__ = ["InjectedFault", "NonzeroExitCode", "OutOfMemory", "SmallpondError"]

KB = 1024
MB = 1024 * KB
GB = 1024 * MB
TB = 1024 * GB

DEFAULT_MAX_RETRY_COUNT = 5
DEFAULT_MAX_FAIL_COUNT = 3
DEFAULT_ROW_GROUP_SIZE = BATCH_ROWS
DEFAULT_ROW_GROUP_BYTES = 480 * MB
DEFAULT_BATCH_SIZE = BATCH_ROWS

Item = TypeVar("Item")
Value = TypeVar("Value")


def get_nth_partition(items: Sequence[Item], n: int, npartitions: int) -> list[Item]:
    """The ``n``-th of so many runs of items, whose lengths differ by one at most."""
    return list(items[len(items) * n // npartitions : len(items) * (n + 1) // npartitions])


def split_into_rows(items: Sequence[Item], npartitions: int) -> list[list[Item]]:
    """Runs of neighbouring items."""
    return [get_nth_partition(items, i, npartitions) for i in range(npartitions)]


def split_into_cols(items: Sequence[Item], npartitions: int) -> list[list[Item]]:
    """Items dealt out in turn."""
    return [list(items[i::npartitions]) for i in range(npartitions)]


def next_power_of_two(x: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, x - 1).bit_length()


def round_up(x: int, align_size: int = MB) -> int:
    """The smallest multiple of ``align_size`` that is not less."""
    return -(-x // align_size) * align_size


def clamp_value(val: int, minval: int, maxval: int) -> int:
    """The nearest value between two others."""
    return max(minval, min(val, maxval))


def first_value_in_dict(d: Mapping[str, Value]) -> Value | None:
    """The first value, if there is one."""
    return next(iter(d.values()), None)
