"""The hash of rows as smallpond defines it, one Python value at a time."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

PHI = 0x9E3779B97F4A7C15
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Microseconds:
    """A time that no Python type can hold."""

    count: int


@dataclass(frozen=True)
class Member:
    """A value of a union."""

    tag: int
    value: Any


def mix(x: int) -> int:
    """The finalizer of MurmurHash3."""
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD % 2**64
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
    return x ^ x >> 33


def _sum(words: Sequence[int]) -> int:
    return sum(mix((word + PHI * (i + 1)) % 2**64) for i, word in enumerate(words))


def _number(value: float) -> int:
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    if value == 0:
        bits = 0
    elif value != value:  # noqa: PLR0124 (what a NaN is)
        bits = 0x7FF8000000000000
    return mix(bits ^ 2 * PHI % 2**64)


def _bytes(data: bytes) -> int:
    padded = data + bytes(-len(data) % 8 if data else 8)
    words = struct.unpack(f"<{len(padded) // 8}Q", padded)
    return mix((_sum(words) + len(data) + 4 * PHI) % 2**64)


def _microseconds(value: Any) -> int:
    if isinstance(value, Microseconds):
        return value.count
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value.toordinal() - _EPOCH.toordinal()) * 86_400_000_000
    if isinstance(value, time):
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return seconds * 1_000_000 + value.microsecond
    return value // timedelta(microseconds=1)


def hash_value(value: Any) -> int:
    """The hash of one value; a struct is a dict."""
    match value:
        case None:
            return mix(PHI)
        case bool() | int() | float() | Decimal():
            return _number(float(value))
        case str():
            return _bytes(value.encode())
        case bytes():
            return _bytes(value)
        case Microseconds() | date() | time() | timedelta():
            return mix(_microseconds(value) % 2**64 ^ 3 * PHI % 2**64)
        case list():
            return mix((_sum([hash_value(v) for v in value]) + len(value) + 5 * PHI) % 2**64)
        case dict():
            return hash_row(list(value.values())) if value else mix(6 * PHI % 2**64)
        case Member():
            return mix((hash_value(value.value) * PHI + value.tag) % 2**64)
    raise TypeError(value)


def hash_row(values: Sequence[Any]) -> int:
    """The hash of several columns of a row."""
    total = hash_value(values[0])
    for value in values[1:]:
        total = mix((total * PHI + hash_value(value)) % 2**64)
    return total
