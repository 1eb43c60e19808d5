"""The format, the order and the checks in plain Python: slow, obvious, and with no shared code."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import NamedTuple

_A = 0x2360ED051FC65DA44385DF649FCCF645
_C = 0x4A696D47726179524950202020202001


def value(record_idx: int) -> int:
    """The sequence's value behind a record: after n steps from 0, c (a^n - 1) / (a - 1)."""
    steps = record_idx + 1
    power = pow(_A, steps, (_A - 1) << 128)
    return (power - 1) // (_A - 1) * _C % 2**128


def record(record_idx: int, *, skewed: bool = False) -> bytes:
    x = value(record_idx)
    bits = f"{x:0128b}"
    key = x.to_bytes(16, "big")[:10]
    if skewed:
        middle = bits[80:112]  # bits 47 to 16, counted from the lowest
        zeros = len(middle) - len(middle.lstrip("0"))
        if zeros:
            shared = value(zeros).to_bytes(16, "big")[:10]
            key = shared if zeros % 2 else shared[:8] + key[8:]
    digits = f"{x % 2**48:012X}"
    return b"".join(
        [
            key,
            bytes.fromhex("0011"),
            f"{record_idx:032X}".encode(),
            bytes.fromhex("8899AABB"),
            "".join(digit * 4 for digit in digits).encode(),
            bytes.fromhex("CCDDEEFF"),
        ]
    )


def records(data: bytes) -> list[bytes]:
    assert len(data) % 100 == 0
    return [data[begin : begin + 100] for begin in range(0, len(data), 100)]


def sorted_records(data: bytes) -> bytes:
    """By key, equal keys in their old order."""
    return b"".join(sorted(records(data), key=lambda record: record[:10]))


class Facts(NamedTuple):
    num_records: int
    num_unordered: int
    num_duplicates: int
    checksum: int


def facts(data: bytes) -> Facts:
    keys = [record[:10] for record in records(data)]
    return Facts(
        len(keys),
        sum(now < before for before, now in pairwise(keys)),
        sum(now == before for before, now in pairwise(keys)),
        sum(crc32(record) for record in records(data)),
    )


def crc32(data: bytes) -> int:
    """Bit by bit, as the standard defines it; zlib's only for long data."""
    if len(data) > 100:
        return zlib.crc32(data)
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
    return state ^ 0xFFFFFFFF
