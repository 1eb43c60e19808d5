"""The CPU path: dequantise FP8 to float32, and let torch multiply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from deepgemm.row_groups import RowGrouping, slices

_GRAN = 128
# Weights are dequantised about this many at a time, into memory that is used again and again: so
# they stay in the cache for the product, and fresh pages cost more than all the arithmetic.
_CHUNK_ELEMS = 2**19


@torch.no_grad()
def gemm_nt(
    a: torch.Tensor, scale_a: torch.Tensor, b: torch.Tensor, scale_b: torch.Tensor, d: torch.Tensor
) -> None:
    """Compute `d = a @ b.T` for a [m, k] with 1 × 128 and b [n, k] with 128 × 128 scales."""
    tokens = _dequantised(a, scale_a)
    weights = _Chunks(b)
    products = torch.empty(len(a), weights.num_rows)
    for rows in weights.slices():
        blocks = slice(rows.start // _GRAN, -(-rows.stop // _GRAN))
        row_scale = scale_b[blocks].repeat_interleave(_GRAN, dim=0)[: rows.stop - rows.start]
        part = products[:, : rows.stop - rows.start]
        d[:, rows] = torch.mm(tokens, weights.dequantised(rows, row_scale).T, out=part)


@torch.no_grad()
def accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
) -> None:
    """Compute `d = c + a @ b.T` for float32 d, a [m, k] and b [n, k] with 1 × 128 scales."""
    left, right = _dequantised(a, scale_a), _Chunks(b)
    for rows in right.slices():
        values = right.dequantised(rows, scale_b[rows])
        torch.addmm(c[:, rows], left, values.T, out=d[:, rows])


@torch.no_grad()
def grouped_gemm_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor,
    grouping: RowGrouping,
) -> None:
    """Compute `gemm_nt` for the rows of every group, and 0 in padding rows."""
    for group, rows in slices(layout, grouping):
        index = (group, rows) if grouping == "masked" else rows
        if group < 0:
            d[rows] = 0
        else:
            gemm_nt(a[index], scale_a[index], b[group], scale_b[group], d[index])


@torch.no_grad()
def k_grouped_accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    ks: Sequence[int],
) -> None:
    """Compute `accumulate_nt` for every group of columns; a and b are those groups in one dim."""
    _, m, n = d.shape
    first = 0
    for group, k in enumerate(ks):
        columns = slice(first, first + k)
        blocks = slice(first // _GRAN, (first + k) // _GRAN)
        if k:
            left = a[m * columns.start : m * columns.stop].view(m, k)
            right = b[n * columns.start : n * columns.stop].view(n, k)
            scales = scale_a[:, blocks], scale_b[:, blocks]
            accumulate_nt(left, scales[0], right, scales[1], c[group], d[group])
        first += k


@torch.no_grad()
def bf16_gemm(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, d: torch.Tensor) -> None:
    """Compute `d = a @ b.T`, or `c + a @ b.T`, for a [m, k] and b [n, k] with FP32 sums."""
    if d.dtype == torch.bfloat16:
        torch.mm(a, b.T, out=d)
    elif c is None:
        torch.mm(a.float(), b.float().T, out=d)
    else:
        torch.addmm(c, a.float(), b.float().T, out=d)


@torch.no_grad()
def grouped_bf16_gemm(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, layout: torch.Tensor, grouping: RowGrouping
) -> None:
    """Compute `bf16_gemm` for the rows of every group, and 0 in padding rows."""
    for group, rows in slices(layout, grouping):
        index = (group, rows) if grouping == "masked" else rows
        if group < 0:
            d[rows] = 0
        else:
            bf16_gemm(a[index], b[group], None, d[index])


@torch.no_grad()
def k_grouped_bf16_gemm(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, d: torch.Tensor, ks: Sequence[int]
) -> None:
    """Compute `bf16_gemm` for every group of the columns of a [m, k] and b [n, k]."""
    first = 0
    for group, k in enumerate(ks):
        columns = slice(first, first + k)
        if k:
            addend = None if c is None else c[group]
            bf16_gemm(a[:, columns], b[:, columns], addend, d[group])
        first += k


class _Chunks:
    """Rows of FP8 data [rows, k] that are dequantised some at a time, in the same memory."""

    def __init__(self, data: torch.Tensor, num_rows: int | None = None) -> None:
        rows, k = data.shape
        fitting = max(1, _CHUNK_ELEMS // (max(1, k) * _GRAN)) * _GRAN
        self.num_rows = min(rows, num_rows or fitting)
        self._data = data
        self._halves = torch.empty(self.num_rows, k, dtype=torch.int16)
        self._values = torch.empty(self.num_rows, k)

    def slices(self) -> Iterator[slice]:
        rows = len(self._data)
        for start in range(0, rows, max(1, self.num_rows)):
            yield slice(start, min(rows, start + self.num_rows))

    def dequantised(self, rows: slice, row_scale: torch.Tensor) -> torch.Tensor:
        """Return [rows, k] float32, until the next call.

        row_scale is [rows, ceil(k / 128)]; the last of its columns may serve fewer than 128 of k.
        """
        values = self._values[: rows.stop - rows.start]
        if self._decode(self._data[rows], values):
            # Decoding left out a factor. With scales this large it would overflow in the scale.
            if row_scale.numel() and row_scale.abs().amax() < 2.0**100:
                row_scale = row_scale * 256
            else:
                values.mul_(256)
        whole = values.shape[1] // _GRAN * _GRAN
        blocks = values[:, :whole].view(len(values), whole // _GRAN, _GRAN)
        blocks.mul_(row_scale[:, : whole // _GRAN].unsqueeze(-1))
        if whole < values.shape[1]:
            values[:, whole:].mul_(row_scale[:, whole // _GRAN :])
        return values

    def _decode(self, data: torch.Tensor, values: torch.Tensor) -> bool:
        # torch converts e4m3 one element after the other. The same bits moved into a half, whose
        # exponent has one bit more, are the value divided by 2 ** 8, subnormals included, and that
        # runs ten times as fast. Only the two NaN codes would turn into numbers: 127 and 255 are
        # the largest bytes, so a maximum finds them.
        codes = data.view(torch.int8)
        if data.numel() == 0 or codes.max() == 0x7F or data.view(torch.uint8).max() == 0xFF:
            values.copy_(data)
            return False
        half = self._halves[: len(data)]
        half.copy_(codes).bitwise_left_shift_(7)
        # Widening copied the sign into bit 15, where it belongs, and into bit 14, where it does
        # not.
        half.bitwise_and_(~(1 << 14))
        values.copy_(half.view(torch.float16))
        return True


def _dequantised(data: torch.Tensor, row_scale: torch.Tensor) -> torch.Tensor:
    rows = len(data)
    return _Chunks(data, max(1, rows)).dequantised(slice(0, rows), row_scale)
