"""Rows on the wire: all that belongs to one token goes as one row of bytes, in one exchange.

A segment is what one rank sends to another: a header row with the sender's signature, then one row
per token. The header travels even with no token behind it, so ranks that made different calls find
out instead of reading each other's bytes wrongly.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch

from csrc import Checker

OPERATIONS = ("dispatch", "cached dispatch", "combine")
_DTYPES = (None, torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.int32)

# What a signature tells about a call; it must be the same on every rank of the group.
SIGNATURE = ("operation", "hidden", "x dtype", "num_scales", "scales dtype", "topk", "num_experts")
SIGNATURE_BYTES = 4 * len(SIGNATURE)


# The tensors of a payload by name, one row per token, in the order of their bytes on the wire:
# x [num_rows, hidden] bf16 or fp8; scales [num_rows, num_scales] f32 or i32;
# topk_idx [num_rows, topk] i64; topk_weights [num_rows, topk] f32;
# token_idx [num_rows, 1] i32, the place of the row in its source rank's x. Only x is always there.
Rows = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the rows of every segment of a frame are.

    Attributes:
        counts: rows of each segment, without the header.
        num_rows: their sum.
        body: [num_rows] i64 — places of these rows.
        headers: [num_segments] i64 — place of the header of each segment.
    """

    counts: list[int]
    num_rows: int
    body: torch.Tensor
    headers: torch.Tensor

    @classmethod
    def of(cls, counts: list[int]) -> Self:
        """Lay out segments of so many rows, one after the other."""
        headers_before = torch.arange(1, len(counts) + 1)
        num_rows = sum(counts)
        body = headers_before.repeat_interleave(torch.tensor(counts), output_size=num_rows)
        body += torch.arange(num_rows)
        headers = torch.tensor([0, *accumulate(count + 1 for count in counts[:-1])])
        return cls(counts, num_rows, body, headers)

    def lengths(self) -> list[int]:
        """Rows of each segment, with the header."""
        return [count + 1 for count in self.counts]


def bytes_per_row(rows: Rows) -> int:
    """Bytes of one row on the wire; at least those of a header."""
    size = sum(part.shape[1] * part.element_size() for part in rows.values())
    return max(size, SIGNATURE_BYTES)


def sign(rows: Rows, operation: str, num_experts: int = 0) -> list[int]:
    """The numbers behind `SIGNATURE`; dtypes and the operation as table indices."""
    x, scales, weights = rows["x"], rows.get("scales"), rows.get("topk_weights")
    return [
        OPERATIONS.index(operation),
        x.shape[1],
        _DTYPES.index(x.dtype),
        0 if scales is None else scales.shape[1],
        0 if scales is None else _DTYPES.index(scales.dtype),
        0 if weights is None else weights.shape[1],
        num_experts,
    ]


def allocate_like(rows: Rows, num_rows: int, num_used: int) -> Rows:
    """Make room for rows of this form; those past `num_used` are zero and have no expert."""
    out = {
        name: torch.empty(num_rows, part.shape[1], dtype=part.dtype) for name, part in rows.items()
    }
    if num_used < num_rows:
        for name, part in out.items():
            # All bits set is the -1 of "no expert".
            part[num_used:].view(torch.uint8).fill_(0xFF if name == "topk_idx" else 0)
    return out


def pack(
    rows: Rows, token_idx: torch.Tensor, segments: Segments, row_bytes: int, signature: list[int]
) -> torch.Tensor:
    """Gather rows into the segments of an exchange.

    Args:
        rows: the source.
        token_idx: [num_sent] i64 — source row of every row to send, segment by segment.
        segments: their layout.
        row_bytes: bytes of a row on the wire, as much as all ranks agreed on.
        signature: numbers for the header rows.

    Returns:
        frame: [num_sent + num_segments, row_bytes] u8.
    """
    num_places = segments.num_rows + len(segments.counts)
    frame = torch.empty(num_places, row_bytes, dtype=torch.uint8)
    if segments.num_rows:
        # Header places gather row 0 and are overwritten: one call per part instead of one per
        # part and segment.
        source = torch.zeros(num_places, dtype=torch.int64)
        source[segments.body] = token_idx
        begin = 0
        for part in rows.values():
            part_bytes = part.contiguous().view(torch.uint8)
            end = begin + part_bytes.shape[1]
            torch.index_select(part_bytes, 0, source, out=frame[:, begin:end])
            begin = end
    header = torch.tensor(signature, dtype=torch.int32).view(torch.uint8)
    frame[segments.headers, :SIGNATURE_BYTES] = header
    return frame


def unpack(frame: torch.Tensor, segments: Segments, out: Rows) -> None:
    """Spread a received frame over the first rows of `out`."""
    begin = 0
    for part in out.values():
        part_bytes = part[: segments.num_rows].view(torch.uint8)
        end = begin + part_bytes.shape[1]
        torch.index_select(frame[:, begin:end], 0, segments.body, out=part_bytes)
        begin = end


def check_headers(op: str, frame: torch.Tensor, segments: Segments) -> None:
    """Require the same signature in every segment of a received frame."""
    headers = frame[:, :SIGNATURE_BYTES].index_select(0, segments.headers)
    check_signatures(op, headers.view(torch.int32).tolist())


def check_signatures(op: str, signatures: list[list[int]]) -> None:
    """Require that all ranks made the same call; they all see the same list, and all raise."""
    if all(signature == signatures[0] for signature in signatures):
        return
    for name, values in zip(SIGNATURE, zip(*signatures, strict=True), strict=True):
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is None:
            continue
        actual = f"{_said(name, values[0])} on rank 0 and {_said(name, values[other])}"
        rule = "be the same on every rank"
        remedy = "make the same call on all ranks of the group"
        Checker(op).invalid(name, rule, f"{actual} on rank {other}", remedy)


def _said(name: str, value: int) -> str:
    if name == "operation":
        return OPERATIONS[value]
    return str(_DTYPES[value]).removeprefix("torch.") if "dtype" in name else str(value)
